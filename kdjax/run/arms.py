"""The arms of a run: those of the configuration, the fair baseline, and what an example of a class counts for."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from kdjax.config import base
from kdjax.data.class_weights import BALANCED, class_weights
from kdjax.data.dataset import Dataset
from kdjax.errors import InputError
from kdjax.objective.arms import Arm, resolve
from kdjax.objective.terms import TERMS

TEACHER_ARM = {"teacher": {"ce": 1.0}}
BASELINE = "labeled_alone"
"""The arm that is added where training tiles lack labels: students that are shown the labeled tiles only."""


def teacher_arms(section: ml_collections.ConfigDict, weights: tuple[float, ...] = ()) -> tuple[Arm, ...]:
    """The only arm of a teacher, from its section of the configuration and the class weights."""
    rates = {"learning_rate": section.learning_rate, "weight_decay": section.weight_decay}
    (arm,) = resolve(("teacher",), TEACHER_ARM, temperature=1.0, **rates)
    return (dataclasses.replace(arm, class_weights=weights),)


def student_arms(config: ml_collections.ConfigDict, dataset: Dataset) -> tuple[Arm, ...]:
    """The arms of the students, with the fair baseline where training tiles lack labels.

    A student that learns from labels alone sees a handful of them in a batch of tiles that mostly have none. Its fair
    counterpart is shown the labeled tiles only, for as many steps. It joins where arms with and without a teacher are
    compared and none is it already.

    Raises:
        InputError: class weights do not fit the classes, or a term does nothing for two of them.
    """
    weights = common_weights(config, dataset)

    def weighed(arm: Arm, own: Any) -> Arm:
        found = weights if own is None else _weights(config, dataset, f"arms.{arm.name}.class_weights", own)
        return dataclasses.replace(arm, class_weights=found)

    def resolved(names: tuple[str, ...], settings: Any) -> tuple[Arm, ...]:
        arms = resolve(
            names,
            settings,
            temperature=config.distill.temperature,
            learning_rate=config.student.learning_rate,
            weight_decay=config.student.weight_decay,
        )
        return tuple(weighed(arm, settings[arm.name].get("class_weights")) for arm in arms)

    arms = resolved(tuple(config.distill.arms), config.arms)
    for arm in arms if len(dataset.classes) == 2 else ():
        idle = [name for name, weight in arm.weights.items() if weight and TERMS[name].needs_three_classes]
        if idle:
            raise InputError(
                f"arms.{arm.name}.{idle[0]} has no effect with two classes: set it to 0, or leave the arm out"
            )
    compared = len({arm.needs_teacher for arm in arms}) == 2
    fair = any(arm.labeled_only and not arm.needs_teacher for arm in arms)
    if compared and (dataset.train.labels < 0).any() and not fair:
        arms += resolved((BASELINE,), arm_settings(config.arms))
    return arms


def check_comparison(config: ml_collections.ConfigDict) -> None:
    """Whether what is compared as learning from labels alone does so, and a teacher's targets have a use.

    Raises:
        InputError: names the field that is wrong.
    """
    taught = {name: has_term(config.arms[name], "needs_teacher") for name in config.distill.arms}
    if config.distill.target == "mean" and not any(taught.values()):
        raise InputError("distill.target='mean' does nothing: no arm of distill.arms has a teacher; leave it out")
    first: dict[str, str] = {}
    compared = {BASELINE: False, **taught}  # which may join
    for name in compared:
        family = arm_settings(config.arms)[name].get("family", name)
        other = first.setdefault(family, name)
        if compared[name] != compared[other]:
            raise InputError(
                f"arms.{name}.family is {family!r}, that of {other}, but only one of the two learns from the teacher: "
                "give it another"
            )
    baseline = config.arms.get(BASELINE)
    if baseline is not None and (has_term(baseline, "needs_teacher") or not baseline.get("labeled_only")):
        raise InputError(
            f"arms.{BASELINE} is the baseline of the labeled tiles alone: give it labeled_only=True and no term that "
            "compares with the teacher, or choose another name"
        )


def has_term(arm: Mapping[str, Any], kind: str) -> bool:
    """Whether the settings of an arm give a weight to a term of a kind, named as a property of `Term`."""
    return any(getattr(term, kind) and arm.get(name) for name, term in TERMS.items())


def arm_settings(arms: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of arms by name, with those of the baseline, which also joins where a configuration has none."""
    return {BASELINE: base().arms[BASELINE], **arms}


def common_weights(config: ml_collections.ConfigDict, dataset: Dataset) -> tuple[float, ...]:
    """The class weights of the teacher, and of each arm that sets none for itself; () = none.

    Raises:
        InputError: they do not fit the classes.
    """
    return _weights(config, dataset, "dataset.class_weights", config.dataset.class_weights)


def head_weights(config: ml_collections.ConfigDict, dataset: Dataset) -> tuple[float, ...]:
    """The class weights for a head that is fitted to every labeled image once.

    Where classes are drawn equally often in training, that is a weight here: both have one mean.
    """
    given = common_weights(config, dataset)
    if config.dataset.sampling != "balanced":
        return given
    drawn = class_weights("dataset.sampling", BALANCED, dataset.classes, dataset.train.labels)
    return tuple((np.array(given or 1.0) * np.array(drawn)).tolist())


def _weights(config: ml_collections.ConfigDict, dataset: Dataset, field: str, value: Any) -> tuple[float, ...]:
    even = config.dataset.sampling == "balanced"
    return class_weights(field, value, dataset.classes, dataset.train.labels, even=even)
