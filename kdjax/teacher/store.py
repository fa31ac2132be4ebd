"""The store of teacher outputs: logits and, on request, features, computed once and kept on disk.

The outputs of a teacher are in a folder named by its fingerprint: those of each view of the training split, and the
logits of the unaugmented validation and test images ("clean" logits). No student, epoch or later run computes a stored
shard again. The store holds logits rather than probabilities, so that a run may choose any temperature. Source of
consistent views that are cached: arXiv 2106.05237.

    parts.json                  everything that the outputs depend on; its hash names the folder
    NAME-START.npy, .sha256     logits from row START on, (rows, classes) float32; NAME is view-0000, …, validation or
                                test
    NAME-START.features.npy, .features.sha256    pooled features, (rows, F) float16
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kdjax.data.rows import Rows
from kdjax.errors import InputError
from kdjax.objective.outputs import Outputs
from kdjax.runtime import files
from kdjax.runtime.devices import barrier

FORMAT = 2
"""Version of the layout on disk, part of the fingerprint."""

FEATURES = np.float16
"""Dtype of stored features. Rounding to it changes the cosine distance of 512 features by less than 3e-5 (measured)."""

SHARD = 2048
"""Largest number of rows in a file, and so the most rows that an interruption makes a run compute again."""

DATA_PARTS = ("examples", "augmentation", "data_seed", "format")
"""Parts in which a folder of logits must agree with the run that uses it. The other parts identify the teacher."""


def tree_digest(tree: Any) -> str:
    """Returns the SHA-256, in hexadecimal, of the names, shapes, dtypes and bytes of a tree of arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def view_name(view: int) -> str:
    """Returns the name under which the outputs of a view are stored."""
    return f"view-{view:04d}"


class LogitsFolder:
    """A folder with the outputs of one teacher on one data set, which are mapped from disk rather than loaded.

    Args:
        folder: the folder, with parts.json.
        parts: the content of parts.json, everything that the logits depend on.
        classes: number of classes, the length of a row of logits.
        log: takes a line of text for the user.
    """

    def __init__(self, folder: Path, parts: Mapping[str, Any], classes: int, log: Callable[[str], None]):
        self.folder, self.parts, self.classes, self._log = folder, parts, classes, log

    @property
    def fingerprint(self) -> str:
        """The fingerprint of everything that the logits depend on."""
        return fingerprint(self.parts)

    def has(self, name: str) -> bool:
        """Whether any logits are stored under this name."""
        return self._path(name, 0).exists()

    def missing(self, name: str, rows: int, *, features: bool = False) -> list[tuple[int, int]]:
        """Returns the shards (first row, end) of `rows` rows that are missing or damaged."""
        return [shard for shard in _shards(rows) if self._load(name, *shard, features, log_damage=False) is None]

    def missing_error(self, name: str) -> InputError:
        """Returns the error for outputs that are missing or damaged and that no teacher can compute again."""
        return InputError(f"{self.folder} lacks {name}: compute it with its teacher, or lower distill.views")

    def read(
        self,
        name: str,
        rows: int,
        compute: Callable[[int, int], Outputs] | None = None,
        *,
        features: bool = False,
        finite: bool = True,
    ) -> Outputs:
        """Reads the outputs stored under a name, and computes and stores those that are missing or damaged.

        Every shard is compared with its hash, and then mapped rather than loaded.

        Args:
            name: a view's name, "validation" or "test".
            rows: number of examples.
            compute: function from first row and end to the outputs of these rows. It is called for each shard that is
                missing or damaged, and its result is stored.
            features: whether to read features too.
            finite: whether to refuse logits that are not finite, including those that an earlier version stored.

        Returns:
            The outputs as `Rows`: logits (rows, classes) float32, and features (rows, F) float16 or None.

        Raises:
            InputError: a shard is missing or damaged and there is no `compute`, features are too large to store, or
                logits are not finite.
        """
        shards = []
        for start, end in _shards(rows):
            local = self._load(name, start, end, features, log_damage=True)
            shard = _from_first_process(local, end - start)
            if finite and shard is not None:
                self._check_finite(name, start, shard.logits)
            if shard is None:
                if compute is None:
                    raise self.missing_error(name)
                computed = self._as_stored(compute(start, end), features)
                # If every process computes all rows, as with ONNX, machines may differ in the last bit.
                shard = _from_first_process(computed, end - start) or computed
                if finite:
                    self._check_finite(name, start, shard.logits)
                if jax.process_index() == 0:
                    self._store(name, start, shard)
                barrier("a shard is stored")  # processes that share the disk can read it from here on
                local = self._load(name, start, end, features, log_damage=False)
            shards.append(local if local is not None and _equal(local, shard) else shard)
        if not shards:
            shards.append(Outputs(np.empty((0, self.classes), np.float32)))
        return jax.tree.map(lambda *parts: Rows(parts), *shards)

    def _as_stored(self, outputs: Outputs, features: bool) -> Outputs:
        """Converts a teacher's outputs to the arrays and dtypes that are stored."""
        logits = np.asarray(outputs.logits, np.float32)
        if not features:
            return Outputs(logits)
        largest = float(np.abs(outputs.features).max(initial=0))
        if not largest <= float(np.finfo(FEATURES).max):
            raise InputError(
                f"the teacher's features reach {largest:.3g}, more than half precision holds: leave out the arms that "
                "compare features"
            )
        return Outputs(logits, np.asarray(outputs.features, FEATURES))

    def _check_finite(self, name: str, start: int, logits: np.ndarray) -> None:
        """Raises InputError if any of the logits (rows, classes) is NaN or infinite; row 0 is image `start`."""
        broken = np.flatnonzero(~np.isfinite(logits).all(1))
        if len(broken):
            model, digest = self.parts.get("model", "of unknown kind"), str(self.parts.get("teacher", ""))[:12]
            raise InputError(
                f"teacher {model} ({digest}) gives logits that are not finite for {name}, first of image "
                f"{start + broken[0]}: choose another teacher (its outputs are in {self.folder})"
            )

    def _path(self, name: str, start: int) -> Path:
        return self.folder / f"{name}-{start:07d}.npy"

    def _load(self, name: str, start: int, end: int, features: bool, *, log_damage: bool) -> Outputs | None:
        """Maps a stored shard; returns None if it is missing or damaged."""
        path = self._path(name, start)
        logits = self._array(path, (end - start, self.classes), log_damage=log_damage)
        if logits is None or not features:
            return None if logits is None else Outputs(logits)
        pooled = self._array(path.with_suffix(".features.npy"), (end - start, None), log_damage=log_damage)
        return None if pooled is None else Outputs(logits, pooled)

    def _array(self, path: Path, shape: tuple[int, int | None], *, log_damage: bool) -> np.ndarray | None:
        """Maps the array in a file; returns None if it is missing or damaged. None in `shape` fits any length."""
        if not path.exists():
            return None
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest = path.with_suffix(".sha256")
        if digest.exists() and digest.read_text(encoding="utf-8") == content:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.ndim == 2 and len(array) == shape[0] and shape[1] in (None, array.shape[1]):
                return array
        if log_damage:
            self._log(f"teacher logits: {path} is damaged and is computed again")
        return None

    def _store(self, name: str, start: int, shard: Outputs) -> None:
        path = self._path(name, start)
        for file, array in ((path, shard.logits), (path.with_suffix(".features.npy"), shard.features)):
            if array is not None:
                buffer = io.BytesIO()
                np.save(buffer, array, allow_pickle=False)
                digest = hashlib.sha256(buffer.getvalue()).hexdigest()
                files.write_bytes(file.with_suffix(".sha256"), digest.encode())
                files.write_bytes(file, buffer.getvalue())


def _shards(rows: int) -> list[tuple[int, int]]:
    """Returns (first row, end) of each shard."""
    return [(start, min(start + SHARD, rows)) for start in range(0, rows, SHARD)]


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Returns the hash of everything that the logits depend on, in hexadecimal; it names their folder in the cache."""
    return hashlib.sha256(_text(parts).encode()).hexdigest()[:16]


def cached_folder(cache_dir: Path, parts: Mapping[str, Any], classes: int, log: Callable[[str], None]) -> LogitsFolder:
    """Returns the folder for these parts in a cache that runs may share, and creates it if absent.

    Args:
        cache_dir: the cache.
        parts: everything that the logits depend on, as JSON values.
        classes: number of classes.
        log: takes a line that says how a new folder differs from the nearest one; passed on to the folder.
    """
    parts = _complete(parts)
    folder = cache_dir / "teacher_logits" / fingerprint(parts)
    if not (folder / "parts.json").exists() and jax.process_index() == 0:
        _log_nearest(folder, parts, log)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_bytes(folder / "parts.json", _text(parts).encode())
    return LogitsFolder(folder, parts, classes, log)


def existing_folder(
    path: str, field: str, parts: Mapping[str, Any], classes: int, log: Callable[[str], None]
) -> LogitsFolder:
    """Opens a folder of existing logits that takes the place of a teacher.

    Args:
        path: the folder.
        field: config field that names the folder, for messages.
        parts: as in `cached_folder`; those listed in `DATA_PARTS` must equal the folder's.
        classes: number of classes.
        log: passed on to the folder.

    Raises:
        InputError: the folder is absent, or was made for other data; names the part that differs.
    """
    wanted, stored = _complete(parts), read_parts(path, field)
    for name in DATA_PARTS:
        if stored.get(name) != wanted[name]:
            raise InputError(
                f"{field}: {path} does not fit this run: its {name} is {_short(stored.get(name))}, needed "
                f"{_short(wanted[name])}; give the dataset fields and the data_seed of the run that made it"
            )
    return LogitsFolder(Path(path), stored, classes, log)


def read_parts(path: str | Path, field: str = "distill.logits") -> dict[str, Any]:
    """Reads what the logits in a folder depend on.

    Args:
        path: the folder.
        field: config field that names the folder, for messages.

    Raises:
        InputError: it is not a folder of teacher logits.
    """
    if not (Path(path) / "parts.json").is_file():
        raise InputError(f"{field}: {path} is not a folder of teacher logits: it has no parts.json")
    document = files.read_json(Path(path) / "parts.json", f"{field}: give a folder of teacher logits")
    if not isinstance(document, dict):
        raise InputError(f"{field}: {path} is not a folder of teacher logits: its parts.json holds none")
    return document


def _complete(parts: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(_text({**parts, "format": FORMAT}))


def _text(parts: Mapping[str, Any]) -> str:
    return json.dumps(parts, sort_keys=True, indent=1)


def _from_first_process(shard: Outputs | None, rows: int) -> Outputs | None:
    """Broadcasts the first process's shard of `rows` rows, or its None, to all processes.

    All processes must agree on which shards to compute, although each may have its own disk.
    """
    if jax.process_count() == 1:
        return shard
    arrays = [] if shard is None else [array for array in (shard.logits, shard.features) if array is not None]
    lengths = np.array([array.shape[1] for array in arrays] + [-1] * (2 - len(arrays)), np.int32)
    # A broadcast needs an array of the first process's shape in every process; only the first one's values count.
    lengths = np.asarray(multihost_utils.broadcast_one_to_all(lengths))
    leaves: list[np.ndarray | None] = [None, None]
    for index, (length, dtype) in enumerate(zip(lengths, (np.float32, FEATURES), strict=True)):
        if length >= 0:
            fits = index < len(arrays) and arrays[index].shape[1] == length
            local = arrays[index] if fits else np.zeros((rows, length), dtype)
            leaves[index] = np.asarray(multihost_utils.broadcast_one_to_all(local))
    return None if leaves[0] is None else Outputs(*leaves)


def _equal(stored: Outputs, computed: Outputs) -> bool:
    """Whether two outputs are identical, so that those on disk can be used in place of those in memory."""
    return stored is computed or all(jax.tree.leaves(jax.tree.map(np.array_equal, stored, computed)))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _log_nearest(folder: Path, parts: dict[str, Any], log: Callable[[str], None]) -> None:
    """Logs the parts in which a new cache entry differs from the most similar existing one."""
    entries = []
    for path in folder.parent.glob("*/parts.json"):
        try:
            entries.append(read_parts(path.parent))
        except InputError:  # a damaged entry of another run does not concern this one
            continue
    differing = [", ".join(sorted(name for name in parts if entry.get(name) != parts[name])) for entry in entries]
    if differing:
        log(
            "teacher logits: not cached; the nearest entry differs in "
            f"{min(differing, key=lambda names: names.count(','))}"
        )
