"""Who trains: the teacher or the student, said once. No stage compares a name with a string after that."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from kdjax.data.bands import RGB, colors
from kdjax.data.rows import Images
from kdjax.errors import InputError
from kdjax.networks import cost, pretrained
from kdjax.networks.weights_metadata import band_names
from kdjax.objective.arms import Arm
from kdjax.runtime import devices, files
from kdjax.runtime.keys import key
from kdjax.training import optimizer, state
from kdjax.training.checkpoint import FOLDER, Checkpoints, begun
from kdjax.training.predictor import predictor
from kdjax.training.state import Best, TrainState, without_projection

WEIGHTS = "weights.json"
"""In the folder of a stage: the file of weights that it began with."""


@dataclasses.dataclass(frozen=True)
class Selected:
    """What the checkpoints of a population hold for evaluation. Leaves lead with (seed, arm).

    Attributes:
        best: each network's selected evaluation, and its variables.
        last: the variables at the latest step.
        step: the latest step.
        failed: (seed, arm) int, the step at which each failed, −1 while it did not.
    """

    best: Best
    last: dict[str, Any]
    step: int
    failed: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """(seed, arm) bool: which did not fail and were evaluated."""
        return (self.failed < 0) & (np.asarray(self.best.step) >= 0)

    def one(self, row: int, column: int) -> dict[str, Any]:
        """The selected variables of one network, without population axes, on the host."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[row, column], self.best.variables)


@dataclasses.dataclass(frozen=True)
class Learner:
    """A population of networks that a stage trains; the teacher is one of shape (1, 1).

    Attributes:
        name: its section of the configuration, "teacher" or "student".
        folder: where its stage writes; the folder's name is the stage's.
        section: that section.
        network: the flax module.
        size: side of its input, px.
        examples: training examples in an epoch.
        total_steps: updates of the whole training.
        seeds: names of the rows.
        arms: the columns.
        mapping: the devices.
        log: takes lines.
        read_only: whether another process or run writes the folder.
        projection: lengths of the features of student and teacher, where an arm maps the ones to the others.
        bands: names of the bands that the network takes.
        selected_by: the figure of `metrics.classification` by which validation ranks its steps.
    """

    name: str
    folder: Path
    section: Any
    network: nn.Module
    size: int
    examples: int
    total_steps: int
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    mapping: devices.DeviceMapping
    log: Callable[[str], None] = print
    read_only: bool = False
    projection: tuple[int, int] | None = None
    bands: tuple[str, ...] = RGB
    selected_by: str = "top1"

    @property
    def colors(self) -> tuple[int | None, ...] | None:
        """The places of red, green and blue among its bands, where these are not red, green and blue themselves."""
        return None if self.bands == RGB else colors(self.bands)

    @property
    def rows(self) -> tuple[int, int]:
        """Shape of the population: seeds and arms."""
        return len(self.seeds), len(self.arms)

    @property
    def names(self) -> list[list[str]]:
        """Names of the networks by (seed, arm), as "arm/seed"."""
        return [[f"{arm.name}/{seed}" for arm in self.arms] for seed in self.seeds]

    @property
    def optimizer(self) -> Callable[[jax.Array, jax.Array], optax.GradientTransformation]:
        """From learning rate and weight decay to the optax transformation."""
        return functools.partial(optimizer.adamw, clip=self.section.clip, head_factor=self.section.head_factor)

    @property
    def schedule(self) -> optax.Schedule:
        """Factor on the learning rate as a function of the step."""
        warmup = round(self.section.warmup_epochs * self.examples / self.section.batch_size)
        return optimizer.schedule(self.total_steps, min(warmup, self.total_steps - 1))

    @property
    def has_ended(self) -> bool:
        """Whether its last step is saved."""
        return (self.folder / FOLDER / str(self.total_steps)).is_dir()

    @property
    def has_checkpoints(self) -> bool:
        """Whether the stage has begun."""
        return begun(self.folder)

    def checkpoints(self) -> Checkpoints:
        """The checkpoints in its folder; to be closed."""
        return Checkpoints(self.folder / FOLDER, self.mapping, log=self.log, read_only=self.read_only)

    @functools.cached_property
    def initialized(self) -> Callable[[jax.Array], dict[str, Any]]:
        """From a key to the variables of one network before training. To trace it takes a second, the first time."""
        return state.initializer(self.network, self.size)

    @functools.cached_property
    def variables(self) -> dict[str, Any]:
        """Shapes and dtypes of the variables of one network."""
        return jax.eval_shape(self.initialized, key(0))

    @functools.cached_property
    def layout(self) -> TrainState:
        """Shapes and dtypes of its state."""
        return jax.eval_shape(self.scratch)

    @functools.cached_property
    def cost(self) -> dict[str, int]:
        """What its network costs, see `networks.cost`."""
        return cost(self.network, self.size)

    def initial(self) -> TrainState:
        """A new state, from the weights that the section names or from scratch; the folder then says from which."""
        if not self.section.weights:
            if jax.process_index() == 0:  # of a start with weights that was given up before its first checkpoint
                (self.folder / WEIGHTS).unlink(missing_ok=True)
            return self.scratch()
        taken: list[pretrained.Loaded] = []

        def loaded(variables: dict[str, Any]) -> dict[str, Any]:
            taken.append(self.load(variables, "fitting" if self.section.head == "fc" else "keep"))
            return taken[-1].variables

        created = self.scratch(pretrained=loaded)
        self.note(taken[0])
        return created

    def load(self, variables: dict[str, Any], classifier: str) -> pretrained.Loaded:
        """What the file of weights has for the variables of one network, see `pretrained.load_imagenet`."""
        section = self.section
        self._check_bands()
        return pretrained.load_imagenet(
            section.weights, section.model, variables, classifier, section.weights_pixels, self.colors
        )

    def note(self, taken: pretrained.Loaded) -> None:
        """Says what was taken from the file of weights, and keeps that in the folder."""
        self.log(f"{self.name}: {taken.report}")
        if jax.process_index() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_json(self.folder / WEIGHTS, taken.record)

    @property
    def weights(self) -> dict[str, Any] | None:
        """The file that its weights came from, as `pretrained.Loaded.record`; None where they came from none."""
        path = self.folder / WEIGHTS
        if not self.section.weights and not self.read_only:  # of another run's that run's configuration tells
            return None
        return files.read_json(path, "it says where the weights came from: put it back") if path.is_file() else None

    def check_weights(self) -> None:
        """Makes sure that training can start from the weights that the section names.

        Raises:
            InputError: names the field, and what does not fit.
        """
        if not self.section.weights:
            return
        try:
            section = self.section
            self._check_bands()
            pretrained.check(section.weights, section.model, self.variables, section.weights_pixels, self.colors)
        except InputError as error:
            scratch = f"; --config.{self.name}.weights= (nothing) starts from scratch" * (
                self.section.get("fit") in (None, "all")
            )
            raise InputError(f"{self.name}.{error}{scratch}") from None

    def _check_bands(self) -> None:
        told = band_names(self.section.weights)
        if told is not None and tuple(told) != self.bands:
            raise InputError(
                f"weights {self.section.weights}: made for the bands {' '.join(told)}, not {' '.join(self.bands)}: set "
                f"{self.name}.bands to the first"
            )

    @functools.cached_property
    def predictor(self) -> Callable[[Any, Images], np.ndarray]:
        """A compiled function from variables and images to logits, see `predictor.predictor`. All stages share it."""
        return predictor(self.network, size=self.size, mapping=self.mapping)

    def predicting(self, variables: Mapping[str, Any]) -> Callable[[Images], np.ndarray]:
        """From images (N, side, side, bands) to logits (seed, arm, N, classes), by networks with these variables."""
        return functools.partial(self.predictor, self.mapping.place(variables, "rows"))

    def selected(self) -> Selected:
        """What its checkpoints hold.

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
        if selected.step == self.total_steps and not selected.usable.any():  # `best` has what training began with
            raise InputError(
                f"no step of the {self.name} in {self.folder} had finite outputs on validation: lower "
                f"{self.name}.learning_rate and train in another workdir"
            )
        return selected

    def finished(self) -> Selected:
        """As `selected`, at the end of its training.

        Raises:
            InputError: there is no checkpoint, or its training has not ended.
        """
        selected = self.selected()
        if selected.step != self.total_steps:
            raise InputError(
                f"the {self.name} in {self.folder} is at step {selected.step} of {self.total_steps}: run "
                f"--stages={self.folder.name} there first"
            )
        return selected

    def scratch(self, **options: Any) -> TrainState:
        """A new state, from scratch unless `options` of `state.create` say otherwise."""
        return state.create(
            self.initialized,
            self.optimizer,
            seeds=self.seeds,
            arms=len(self.arms),
            ema=self.section.ema > 0,
            projection=self.projection,
            **options,
        )
