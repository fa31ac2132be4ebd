"""A run that was evaluated, and what makes its student and its teacher the same as those of another."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from kdjax.config import DEFAULT_VIEWS, base
from kdjax.results import document
from kdjax.results.comparison import find_alone, shown_arms
from kdjax.results.two_splits import DRAWN_BY


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A run that was evaluated.

    Attributes:
        run: its directory.
        results: its results.json.
        latency: by the name of an arm, ms of its student where that was exported and measured.
    """

    run: str
    results: Mapping[str, Any]
    latency: Mapping[str, float]

    @property
    def student(self) -> tuple[Any, ...]:
        """What makes a student the same in two runs: the network, its data, and how it was trained, but for `own`.

        The fingerprint says which images are on which side, so fields that only decide that may differ. Fields that the
        run's version did not have yet count as their defaults, which are what it did.
        """
        facts, config = self.results["student"], self.results["config"]
        given = {name: {**default, **config.get(name, {})} for name, default in _defaults().items()}
        student, weights = given["student"], facts.get("weights")
        if isinstance(weights, dict):  # one file may lie in two places, and another in its place by now
            student = {**student, "weights": weights["sha256"]}
        views = given["distill"]["views"]
        settings = {
            "images": self.results["dataset"].get("fingerprint"),
            "dataset": {name: value for name, value in given["dataset"].items() if name not in ("path", *DRAWN_BY)},
            "student": student,
            # Of all arms, those without a teacher too.
            "views": min(DEFAULT_VIEWS, student["epochs"]) if views is None else views,
            "mixup": given["distill"]["mixup"],
            "data_seed": config.get("data_seed"),
            "dtype": document.dtype(self.results),
        }
        return (*(facts.get(key) for key in ("model", "width", "image_size", "params")), _text(settings))

    def own(self, arm: str) -> dict[str, Any]:
        """What an arm may set for itself of how its students are trained: two arms of one student may differ in it."""
        config = self.results["config"]
        settings = {**config.get("dataset", {}), **config.get("student", {}), **config.get("arms", {}).get(arm, {})}
        return {name: settings.get(name) for name in ("learning_rate", "weight_decay", "class_weights")}

    @property
    def teacher(self) -> str:
        """What makes a teacher the same in two runs: its fingerprints, which say all that it is, see `stages.evaluate`.

        Only of a run that has one.

        Logits that were made elsewhere may not say whose they are, and older versions did not write fingerprints. One
        file may then have two heads or inputs, and be two teachers: the figures on test tell them apart.
        """
        facts = self.results["teacher"]
        known = ("fingerprints",) if "fingerprints" in facts else ("sha256", "logits", "test")
        return _text([facts["model"], *map(facts.get, known)])

    @property
    def student_name(self) -> str:
        """Model, its width where it is not the whole one, and size of its images."""
        model, width, size = self.student[:3]
        return f"{model}{f' × {width:g}' if width not in (None, 1) else ''}{f' {size} px' if size else ''}"

    def alone(self, measure: str) -> str | None:
        """The arm that uses no teacher and is best on validation."""
        return find_alone(shown_arms(self.results), measure)


@functools.cache
def _defaults() -> dict[str, dict[str, Any]]:
    """The sections of the configuration that a student depends on, as results.json has them."""
    found = json.loads(base().to_json())
    return {name: found[name] for name in ("dataset", "student", "distill")}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
