"""Teacher outputs once: `teacher_logits[view, example, class]`, an array on disk, and features where asked for.

The outputs of a teacher lie in a folder named by its fingerprint: those of each view of the training split, and the
logits of the plain validation and test images ("clean" logits). A shard that is there is never computed again, by any
student, epoch or later run. Logits are stored, not probabilities, so that any temperature can follow. Cached consistent
views: arXiv 2106.05237.

    parts.json                  all that the outputs depend on; its hash names the folder
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
"""Version of the layout on disk; part of the fingerprint."""

FEATURES = np.float16
"""Dtype of stored features. Their rounding moves the cosine distance of 512 features by less than 3e-5 (measured)."""

SHARD = 2048
"""Most rows of a file: what an interruption can cost."""

DATA_PARTS = ("examples", "augmentation", "data_seed", "format")
"""Parts that an array made elsewhere must share with the run that uses it. The others say who the teacher is."""


def tree_digest(tree: Any) -> str:
    """SHA-256 of the names, shapes, dtypes and bytes of a tree of arrays, in hexadecimal."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def view_name(view: int) -> str:
    """Name of the logits of a view."""
    return f"view-{view:04d}"


class LogitsFolder:
    """The outputs of one teacher on one data set, read where they are on disk.

    Args:
        folder: the folder, with parts.json.
        parts: the content of parts.json, all that the logits depend on.
        classes: length of a row.
        log: takes lines for the person who waits.
    """

    def __init__(self, folder: Path, parts: Mapping[str, Any], classes: int, log: Callable[[str], None]):
        self.folder, self.parts, self.classes, self._log = folder, parts, classes, log

    @property
    def fingerprint(self) -> str:
        """Of all that the logits depend on."""
        return fingerprint(self.parts)

    def has(self, name: str) -> bool:
        """Whether there is anything of that name."""
        return self._path(name, 0).exists()

    def missing(self, name: str, rows: int, *, features: bool = False) -> list[tuple[int, int]]:
        """The shards (first row, end) of `rows` rows that have to be computed."""
        return [shard for shard in _shards(rows) if self._load(name, *shard, features, say=False) is None]

    def lacks(self, name: str) -> InputError:
        """That outputs of that name are missing or damaged, and nobody is here to compute them."""
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
        """The outputs of that name, as `Rows`: logits (rows, classes) float32, and features (rows, F) float16 or None.

        Every shard is compared with its hash, and then mapped rather than loaded.

        Args:
            name: a view's name, "validation" or "test".
            rows: number of examples.
            compute: from first row and end to their outputs, called for each shard that is missing or damaged, whose
                result is then stored.
            features: whether features are asked for.
            finite: whether logits that are not are refused, also where an earlier version has stored them.

        Raises:
            InputError: a shard is missing or damaged, and there is no `compute`; or features are too large to store, or
                logits not finite.
        """
        shards = []
        for start, end in _shards(rows):
            own = self._load(name, start, end, features, say=True)
            shard = _from_first_process(own, end - start)
            if finite and shard is not None:
                self._check_finite(name, start, shard.logits)
            if shard is None:
                if compute is None:
                    raise self.lacks(name)
                computed = self._kept(compute(start, end), features)
                # Where each computes all, as with ONNX, machines may differ in the last bit.
                shard = _from_first_process(computed, end - start) or computed
                if finite:
                    self._check_finite(name, start, shard.logits)
                if jax.process_index() == 0:
                    self._store(name, start, shard)
                barrier("a shard is stored")  # for those that share the disk
                own = self._load(name, start, end, features, say=False)
            shards.append(own if own is not None and _equal(own, shard) else shard)
        if not shards:
            shards.append(Outputs(np.empty((0, self.classes), np.float32)))
        return jax.tree.map(lambda *parts: Rows(parts), *shards)

    def _kept(self, outputs: Outputs, features: bool) -> Outputs:
        """What is stored of a teacher's outputs."""
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
        """Refuses logits (rows, classes) from image `start` on of which one is NaN or infinite."""
        broken = np.flatnonzero(~np.isfinite(logits).all(1))
        if len(broken):
            who = f"teacher {self.parts.get('model', 'of unknown kind')} ({str(self.parts.get('teacher', ''))[:12]})"
            raise InputError(
                f"{who} gives logits that are not finite for {name}, first of image {start + broken[0]}: choose "
                f"another teacher (its outputs are in {self.folder})"
            )

    def _path(self, name: str, start: int) -> Path:
        return self.folder / f"{name}-{start:07d}.npy"

    def _load(self, name: str, start: int, end: int, features: bool, *, say: bool) -> Outputs | None:
        """A stored shard, or None where there is none or it is damaged."""
        path = self._path(name, start)
        logits = self._array(path, (end - start, self.classes), say=say)
        if logits is None or not features:
            return None if logits is None else Outputs(logits)
        found = self._array(path.with_suffix(".features.npy"), (end - start, None), say=say)
        return None if found is None else Outputs(logits, found)

    def _array(self, path: Path, shape: tuple[int, int | None], *, say: bool) -> np.ndarray | None:
        """The array of a file, or None where there is none or it is damaged. A length of None is any."""
        if not path.exists():
            return None
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest = path.with_suffix(".sha256")
        if digest.exists() and digest.read_text(encoding="utf-8") == content:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.ndim == 2 and len(array) == shape[0] and shape[1] in (None, array.shape[1]):
                return array
        if say:
            self._log(f"teacher logits: {path} is damaged and is computed again")
        return None

    def _store(self, name: str, start: int, shard: Outputs) -> None:
        path = self._path(name, start)
        for place, array in ((path, shard.logits), (path.with_suffix(".features.npy"), shard.features)):
            if array is not None:
                buffer = io.BytesIO()
                np.save(buffer, array, allow_pickle=False)
                digest = hashlib.sha256(buffer.getvalue()).hexdigest()
                files.write_bytes(place.with_suffix(".sha256"), digest.encode())
                files.write_bytes(place, buffer.getvalue())


def _shards(rows: int) -> list[tuple[int, int]]:
    """First row and end of each shard."""
    return [(start, min(start + SHARD, rows)) for start in range(0, rows, SHARD)]


def fingerprint(parts: Mapping[str, Any]) -> str:
    """The hash of all that the logits depend on, in hexadecimal; it names their folder in the cache."""
    return hashlib.sha256(_text(parts).encode()).hexdigest()[:16]


def cached(cache_dir: Path, parts: Mapping[str, Any], classes: int, log: Callable[[str], None]) -> LogitsFolder:
    """The folder of these parts in a cache that runs may share; made if absent.

    Args:
        cache_dir: the cache.
        parts: all that the logits depend on, as JSON values.
        classes: number of classes.
        log: is told in what a new entry differs from the nearest one.
    """
    parts = _complete(parts)
    folder = cache_dir / "teacher_logits" / fingerprint(parts)
    if not (folder / "parts.json").exists() and jax.process_index() == 0:
        _log_nearest(folder, parts, log)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_bytes(folder / "parts.json", _text(parts).encode())
    return LogitsFolder(folder, parts, classes, log)


def named(path: str, field: str, parts: Mapping[str, Any], classes: int, log: Callable[[str], None]) -> LogitsFolder:
    """A folder of logits made before, to be used in place of a teacher.

    Args:
        path: the folder.
        field: that names it, for messages.
        parts: as in `cached`; those of `DATA_PARTS` must agree with the folder's.
        classes: number of classes.
        log: passed on.

    Raises:
        InputError: the folder is absent, or was made for other data; names the part that differs.
    """
    wanted, there = _complete(parts), read_parts(path, field)
    for name in DATA_PARTS:
        if there.get(name) != wanted[name]:
            raise InputError(
                f"{field}: {path} does not fit this run: its {name} is {_short(there.get(name))}, needed "
                f"{_short(wanted[name])}; give the dataset fields and the data_seed of the run that made it"
            )
    return LogitsFolder(Path(path), there, classes, log)


def read_parts(path: str | Path, field: str = "distill.logits") -> dict[str, Any]:
    """What the logits in a folder depend on.

    Args:
        path: the folder.
        field: that names it, for messages.

    Raises:
        InputError: it is no folder of teacher logits.
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
    """What the first process found, in every process: they compute together, and each may have a disk of its own."""
    if jax.process_count() == 1:
        return shard
    arrays = [] if shard is None else [array for array in (shard.logits, shard.features) if array is not None]
    lengths = np.array([array.shape[1] for array in arrays] + [-1] * (2 - len(arrays)), np.int32)
    # Each process hands over arrays of the shapes that the first one has; what they hold there does not count.
    lengths = np.asarray(multihost_utils.broadcast_one_to_all(lengths))
    found: list[np.ndarray | None] = [None, None]
    for place, (length, dtype) in enumerate(zip(lengths, (np.float32, FEATURES), strict=True)):
        if length >= 0:
            own = place < len(arrays) and arrays[place].shape[1] == length
            held = arrays[place] if own else np.zeros((rows, length), dtype)
            found[place] = np.asarray(multihost_utils.broadcast_one_to_all(held))
    return None if found[0] is None else Outputs(*found)


def _equal(one: Outputs, other: Outputs) -> bool:
    """Whether outputs are the same, so that the ones on disk can stand for the others."""
    return one is other or all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _log_nearest(folder: Path, parts: dict[str, Any], log: Callable[[str], None]) -> None:
    """Says in what the entry about to be made differs from the nearest one there is."""
    others = []
    for path in folder.parent.glob("*/parts.json"):
        try:
            others.append(read_parts(path.parent))
        except InputError:  # an entry of another run that was damaged is none of this run's business
            continue
    differing = [", ".join(sorted(name for name in parts if other.get(name) != parts[name])) for other in others]
    if differing:
        log(
            f"teacher logits: not cached; the nearest entry differs in {min(differing, key=lambda one: one.count(','))}"
        )
