"""Checkpoints of a population, written and read by orbax.

Model, optimizer, best-so-far and the averages since the last evaluation are separate items, so that evaluation
restores only what it needs. The latest two checkpoints are kept; each student's best is part of the state and needs no
checkpoint of its own.

A checkpoint appears under its step's name when it is complete. Beside it, `STEP.crc32.json` holds a checksum of each of
its files. A checkpoint that was damaged later is put aside, and the one before it is used.
"""

import errno
import itertools
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from clu.metrics import Average

from kdjax.errors import InputError, Preempted, one_line
from kdjax.runtime.devices import DeviceMapping, first_process_says
from kdjax.runtime.files import write_text
from kdjax.runtime.memory import tree_bytes
from kdjax.training.state import Best, TrainState

FOLDER = "checkpoints"
"""The folder of checkpoints in the folder of a stage."""

ITEMS = ("model", "optimizer", "best", "averages")

DAMAGED = "damaged-"
"""Prefix of the name of a damaged checkpoint that was put aside; its step follows."""

KEPT = 2
"""How many of the latest checkpoints are kept. One with as many after it may be being deleted."""

LOOKS = 20
"""How often opening the checkpoints that another process writes is retried if one of them is deleted meanwhile."""


def has_begun(stage: Path) -> bool:
    """Whether a stage's folder has checkpoints, by the names alone. Damaged ones count, unfinished ones do not."""
    names = (path.name for path in (stage / FOLDER).glob("*"))
    return any(name.isdecimal() or name.startswith(DAMAGED) for name in names)


class Checkpoints:
    """The checkpoints in one directory.

    Args:
        directory: made if absent, unless `read_only`.
        mapping: where restored states are placed.
        log: takes a line about each checkpoint that is put aside.
        read_only: whether another process writes here; then nothing is made, put aside or deleted.
    """

    def __init__(
        self, directory: Path, mapping: DeviceMapping, *, log: Callable[[str], None] = print, read_only: bool = False
    ):
        self._mapping = mapping
        self.directory = directory
        self._log = log
        self._read_only = read_only
        self._read_back = False
        self._manager = _open_settled(self._open) if read_only else self._open()

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self.directory.absolute(),
            item_handlers={name: ocp.StandardCheckpointHandler() for name in ITEMS},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(KEPT),
                # A donated buffer may be written to while an asynchronous save still reads it.
                enable_async_checkpointing=False,
                read_only=self._read_only,
                create=not self._read_only,
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the latest checkpoint, or None."""
        return self._manager.latest_step()

    def latest_whole_step(self) -> int | None:
        """Step of the latest undamaged checkpoint, or None if there are no checkpoints. Damaged ones are put aside.

        The first process checks the files and decides for all.

        Raises:
            InputError: every checkpoint is damaged.
        """
        steps, whole = sorted(self._manager.all_steps(), reverse=True), -1
        for step in steps if jax.process_index() == 0 else ():
            damage = self._damage(step)
            if damage is None:
                whole = step
                break
            self._log(f"checkpoint {self.directory}/{step} is damaged ({damage}); the one before it is used")
            self._put_aside(step)
        whole = first_process_says(whole)
        if jax.process_index() > 0 and steps and whole != steps[0]:
            self._manager.reload()  # the first process has put later ones aside
        if whole < 0 and (steps or any(self.directory.glob(f"{DAMAGED}*"))):  # put aside now, or in an earlier start
            raise self._all_damaged()
        return None if whole < 0 else whole

    def save(self, state: TrainState, averages: dict[str, Average]) -> None:
        """Saves `state` under its step, with the averages since the last evaluation. Every process calls this.

        Raises:
            InputError: it could not be written; the earlier checkpoints are unchanged.
        """
        state, averages = self._mapping.to_global((state, averages))
        step = int(state.step.addressable_data(0))
        model, optimizer, best = _items(state)
        items = {"model": model, "optimizer": optimizer, "best": best, "averages": averages}
        needed, free = tree_bytes(items), shutil.disk_usage(self.directory).free
        if free < needed:
            why = f"{needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free"
            raise self._unwritten(step, why) from OSError(errno.ENOSPC, why)
        try:
            self._manager.save(
                step, args=ocp.args.Composite(**{name: ocp.args.StandardSave(item) for name, item in items.items()})
            )
            if jax.process_index() == 0:
                self._seal(step)
            if not self._read_back:  # once, so that a path from which orbax cannot read fails at the first checkpoint
                self._check_layout(step, {"model": model})
                self._read_back = True
        except (OSError, ValueError) as error:
            # tensorstore reports a full disk as a ValueError, with the system's error code deep in its message.
            code = re.search(r"os_error_code='(\d+)'", str(error))
            if not code and not isinstance(error, OSError) and "Error writing" not in str(error):
                raise
            why = os.strerror(int(code[1])) if code else one_line(error)
            raise self._unwritten(step, why) from (OSError(int(code[1]), why) if code else error)

    def restore(self, like: TrainState, averages: dict[str, Average]) -> tuple[TrainState, dict[str, Average]] | None:
        """The latest state and the averages saved with it, or None if there is no checkpoint.

        Args:
            like: a state of the same layout; shapes and dtypes suffice.
            averages: averages of the same layout.

        Raises:
            InputError: every checkpoint is damaged, the latest cannot be read, or has another layout.
        """
        model, optimizer, best = _items(like)
        restored = self._restore(model=model, optimizer=optimizer, best=best, averages=averages)
        if restored is None:
            return None
        state = TrainState(**{"ema": {}, **restored["model"]}, opt_state=restored["optimizer"], best=restored["best"])
        return state, restored["averages"]

    def restore_best(self, like: TrainState) -> tuple[Best, dict[str, Any]]:
        """Each student's best so far, and the latest `step`, `params`, `batch_stats`, `failed` and any `ema`.

        The optimizer's state is not read.

        Raises:
            InputError: there is no checkpoint, every one is damaged, the latest cannot be read, or has another layout.
        """
        model, _, best = _items(like)
        restored = self._restore(model=model, best=best)
        if restored is None:
            raise InputError(f"no checkpoint in {self.directory}: run the stage that trains it first")
        return restored["best"], restored["model"]

    def restore_model(self, like: TrainState, step: int) -> tuple[dict[str, Any], np.ndarray]:
        """The students' variables as they are evaluated at `step`, and the step at which each failed (−1: it has not).

        Leaves lead with (seed, arm).

        Raises:
            OSError, ValueError, KeyError: the checkpoint is gone, or is deleted while it is read.
        """
        model, _, _ = _items(like)
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._mapping.global_sharding), model
        )
        restored = self._manager.restore(step, args=ocp.args.Composite(model=ocp.args.StandardRestore(abstract)))
        model = self._mapping.from_global(restored["model"])
        variables = model.get("ema") or {name: model[name] for name in ("params", "batch_stats")}
        return variables, np.asarray(model["failed"])

    def all_steps(self) -> list[int]:
        """Steps of all checkpoints, in ascending order."""
        return sorted(self._manager.all_steps())

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.close()

    def _restore(self, **items: Any) -> Any:
        """The items of the latest undamaged checkpoint, or None if there are no checkpoints."""
        sharding = self._mapping.global_sharding
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), items)
        arguments = ocp.args.Composite(**{name: ocp.args.StandardRestore(item) for name, item in abstract.items()})
        while (step := self.latest_whole_step()) is not None:
            try:
                self._check_layout(step, items)
                restored = self._manager.restore(step, args=arguments)
                return {name: self._mapping.from_global(restored[name]) for name in items}
            except (InputError, Preempted):
                raise
            except Exception as error:  # orbax's parts raise many types of exceptions for a truncated file
                if self._sums(step).exists() or self._read_only or jax.process_count() > 1:
                    raise InputError(
                        f"checkpoint {self.directory}/{step} cannot be read ({one_line(error)})"
                    ) from error
                # It has no checksums: its process died before they were written, such as at a power loss.
                self._log(f"checkpoint {self.directory}/{step} cannot be read; the one before it is used")
                self._put_aside(step)
        return None

    def _all_damaged(self) -> InputError:
        return InputError(
            f"every checkpoint in {self.directory} is damaged: remove {self.directory.parent} to train this stage "
            "again, or put back a copy"
        )

    def _check_layout(self, step: int, items: dict[str, Any]) -> None:
        # Compared before anything is read: a restore that fails half-way leaves asynchronous reads that nobody awaits.
        metadata = self._manager.item_metadata(step)
        saved, expected = _shapes(metadata["model"].tree), _shapes(items["model"])
        for name in sorted({*saved, *expected}):
            if saved.get(name) != expected.get(name):
                raise InputError(
                    f"checkpoint {self.directory}/{step} does not fit this configuration: "
                    f"{name} has shape {saved.get(name)}, needed {expected.get(name)}"
                )
        sizes = lambda tree: sorted(_shapes(tree).values())
        if "optimizer" in items and sizes(metadata["optimizer"].tree) != sizes(items["optimizer"]):
            raise InputError(
                f"checkpoint {self.directory}/{step} has another optimizer state, as an earlier version of kdjax kept "
                "it: end this training with that version, or train in another workdir"
            )

    def _seal(self, step: int) -> None:
        """Writes the checksums of a checkpoint and removes those of checkpoints that are gone."""
        folder = self.directory / str(step)
        sums = {str(path.relative_to(folder)): _crc32(path) for path in sorted(folder.rglob("*")) if path.is_file()}
        write_text(self._sums(step), json.dumps(sums, indent=0))
        current = {self._sums(step) for step in self._manager.all_steps()}
        for path in self.directory.glob("*.crc32.json"):
            if path not in current:
                path.unlink(missing_ok=True)

    def _sums(self, step: int) -> Path:
        return self.directory / f"{step}.crc32.json"

    def _damage(self, step: int) -> str | None:
        """What is wrong with a checkpoint, or None. One without checksums passes: its process died before `_seal`."""
        if not self._sums(step).exists():
            return None
        folder = self.directory / str(step)
        try:
            sums = json.loads(self._sums(step).read_text(encoding="utf-8"))
            for name, expected in sums.items():
                if not (folder / name).is_file():
                    return f"{name} is missing"
                if _crc32(folder / name) != expected:
                    return f"{name} has changed"
        except (OSError, ValueError) as error:
            return str(error)
        return None

    def _put_aside(self, step: int) -> None:
        if self._read_only:
            return
        # A run that goes on from the checkpoint before reaches this step again, and that checkpoint may be damaged too.
        name = f"{DAMAGED}{step}"
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        unused = next(name for name in names if not (self.directory / name).exists())
        os.replace(self.directory / str(step), self.directory / unused)
        self._sums(step).unlink(missing_ok=True)
        self._manager.reload()

    def _unwritten(self, step: int, why: str) -> InputError:
        last = max((saved for saved in self._manager.all_steps() if saved < step), default=None)
        return InputError(
            f"checkpoint {self.directory}/{step} could not be written: {why}. The last good one is that of step "
            f"{last}; make room and run the same command again"
        )


def _open_settled(open_manager: Callable[[], ocp.CheckpointManager]) -> ocp.CheckpointManager:
    """Calls `open_manager`, again if another process deletes a checkpoint while orbax lists them."""
    for _ in range(LOOKS):
        try:
            return open_manager()
        except FileNotFoundError:
            time.sleep(0.2)
    return open_manager()


def _items(state: TrainState) -> tuple[Any, Any, Any]:
    model = {name: getattr(state, name) for name in ("step", "params", "batch_stats", "failed")}
    if state.ema:
        model["ema"] = state.ema
    return model, state.opt_state, state.best


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
