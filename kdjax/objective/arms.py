"""The arms of a population: what its students are asked for, resolved once from the configuration."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from kdjax.objective.outputs import Array
from kdjax.objective.terms import CORE, TERMS, Term

OVERRIDES = ("temperature", "learning_rate", "weight_decay")
"""What an arm may set for itself besides its weights."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One setting of the objective, shared by the students of all seeds.

    Attributes:
        name: its name.
        weights: by the name of the term; what is absent is 0.
        temperature: T of the softened outputs.
        learning_rate: peak, before the schedule's factor.
        weight_decay: per unit of learning rate.
        family: arms that share one are trials, of which the results compare the best on validation.
        labeled_only: whether its students are shown the labeled examples only, for as many steps.
        class_weights: by class, what an example counts for in the hard terms; () = all alike.
    """

    name: str
    weights: Mapping[str, float]
    temperature: float
    learning_rate: float
    weight_decay: float
    family: str
    labeled_only: bool = False
    class_weights: tuple[float, ...] = ()

    @property
    def needs_teacher(self) -> bool:
        """Whether a term with a weight compares with the teacher."""
        return any(term.needs_teacher for term in self.weighed)

    @property
    def needs_features(self) -> bool:
        """Whether one reads pooled features."""
        return any(term.needs_features for term in self.weighed)

    @property
    def projected(self) -> bool:
        """Whether one reads the student's features through a linear map to the teacher's."""
        return any(term.projected for term in self.weighed)

    def is_measured(self, value: str) -> bool:
        """Whether a term, or another value of training, means something for its students.

        A baseline that sees views of its own has no teacher's outputs for them, so what compares with these does not.
        """
        compares = value in TERMS and TERMS[value].needs_teacher
        return not (compares and self.labeled_only and not self.needs_teacher)

    @property
    def has_hard(self) -> bool:
        """Whether one asks for the label, so that class weights count."""
        return any(term.hard for term in self.weighed)

    @property
    def weighed(self) -> list[Term]:
        """The terms that it gives a weight."""
        return [TERMS[term] for term, weight in self.weights.items() if weight]


@struct.dataclass
class Hyperparameters:
    """What arms may differ in. The first axis of every leaf is the arms."""

    weights: dict[str, Array]
    """Weight of each term that is measured, by its name in `TERMS`, float: (arms,), or (arms, classes) of hard terms
    where an arm has class weights."""
    temperature: Array
    """(arms,) float."""
    learning_rate: Array
    """(arms,) float, the peak, before the schedule's factor."""
    weight_decay: Array
    """(arms,) float, per unit of learning rate."""
    group: Array = None
    """(arms,) int32, which of a batch's groups of examples the arm trains on; None where there is one group."""


def resolve(
    names: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    temperature: float,
    learning_rate: float,
    weight_decay: float,
) -> tuple[Arm, ...]:
    """The arms of these names.

    Args:
        names: in the order of the population's axis.
        settings: by name, a weight for each term, and any of `OVERRIDES`, "family" and "labeled_only".
        temperature, learning_rate, weight_decay: of an arm that sets none.
    """
    defaults = {"temperature": temperature, "learning_rate": learning_rate, "weight_decay": weight_decay}
    return tuple(
        Arm(
            name=name,
            weights={term: float(settings[name][term]) for term in TERMS if term in settings[name]},
            family=settings[name].get("family", name),
            labeled_only=settings[name].get("labeled_only", False),
            **{field: settings[name].get(field, default) for field, default in defaults.items()},
        )
        for name in names
    )


def measured_terms(arms: Iterable[Arm]) -> tuple[str, ...]:
    """The terms that a run with these arms measures: the paper's, and each other one that an arm gives a weight."""
    weighed = {term for arm in arms for term, weight in arm.weights.items() if weight}
    return tuple(term for term in TERMS if term in CORE or term in weighed)


def hyperparameters(arms: Sequence[Arm]) -> Hyperparameters:
    """The arms as arrays of JAX's default float type, one entry an arm."""
    classes, dtype = max(len(arm.class_weights) for arm in arms), jnp.result_type(float)

    def column(values: Iterable[float]) -> np.ndarray:
        return np.array(list(values), dtype)

    def weights(term: str) -> np.ndarray:
        of_arms = column(arm.weights.get(term, 0.0) for arm in arms)
        if not classes or not TERMS[term].hard:
            return of_arms
        by_class = np.array([arm.class_weights or (1.0,) * classes for arm in arms], dtype)
        return of_arms[:, None] * by_class

    return Hyperparameters(
        weights={term: weights(term) for term in measured_terms(arms)},
        temperature=column(arm.temperature for arm in arms),
        learning_rate=column(arm.learning_rate for arm in arms),
        weight_decay=column(arm.weight_decay for arm in arms),
    )
