"""The networks of a teacher or of the students of a run, and what their folder holds."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from kdjax.data.bands import RGB
from kdjax.data.rows import Images
from kdjax.errors import InputError
from kdjax.networks import cost
from kdjax.runtime import devices, files
from kdjax.runtime.keys import key
from kdjax.training import optimizer, state
from kdjax.training.checkpoint import FOLDER, Checkpoints, has_begun
from kdjax.training.predictor import predictor
from kdjax.training.state import Best, TrainState, without_projection

WEIGHTS = "weights.json"
"""The record, in a stage's folder, of the file of weights that its training started from."""


@dataclasses.dataclass(frozen=True)
class Selected:
    """What evaluation reads from the checkpoints of a population. Leaves lead with (seed, arm).

    Attributes:
        best: each network's selected evaluation, with its variables.
        last: the variables at the latest step.
        step: the latest step.
        failed: (seed, arm) int, the step at which each network failed; −1 if it has not.
    """

    best: Best
    last: dict[str, Any]
    step: int
    failed: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """(seed, arm) bool: which networks did not fail and were evaluated."""
        return (self.failed < 0) & (np.asarray(self.best.step) >= 0)

    def one(self, row: int, column: int) -> dict[str, Any]:
        """The selected variables of one network, without population axes, on the host."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[row, column], self.best.variables)


@dataclasses.dataclass(frozen=True)
class Learner:
    """A population of networks that a stage trains, or that another run has trained. A teacher has the shape (1, 1).

    `population.Population` adds what only a training needs: arms, data, plan and step.

    Attributes:
        name: the section of the configuration, "teacher" or "student".
        folder: the folder of the stage that trains the networks; its name is the stage's.
        section: that section.
        network: the flax module.
        size: side of its input, px.
        total_steps: updates of the whole training.
        seeds: the seed of each row of the population.
        arm_names: the name of each column.
        mapping: the devices.
        log: takes lines.
        read_only: whether another process or run writes the folder.
        projection: feature lengths of student and teacher, if an arm maps student features to the teacher's.
        bands: names of the bands that the network takes.
    """

    name: str
    folder: Path
    section: Any
    network: nn.Module
    size: int
    total_steps: int
    seeds: tuple[int, ...]
    arm_names: tuple[str, ...]
    mapping: devices.DeviceMapping
    log: Callable[[str], None] = print
    read_only: bool = False
    projection: tuple[int, int] | None = None
    bands: tuple[str, ...] = RGB

    @property
    def rows(self) -> tuple[int, int]:
        """Shape of the population: the numbers of seeds and arms."""
        return len(self.seeds), len(self.arm_names)

    @property
    def names(self) -> list[list[str]]:
        """Names of the networks by (seed, arm), as "arm/seed"."""
        return [[f"{arm}/{seed}" for arm in self.arm_names] for seed in self.seeds]

    @property
    def optimizer(self) -> Callable[[jax.Array, jax.Array], optax.GradientTransformation]:
        """A function of learning rate and weight decay that returns the optax transformation."""
        return functools.partial(optimizer.adamw, clip=self.section.clip, head_factor=self.section.head_factor)

    @property
    def has_ended(self) -> bool:
        """Whether the last step of the training is saved."""
        return (self.folder / FOLDER / str(self.total_steps)).is_dir()

    @property
    def has_checkpoints(self) -> bool:
        """Whether the folder has checkpoints, damaged ones included."""
        return has_begun(self.folder)

    @property
    def weights(self) -> dict[str, Any] | None:
        """The record of the weights that the training started from, see `pretrained.Loaded.record`.

        None if it started from scratch.
        """
        path = self.folder / WEIGHTS
        # A read-only folder may be another run's, whose own configuration decided what its training started from.
        if not self.section.weights and not self.read_only:
            return None
        return files.read_json(path, "it says where the weights came from: put it back") if path.is_file() else None

    def checkpoints(self) -> Checkpoints:
        """Opens the checkpoints in the folder. The caller closes them."""
        return Checkpoints(self.folder / FOLDER, self.mapping, log=self.log, read_only=self.read_only)

    @functools.cached_property
    def initialized(self) -> Callable[[jax.Array], dict[str, Any]]:
        """The function of a key that initializes one network. Cached because the first trace takes a second."""
        return state.initializer(self.network, self.size)

    @functools.cached_property
    def variables(self) -> dict[str, Any]:
        """Shapes and dtypes of the variables of one network."""
        return jax.eval_shape(self.initialized, key(0))

    @functools.cached_property
    def layout(self) -> TrainState:
        """Shapes and dtypes of the population's state."""
        return jax.eval_shape(self.scratch)

    @functools.cached_property
    def cost(self) -> dict[str, int]:
        """Parameters, multiply-adds and activation size of one network, see `networks.cost`."""
        return cost(self.network, self.size)

    def scratch(self, **options: Any) -> TrainState:
        """A new state, initialized from scratch unless `options` of `state.create` say otherwise."""
        return state.create(
            self.initialized,
            self.optimizer,
            seeds=self.seeds,
            arms=len(self.arm_names),
            ema=self.section.ema > 0,
            projection=self.projection,
            **options,
        )

    @functools.cached_property
    def predictor(self) -> Callable[[Any, Images], np.ndarray]:
        """A compiled function from variables and images to logits, see `predictor.predictor`. All stages share it."""
        return predictor(self.network, size=self.size, mapping=self.mapping)

    def predicting(self, variables: Mapping[str, Any]) -> Callable[[Images], np.ndarray]:
        """A function from images (N, side, side, bands) to the logits (seed, arm, N, classes) of these variables."""
        return functools.partial(self.predictor, self.mapping.place(variables, "rows"))

    def selected(self) -> Selected:
        """Reads the selected and the latest networks from the checkpoints.

        Raises:
            InputError: there is no checkpoint, or no network is usable at the end of the training.
        """
        if not (self.folder / FOLDER).is_dir():
            raise InputError(f"no checkpoint in {self.folder / FOLDER}: run --stages={self.folder.name} first")
        checkpoints = self.checkpoints()
        try:
            best, model = checkpoints.restore_best(self.layout)
        finally:
            checkpoints.close()
        best = dataclasses.replace(best, params=without_projection(best.params))
        last = {"params": without_projection(model["params"]), "batch_stats": model["batch_stats"]}
        failed = np.asarray(model["failed"])
        if (failed >= 0).all():
            raise InputError(
                f"every {self.name} in {self.folder} failed, the last at step {failed.max()}, with a loss or gradient "
                "that was not finite: train in another workdir with a lower learning rate"
            )
        selected = Selected(best, last, int(model["step"]), failed)
        if selected.step == self.total_steps and not selected.usable.any():  # `best` still has the initial weights
            raise InputError(
                f"no step of the {self.name} in {self.folder} had finite outputs on validation: lower "
                f"{self.name}.learning_rate and train in another workdir"
            )
        return selected

    def finished(self) -> Selected:
        """As `selected`, but only once the training has ended.

        Raises:
            InputError: there is no checkpoint, the training has not ended, or no network is usable.
        """
        selected = self.selected()
        if selected.step != self.total_steps:
            raise InputError(
                f"the {self.name} in {self.folder} is at step {selected.step} of {self.total_steps}: run "
                f"--stages={self.folder.name} there first"
            )
        return selected
