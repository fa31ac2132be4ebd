"""The arms of a population: the settings of its students' objective, resolved once from the configuration."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from kdjax.objective.outputs import Array
from kdjax.objective.terms import CORE, TERMS, Term

OVERRIDES = ("temperature", "learning_rate", "weight_decay")
"""Settings that an arm may override besides its weights."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One setting of the objective, shared by the students of all seeds.

    Attributes:
        name: the arm's name.
        weights: weight by the name of the term; an absent term has weight 0.
        temperature: T of the softened outputs.
        learning_rate: peak, before the schedule's factor.
        weight_decay: per unit of learning rate.
        family: arms of one family are trials; the results compare the family's best arm on validation.
        labeled_only: whether its students train on the labeled examples only, for as many steps.
        class_weights: by class, the weight of an example in the hard terms; () weighs all classes alike.
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
        """Whether a weighted term compares with the teacher."""
        return any(term.needs_teacher for term in self._weighted_terms)

    @property
    def needs_features(self) -> bool:
        """Whether a weighted term reads pooled features."""
        return any(term.needs_features for term in self._weighted_terms)

    @property
    def projected(self) -> bool:
        """Whether a weighted term reads the student's features through a linear map to the teacher's."""
        return any(term.projected for term in self._weighted_terms)

    def is_measured(self, name: str) -> bool:
        """Whether a term or another training metric of this name is measured for this arm's students.

        The labeled-only baseline without a teacher draws views of its own, for which there are no teacher outputs, so
        terms that compare with the teacher are not.
        """
        compares = name in TERMS and TERMS[name].needs_teacher
        return not (compares and self.labeled_only and not self.needs_teacher)

    @property
    def has_hard(self) -> bool:
        """Whether a weighted term is hard, so that class weights count."""
        return any(term.hard for term in self._weighted_terms)

    @property
    def _weighted_terms(self) -> list[Term]:
        """The terms whose weight is not 0."""
        return [TERMS[term] for term, weight in self.weights.items() if weight]


@struct.dataclass
class Hyperparameters:
    """The values in which arms may differ, as arrays. The first axis of every leaf is the arms."""

    weights: dict[str, Array]
    """Weight of each measured term, by its name in `TERMS`, float: (arms,), or (arms, classes) for hard terms if an arm
    has class weights."""
    temperature: Array
    """(arms,) float."""
    learning_rate: Array
    """(arms,) float: the peak, before the schedule's factor."""
    weight_decay: Array
    """(arms,) float: per unit of learning rate."""
    group: Array = None
    """(arms,) int32: the group of a batch's examples that the arm trains on; None if there is only one group."""


def resolve(
    names: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    temperature: float,
    learning_rate: float,
    weight_decay: float,
) -> tuple[Arm, ...]:
    """The arms with these names.

    Args:
        names: names of the arms, in the order of the population's axis.
        settings: settings by name: a weight for each term, and any of `OVERRIDES`, "family" and "labeled_only".
        temperature, learning_rate, weight_decay: defaults for arms that set none.
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
    """The terms that a run with these arms measures: the paper's, and each other one to which an arm gives a weight."""
    weighted = {term for arm in arms for term, weight in arm.weights.items() if weight}
    return tuple(term for term in TERMS if term in CORE or term in weighted)


def hyperparameters(arms: Sequence[Arm]) -> Hyperparameters:
    """The arms as arrays of JAX's default float type, with one entry for each arm."""
    classes, dtype = max(len(arm.class_weights) for arm in arms), jnp.result_type(float)

    def column(values: Iterable[float]) -> np.ndarray:
        return np.array(list(values), dtype)

    def weights(term: str) -> np.ndarray:
        term_weights = column(arm.weights.get(term, 0.0) for arm in arms)
        if not classes or not TERMS[term].hard:
            return term_weights
        class_weights = np.array([arm.class_weights or (1.0,) * classes for arm in arms], dtype)
        return term_weights[:, None] * class_weights

    return Hyperparameters(
        weights={term: weights(term) for term in measured_terms(arms)},
        temperature=column(arm.temperature for arm in arms),
        learning_rate=column(arm.learning_rate for arm in arms),
        weight_decay=column(arm.weight_decay for arm in arms),
    )
