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
from kdjax.inputs.feed import Feed, resident_feed, streamed_feed
from kdjax.inputs.plan import Groups, Plan
from kdjax.inputs.tiled import device_layout, to_device_layout
from kdjax.objective.arms import Arm, Hyperparameters, hyperparameters, measured_terms
from kdjax.objective.outputs import Outputs
from kdjax.objective.terms import TERMS
from kdjax.runtime.compiling import announce_first_call
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
    """What a population trains on, and what its networks are selected by.

    Attributes:
        train: the training split.
        validation: the split that chooses each network's step.
        data_seed: keys the views.
        augmentation: how views differ from their images.
        selected_by: the figure of `metrics.classification` by which validation ranks steps.
        on_device: whether all training images and teacher outputs lie in the devices' memory; if not, they are read
            from the host.
        views: size of the pool of views of an example; 0 = a fresh view every time.
        stored: stored teacher outputs, or None. Leaves are (views, examples, …) and are indexed [views, examples].
        online: a teacher that runs inside the step, or None.
        mixup: see `Recipe`.
        balanced: whether every class, rather than every example, is drawn equally often.
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
        title = f"{learner.folder.name}: step of {students} {type(learner.network).__name__} at {learner.size} px"
        step = announce_first_call(self.compiled(), title, learner.log)
        constants = (
            mapping.place(self.examples(whole=True)),
            mapping.place(data.online.variables) if data.online else None,
            mapping.place(self.hyperparameters(), "arms"),
            mapping.place(np.array(learner.seeds, np.int32), "seeds"),
        )
        return lambda state, averages, share, count: step(state, averages, *constants, share, count)

    def compiled(self) -> Any:
        """`planned_steps` mapped over the devices; JAX compiles it at the first call.

        Its arguments are the state (donated), averages, examples, teacher variables, hyperparameters, seeds, plan and
        count.
        """

        def program(*args: Any, axis_name: str | None = None) -> tuple[TrainState, Averages]:
            return planned_steps(*args, recipe=self.recipe, axis_name=axis_name)

        kinds = ("rows", "rows", "whole", "whole", "arms", "seeds", "plan", "whole")
        return self.learner.mapping.map(program, kinds, (0, 1), donate=(0,))

    def lowered(self) -> jax.stages.Lowered:
        """The lowered step. Once it is compiled, training finds it in JAX's compilation cache, if that is enabled."""
        return self.compiled().lower(*self.arguments())

    def arguments(self) -> tuple[Any, ...]:
        """The arguments of `compiled` in training. Shapes replace arrays on the devices and images from the host."""
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
        """This process's share of the first steps. Shapes replace images and teacher outputs read from the host."""
        share = resident_feed(self.plan, self.learner.mapping, self.longest)(0, 1)
        if self.data.on_device:
            return share

        def gathered(array: Any, axes: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*share.examples.shape, *array.shape[axes:]), array.dtype)

        images = gathered(self.data.train.images, 1)
        return dataclasses.replace(
            share,
            images=images,
            partner_images=None if share.partners is None else images,
            teacher=jax.tree.map(lambda leaf: gathered(leaf, 2), self.data.stored),
        )

    def examples(self, *, whole: bool) -> Examples:
        """What lies in the devices' memory. Unless `whole`, shapes replace images and teacher outputs, unread."""
        data, device = self.data, self.learner.mapping.local[0]
        images: Any = None
        stored = None
        if data.on_device and whole:
            images = to_device_layout(np.asarray(data.train.images), device)
            stored = jax.tree.map(np.asarray, data.stored)
        elif data.on_device:
            images = device_layout(data.train.images, device)
            stored = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), data.stored)
        return Examples(images, data.train.labels, stored, np.int32(data.data_seed))

    def with_arms_at_once(self, number: int | None) -> "Population":
        """A copy that computes `number` arms of a step side by side, see `Recipe.arms_at_once`."""
        return dataclasses.replace(self, recipe=dataclasses.replace(self.recipe, arms_at_once=number))

    def on(self, mapping: DeviceMapping) -> "Population":
        """A copy on other devices. On the same devices it is the object itself, which keeps its compiled functions."""
        if mapping.shape == self.learner.mapping.shape:
            return self
        return dataclasses.replace(self, learner=dataclasses.replace(self.learner, mapping=mapping))

    def hyperparameters(self) -> Hyperparameters:
        """The arms as arrays, including each arm's group of examples if there are several groups."""
        hyper = hyperparameters(self.arms)
        if isinstance(self.plan, Groups):
            hyper = dataclasses.replace(hyper, group=np.array(self.groups, np.int32))
        return hyper

    def feed(self, first: int) -> Feed:
        """The feed that brings the examples of each step from `first` on to the devices."""
        if self.data.on_device:
            return resident_feed(self.plan, self.learner.mapping, self.longest)
        data, last = self.data, self.learner.total_steps
        return streamed_feed(self.plan, self.learner.mapping, data.train.images, first, last, data.stored)

    def examples_of(self, step: int, row: int, column: int) -> list[str]:
        """Names of the examples in the batch of one network at a step."""
        examples = self.plan(step)[0][row]
        if isinstance(self.plan, Groups):
            examples = examples[self.groups[column]]
        return [self.data.train.names[index] for index in examples]


def population(learner: Learner, arms: tuple[Arm, ...], data: TrainingData) -> Population:
    """The training of a learner's networks with these arms, all of them side by side in a step."""
    section, steps = learner.section, learner.total_steps
    batch_size = section.batch_size
    warmup = round(section.warmup_epochs * len(data.train) / batch_size)
    labels = tuple(data.train.labels.tolist()) if data.balanced else None
    common = Plan(learner.seeds, len(data.train), batch_size, data.views, partners=data.mixup > 0, labels=labels)
    labeled = tuple(np.flatnonzero(data.train.labels >= 0).tolist())

    def plan_of(arm: Arm) -> Plan:
        if not arm.labeled_only:
            return common
        # Without a teacher there is no pool of stored views to draw from: every view is a new crop.
        return dataclasses.replace(common, views=data.views if arm.needs_teacher else 0, rows=labeled)

    plans = tuple(dict.fromkeys(map(plan_of, arms)))
    has_teacher = data.stored is not None or data.online is not None
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
        groups=tuple(plans.index(plan_of(arm)) for arm in arms),
        measured=tuple(term for term in measured_terms(arms) if has_teacher or not TERMS[term].needs_teacher),
        evaluate_every=epoch,
        longest=epoch if data.on_device else 1,  # images from the host come one step at a time
    )
