"""The arms of a run: those of the configuration, the fair baseline, and their class weights."""

import collections
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
"""The arm that is added if training tiles lack labels: its students see the labeled tiles only."""


def teacher_arms(section: ml_collections.ConfigDict, weights: tuple[float, ...] = ()) -> tuple[Arm, ...]:
    """Returns the only arm of a teacher, from its section of the configuration and the class weights."""
    rates = {"learning_rate": section.learning_rate, "weight_decay": section.weight_decay}
    (arm,) = resolve(("teacher",), TEACHER_ARM, temperature=1.0, **rates)
    return (dataclasses.replace(arm, class_weights=weights),)


def student_arms(config: ml_collections.ConfigDict, dataset: Dataset) -> tuple[Arm, ...]:
    """Returns the arms of the students, with the fair baseline if training tiles lack labels.

    If most tiles have no label, a student that learns from labels alone sees only a few labels in a batch. The fair
    baseline sees the labeled tiles only, for as many steps; see `joining_arms`.

    Raises:
        InputError: class weights do not fit the classes, or a term has no effect with two classes.
    """
    weights = common_weights(config, dataset)

    def with_class_weights(arm: Arm, own: Any) -> Arm:
        values = weights if own is None else _weights(config, dataset, f"arms.{arm.name}.class_weights", own)
        return dataclasses.replace(arm, class_weights=values)

    def resolved(names: tuple[str, ...], settings_by_arm: Any) -> tuple[Arm, ...]:
        arms = resolve(
            names,
            settings_by_arm,
            temperature=config.distill.temperature,
            learning_rate=config.student.learning_rate,
            weight_decay=config.student.weight_decay,
        )
        return tuple(with_class_weights(arm, settings_by_arm[arm.name].get("class_weights")) for arm in arms)

    arms = resolved(tuple(config.distill.arms), config.arms)
    for arm in arms if len(dataset.classes) == 2 else ():
        idle = [name for name, weight in arm.weights.items() if weight and TERMS[name].needs_three_classes]
        if idle:
            raise InputError(
                f"arms.{arm.name}.{idle[0]} has no effect with two classes: set it to 0, or leave the arm out"
            )
    if (dataset.train.labels < 0).any():
        joining = joining_arms(config)
        arms += resolved(tuple(joining), joining)
    return arms


def joining_arms(config: ml_collections.ConfigDict) -> dict[str, Mapping[str, Any]]:
    """Returns the settings, by name, of the arms of the baseline that joins if training tiles lack labels; {} if none.

    It joins if arms with and without a teacher are compared and none of those without one is such a baseline already.
    Where the students alone are a family of trials, it has the same trials: the best of many would beat a single one by
    chance. Settings of its own in the configuration come first.
    """
    selected = {name: config.arms[name] for name in config.distill.arms}
    alone = {name: arm for name, arm in selected.items() if not has_term(arm, "needs_teacher")}
    if len(alone) in (0, len(selected)) or any(arm.get("labeled_only") for arm in alone.values()):
        return {}
    own = arm_settings(config.arms)[BASELINE]
    families = collections.Counter(arm.get("family", name) for name, arm in alone.items())
    ((family, trials),) = families.most_common(1)
    if trials == 1 or dict(own) != dict(base().arms[BASELINE]):
        return {BASELINE: own}
    return {
        f"{BASELINE}_{name.removeprefix(f'{family}_')}": {**arm, "labeled_only": True, "family": BASELINE}
        for name, arm in alone.items()
        if arm.get("family", name) == family
    }


def check_comparison(config: ml_collections.ConfigDict) -> None:
    """Checks that all arms of a family, and the baseline, agree on using the teacher, and that its targets are used.

    Raises:
        InputError: they do not; the message names the field.
    """
    uses_teacher = {name: has_term(config.arms[name], "needs_teacher") for name in config.distill.arms}
    if config.distill.target == "mean" and not any(uses_teacher.values()):
        raise InputError("distill.target='mean' does nothing: no arm of distill.arms has a teacher; leave it out")
    first_of_family: dict[str, str] = {}
    learns_from_teacher = {BASELINE: False, **uses_teacher}  # the baseline may be added later
    for name in learns_from_teacher:
        family = arm_settings(config.arms)[name].get("family", name)
        other = first_of_family.setdefault(family, name)
        if learns_from_teacher[name] != learns_from_teacher[other]:
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


def check_overrides(config: ml_collections.ConfigDict) -> None:
    """Checks that no field is set for all arms that every arm which would use it sets for itself.

    Raises:
        InputError: one is; the message names the field.
    """
    arms = {**{name: config.arms[name] for name in config.distill.arms}, **joining_arms(config)}
    softened = {name: arm for name, arm in arms.items() if has_term(arm, "softened")}
    for section, field, users in (
        ("student", "learning_rate", arms),
        ("student", "weight_decay", arms),
        ("distill", "temperature", softened),
    ):
        value, default = config[section][field], base()[section][field]
        if users and value != default and all(field in arm for arm in users.values()):
            raise InputError(
                f"{section}.{field} is {value:g}, but does nothing: every arm that would use it sets its own; leave it "
                f"at {default:g}, or change arms.{next(iter(users))}.{field}"
            )


def has_term(arm: Mapping[str, Any], kind: str) -> bool:
    """Whether an arm's settings give weight to a term whose property `kind` (of `Term`) is true."""
    return any(getattr(term, kind) and arm.get(name) for name, term in TERMS.items())


def arm_settings(arms: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of the arms by name; the baseline has its default ones if the configuration omits it."""
    return {BASELINE: base().arms[BASELINE], **arms}


def common_weights(config: ml_collections.ConfigDict, dataset: Dataset) -> tuple[float, ...]:
    """Returns the class weights of the teacher, and of each arm that does not set its own; () = none.

    Raises:
        InputError: they do not fit the classes.
    """
    return _weights(config, dataset, "dataset.class_weights", config.dataset.class_weights)


def head_weights(config: ml_collections.ConfigDict, dataset: Dataset) -> tuple[float, ...]:
    """Returns the class weights for a head that is fitted to every labeled image once.

    Balanced sampling becomes a weight here, since the head sees every image equally often; both give the same expected
    loss.
    """
    weights = common_weights(config, dataset)
    if config.dataset.sampling != "balanced":
        return weights
    sampling_weights = class_weights("dataset.sampling", BALANCED, dataset.classes, dataset.train.labels)
    return tuple((np.array(weights or 1.0) * np.array(sampling_weights)).tolist())


def _weights(config: ml_collections.ConfigDict, dataset: Dataset, field: str, value: Any) -> tuple[float, ...]:
    even = config.dataset.sampling == "balanced"
    return class_weights(field, value, dataset.classes, dataset.train.labels, even=even)
