"""How a learner's population is trained: its initial state, its compiled step, and the examples of each step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from kdjax.data.dataset import Split
from kdjax.inputs.augment import Augmentation
from kdjax.inputs.batch import Examples, PlanStep
from kdjax.inputs.feed import Feed, resident, streamed
from kdjax.inputs.plan import Groups, Plan
from kdjax.inputs.tiled import held, held_layout
from kdjax.objective.arms import Arm, Hyperparameters, hyperparameters, measured_terms
from kdjax.objective.outputs import Outputs
from kdjax.objective.terms import TERMS
from kdjax.runtime.compiling import told
from kdjax.runtime.devices import DeviceMapping
from kdjax.training import initial_weights, optimizer
from kdjax.training.learner import Learner
from kdjax.training.state import TrainState
from kdjax.training.step import Averages, Recipe, empty_averages, planned_steps

Step = Callable[[TrainState, Averages, PlanStep, np.int32], tuple[TrainState, Averages]]


@dataclasses.dataclass(frozen=True)
class Online:
    """A teacher that runs inside the step.

    Attributes:
        network: the flax module.
        variables: its variables, without population axes.
        size: side of its input, px.
    """

    network: nn.Module
    variables: Any
    size: int


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What a population trains on, and what it is selected by.

    Attributes:
        train: the training split.
        validation: the split that chooses each network's step.
        data_seed: keys the views.
        augmentation: how views differ from their images.
        selected_by: the figure of `metrics.classification` by which validation ranks steps.
        on_device: whether all training images and outputs of the teacher lie in the devices' memory, or are read from
            the host.
        views: size of the pool of views of an example; 0 = a fresh view every time.
        stored: outputs of the teacher, leaves (views, examples, …) of which [views, examples] gives a part, or None.
        online: a teacher that runs inside the step, or None.
        mixup: see `Recipe`.
        balanced: whether every class is drawn equally often, or every example.
    """

    train: Split
    validation: Split
    data_seed: int
    augmentation: Augmentation
    selected_by: str
    on_device: bool
    views: int = 0
    stored: Outputs | None = None
    online: Online | None = None
    mixup: float = 0.0
    balanced: bool = False


@dataclasses.dataclass(frozen=True)
class Population:
    """A learner with all that its training needs.

    Attributes:
        learner: the networks.
        arms: the settings of each column of networks.
        data: what they are trained and selected on.
        recipe: what is fixed when the step is compiled.
        plan: examples and views of every step.
        groups: by arm, the index of its plan in `Groups`; 0 if all arms share one plan.
        measured: names of the terms that are measured.
        evaluate_every: steps between validations, an epoch.
        longest: the most steps that go to the devices at once; their number changes no result.
    """

    learner: Learner
    arms: tuple[Arm, ...]
    data: TrainingData
    recipe: Recipe
    plan: Plan | Groups
    groups: tuple[int, ...]
    measured: tuple[str, ...]
    evaluate_every: int
    longest: int

    def initial(self) -> tuple[TrainState, Averages]:
        """A new state, see `initial_weights.initial`, and empty averages, both on the devices."""
        return self.learner.mapping.place((initial_weights.initial(self.learner), self.empty_averages()), "rows")

    def empty_averages(self) -> Averages:
        """Averages before the first step."""
        return empty_averages(self.learner.rows, self.measured)

    def step(self) -> Step:
        """The compiled step, with the data and the settings of the arms placed on the devices."""
        learner, data = self.learner, self.data
        mapping, students = learner.mapping, len(learner.seeds) * len(self.arms)
        what = f"{learner.folder.name}: step of {students} {type(learner.network).__name__} at {learner.size} px"
        mapped = told(self.compiled(), what, learner.log)
        constants = (
            mapping.place(self.examples(whole=True)),
            mapping.place(data.online.variables) if data.online else None,
            mapping.place(self.hyperparameters(), "arms"),
            mapping.place(np.array(learner.seeds, np.int32), "seeds"),
        )
        return lambda state, averages, share, count: mapped(state, averages, *constants, share, count)

    def compiled(self) -> Any:
        """`planned_steps` on the devices: of state (donated), averages, examples, teacher, arms, seeds, plan, count."""

        def program(*args: Any, axis_name: str | None = None) -> tuple[TrainState, Averages]:
            return planned_steps(*args, recipe=self.recipe, axis_name=axis_name)

        kinds = ("rows", "rows", "whole", "whole", "arms", "seeds", "plan", "whole")
        return self.learner.mapping.map(program, kinds, (0, 1), donate=(0,))

    def lowered(self) -> jax.stages.Lowered:
        """The step before it is compiled. Training finds the compiled one where JAX keeps programs in a cache."""
        return self.compiled().lower(*self.arguments())

    def arguments(self) -> tuple[Any, ...]:
        """What `compiled` takes in training: as shapes alone what lies on the devices, and images of the host."""
        learner, data, layout = self.learner, self.data, self.learner.mapping.layout
        return (
            layout(learner.layout, "rows"),
            layout(jax.eval_shape(self.empty_averages), "rows"),
            layout(self.examples(whole=False)),
            layout(data.online.variables) if data.online else None,
            layout(self.hyperparameters(), "arms"),
            layout(np.array(learner.seeds, np.int32), "seeds"),
            self.share(),
            np.int32(1),
        )

    def share(self) -> PlanStep:
        """This process's share of the first steps, in the shapes that the feed brings; what is read as shapes alone."""
        share = resident(self.plan, self.learner.mapping, self.longest)(0, 1)
        if self.data.on_device:
            return share

        def part(held: Any, axes: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*share.examples.shape, *held.shape[axes:]), held.dtype)

        images = part(self.data.train.images, 1)
        return dataclasses.replace(
            share,
            images=images,
            partner_images=None if share.partners is None else images,
            teacher=jax.tree.map(lambda leaf: part(leaf, 2), self.data.stored),
        )

    def examples(self, *, whole: bool) -> Examples:
        """What lies in the devices' memory; arrays that may lie in files are read, or stand there as shapes alone."""
        data, device = self.data, self.learner.mapping.local[0]
        images: Any = None
        stored = None
        if data.on_device and whole:
            images = held(np.asarray(data.train.images), device)
            stored = jax.tree.map(np.asarray, data.stored)
        elif data.on_device:
            images = held_layout(data.train.images, device)
            stored = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), data.stored)
        return Examples(images, data.train.labels, stored, np.int32(data.data_seed))

    def with_arms_at_once(self, number: int | None) -> "Population":
        """The same with so many arms of a step side by side."""
        return dataclasses.replace(self, recipe=dataclasses.replace(self.recipe, arms_at_once=number))

    def on(self, mapping: DeviceMapping) -> "Population":
        """The same on other devices; what is compiled for its own is kept where these are they."""
        if mapping.shape == self.learner.mapping.shape:
            return self
        return dataclasses.replace(self, learner=dataclasses.replace(self.learner, mapping=mapping))

    def hyperparameters(self) -> Hyperparameters:
        """The arms as arrays, with the group of examples of each where there are several."""
        hyper = hyperparameters(self.arms)
        if isinstance(self.plan, Groups):
            hyper = dataclasses.replace(hyper, group=np.array(self.groups, np.int32))
        return hyper

    def feed(self, first: int) -> Feed:
        """What brings the examples of the steps from `first` on to the devices."""
        if self.data.on_device:
            return resident(self.plan, self.learner.mapping, self.longest)
        data, last = self.data, self.learner.total_steps
        return streamed(self.plan, self.learner.mapping, data.train.images, first, last, data.stored)

    def examples_of(self, step: int, row: int, column: int) -> list[str]:
        """Names of the examples that a network was shown in a step."""
        shown = self.plan(step)[0][row]
        if isinstance(self.plan, Groups):
            shown = shown[self.groups[column]]
        return [self.data.train.names[index] for index in shown]


def population(learner: Learner, arms: tuple[Arm, ...], data: TrainingData) -> Population:
    """The training of a learner's networks with these arms, all of them side by side in a step."""
    section, steps = learner.section, learner.total_steps
    batch_size = section.batch_size
    warmup = round(section.warmup_epochs * len(data.train) / batch_size)
    labels = tuple(data.train.labels.tolist()) if data.balanced else None
    everyone = Plan(learner.seeds, len(data.train), batch_size, data.views, partners=data.mixup > 0, labels=labels)
    labeled = tuple(np.flatnonzero(data.train.labels >= 0).tolist())

    def shown(arm: Arm) -> Plan:
        if not arm.labeled_only:
            return everyone
        # A baseline without a teacher needs none of its views: it is shown a new crop every time.
        return dataclasses.replace(everyone, views=data.views if arm.needs_teacher else 0, rows=labeled)

    plans = tuple(dict.fromkeys(map(shown, arms)))
    taught = data.stored is not None or data.online is not None
    recipe = Recipe(
        network=learner.network,
        size=learner.size,
        optimizer=learner.optimizer,
        schedule=optimizer.schedule(steps, min(warmup, steps - 1)),
        augmentation=data.augmentation,
        ema=section.ema,
        mixup=data.mixup,
        teacher=data.online.network if data.online else None,
        teacher_size=data.online.size if data.online else 0,
    )
    epoch = -(-len(data.train) // batch_size)
    return Population(
        learner,
        arms,
        data,
        recipe,
        Groups(plans) if len(plans) > 1 else plans[0],
        groups=tuple(plans.index(shown(arm)) for arm in arms),
        measured=tuple(term for term in measured_terms(arms) if taught or not TERMS[term].needs_teacher),
        evaluate_every=epoch,
        longest=epoch if data.on_device else 1,  # images from the host come one step at a time
    )
