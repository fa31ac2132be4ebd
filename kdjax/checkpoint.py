"""Checkpoints of a population, through orbax.

Model, optimiser and best-so-far are separate items, so that evaluation restores only what it needs. The latest two are
kept; each student's best is part of the state and needs no checkpoint of its own.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from kdjax.errors import InputError
from kdjax.parallel import Mapping
from kdjax.state import Best, TrainState


class Checkpoints:
    """The checkpoints in one directory.

    Args:
        directory: made if absent.
        mapping: where restored states are placed.
    """

    def __init__(self, directory: Path, mapping: Mapping):
        self._mapping = mapping
        self.directory = directory
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            item_handlers={name: ocp.StandardCheckpointHandler() for name in ("model", "optimizer", "best")},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(2),
                # A donated buffer may be written to while an asynchronous save still reads it.
                enable_async_checkpointing=False,
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the latest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Saves `state` under its step. Every process calls this."""
        state = self._mapping.to_global(state)
        model, optimiser, best = _items(state)
        self._manager.save(
            int(state.step.addressable_data(0)),
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(model),
                optimizer=ocp.args.StandardSave(optimiser),
                best=ocp.args.StandardSave(best),
            ),
        )

    def restore(self, like: TrainState) -> TrainState | None:
        """The latest state, or None where there is none.

        Args:
            like: a state of the same layout; shapes and dtypes suffice.
        """
        if self.latest_step is None:
            return None
        model, optimiser, best = _items(like)
        restored = self._restore(model=model, optimizer=optimiser, best=best)
        return TrainState(**restored["model"], opt_state=restored["optimizer"], best=restored["best"])

    def restore_best(self, like: TrainState) -> tuple[Best, jax.Array]:
        """Each student's best so far, and the step at which each failed (−1: never), from the latest checkpoint.

        Raises:
            InputError: there is no checkpoint.
        """
        if self.latest_step is None:
            raise InputError(f"no checkpoint in {self.directory}: run the stage that trains it first")
        model, _, best = _items(like)
        restored = self._restore(model=model, best=best)
        return restored["best"], restored["model"]["failed"]

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.close()

    def _restore(self, **items: Any) -> Any:
        sharding = self._mapping.global_sharding
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), items)
        # Compared before anything is read: a restore that fails half-way leaves reads behind that nobody awaits.
        saved, wanted = _shapes(self._manager.item_metadata(self.latest_step)["model"].tree), _shapes(items["model"])
        for name in sorted({*saved, *wanted}):
            if saved.get(name) != wanted.get(name):
                raise InputError(
                    f"checkpoint {self.directory}/{self.latest_step} does not fit this configuration: "
                    f"{name} has shape {saved.get(name)}, needed {wanted.get(name)}"
                )
        restored = self._manager.restore(
            self.latest_step,
            args=ocp.args.Composite(**{name: ocp.args.StandardRestore(item) for name, item in abstract.items()}),
        )
        return {name: self._mapping.from_global(restored[name]) for name in items}


def _items(state: TrainState) -> tuple[Any, Any, Any]:
    model = {name: getattr(state, name) for name in ("step", "params", "batch_stats", "failed")}
    return model, state.opt_state, state.best


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
