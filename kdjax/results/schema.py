"""The fields that every reader of a results.json relies on, whichever version of kdjax wrote it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from kdjax.results import comparison

_Kind = Callable[[Any], bool]


def flaw(document: Any) -> str | None:
    """Finds the first field that is missing, or whose value `document.build` would not write.

    Args:
        document: the content of the file.

    Returns:
        The field's path, such as "arms.kl.seeds"; "" if this is not the document of a run; None if all is well.
    """
    if not isinstance(document, dict):
        return ""
    sections = dict(_SECTIONS)
    if document.get("teacher", {}) is None:  # a run of students alone
        del sections["teacher"]
    if not all(isinstance(document.get(name), dict) for name in (*sections, "arms")):
        return ""
    for name, fields in sections.items():
        if flaw_path := _field_flaw(document[name], fields, name):
            return flaw_path
    arms, measure = document["arms"], comparison.judged_by(document["dataset"])
    if "teacher" in sections and measure not in document["teacher"]["test"]:
        return f"teacher.test.{measure}"
    if not arms:
        return "arms"
    for name, arm in arms.items():
        if flaw_path := _field_flaw(arm, _ARM, f"arms.{name}") or _seed_flaw(arm, f"arms.{name}"):
            return flaw_path
        missing = [field for field in (measure, f"val_{measure}") if field not in ("top1", *arm)]
        if missing:
            return f"arms.{name}.{missing[0]}"
    selected = document.get("selected", {})
    if not isinstance(selected, dict) or not all(
        isinstance(trial, str) and trial in arms for trial in selected.values()
    ):
        return "selected"
    return None if isinstance(document.get("environment", {}), dict) else "environment"


def _field_flaw(value: Any, fields: Mapping[str, Any], path: str) -> str | None:
    """Returns the path of the first field that does not match `fields`; None if all match.

    The values of `fields` are predicates or nested fields. Fields whose name ends in "?" may be missing.
    """
    if not isinstance(value, dict):
        return path
    for name, kind in fields.items():
        field = name.removesuffix("?")
        if field not in value:
            if field == name:
                return f"{path}.{field}"
        elif callable(kind):
            if not kind(value[field]):
                return f"{path}.{field}"
        elif flaw_path := _field_flaw(value[field], kind, f"{path}.{field}"):
            return flaw_path
    return None


def _seed_flaw(arm: Mapping[str, Any], path: str) -> str | None:
    """Returns the path of the first field of an arm that does not have one value per seed; None if all do."""
    seeds = arm["seeds"]
    if len(set(seeds)) != len(seeds):
        return f"{path}.seeds"
    values_by_seed = {
        name: arm[name] for name in ("test_top1", "val_top1", "val_macro_recall", "val_nll") if name in arm
    }
    values_by_seed |= {"macro_recall.test": arm["macro_recall"]["test"]} if "macro_recall" in arm else {}
    return next((f"{path}.{name}" for name, values in values_by_seed.items() if len(values) != len(seeds)), None)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _or_none(kind: _Kind) -> _Kind:
    return lambda value: value is None or kind(value)


def _list_of(kind: _Kind) -> _Kind:
    return lambda value: isinstance(value, list) and all(map(kind, value))


def _dict_of(kind: _Kind) -> _Kind:
    return lambda value: isinstance(value, dict) and all(map(kind, value.values()))


def _interval(value: Any) -> bool:
    return value is None or (_list_of(_number)(value) and len(value) == 2)


_SPREAD = {"mean": _or_none(_share), "std?": _or_none(_number), "ci95?": _interval}
_COST = {"model": _text, "params": _or_none(_count), "macs": _or_none(_count), "width?": _or_none(_number)}
_SECTIONS: dict[str, dict[str, Any]] = {
    "dataset": {
        "name": _text,
        "classes": _list_of(_text),
        "splits": {"train": _count, "val": _count, "test": _count},
        "class_counts?": _dict_of(_list_of(_count)),
        "labels?": {"labeled": _count, "total": _count},
    },
    "teacher": {**_COST, "test": {"top1": _or_none(_share), "macro_recall?": _or_none(_share)}},
    "student": {**_COST, "image_size?": _or_none(_count)},
    "config": {
        **{f"{name}?": _dict_of(lambda value: True) for name in ("dataset", "teacher", "student", "distill", "run")},
        "arms?": _dict_of(_dict_of(lambda value: True)),
    },
}
_ARM: dict[str, Any] = {
    **_SPREAD,
    "weights": _dict_of(_number),
    "learning_rate?": _number,
    "weight_decay?": _number,
    "labeled_only?": lambda value: isinstance(value, bool),
    "class_weights?": _list_of(_number),
    "family?": _text,
    "seeds": _list_of(_count),
    "test_top1": _list_of(_or_none(_share)),
    "val_top1": _list_of(_or_none(_share)),
    "macro_recall?": {**_SPREAD, "test": _list_of(_or_none(_share))},
    "val_macro_recall?": _list_of(_or_none(_share)),
    "val_nll?": _list_of(_or_none(_number)),
}
