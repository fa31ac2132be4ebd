"""An evaluated run, and what identifies its student and its teacher across runs."""

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
    """An evaluated run.

    Attributes:
        folder: its directory.
        results: its results.json.
        latency: ms by the name of an arm, for the arm whose student was exported and timed.
    """

    folder: str
    results: Mapping[str, Any]
    latency: Mapping[str, float]

    @property
    def student(self) -> tuple[Any, ...]:
        """The identity of a student across runs: its network, data and training, except for `comparison.settings`.

        Fields that only decide which images are in which split may differ, because the fingerprint covers the outcome.
        Fields that the run's version did not have yet take their defaults, which match what that version did.
        """
        facts, config = self.results["student"], self.results["config"]
        sections = {name: {**default, **config.get(name, {})} for name, default in _defaults().items()}
        student, weights = sections["student"], facts.get("weights")
        if isinstance(weights, dict):  # the same file may have two paths, and a path may now hold another file
            student = {**student, "weights": weights["sha256"]}
        views = sections["distill"]["views"]
        settings = {
            "images": self.results["dataset"].get("fingerprint"),
            "dataset": {name: value for name, value in sections["dataset"].items() if name not in ("path", *DRAWN_BY)},
            "student": student,
            # Applies to all arms, even those without a teacher.
            "views": min(DEFAULT_VIEWS, student["epochs"]) if views is None else views,
            "mixup": sections["distill"]["mixup"],
            "data_seed": config.get("data_seed"),
            "dtype": document.dtype(self.results),
        }
        return (*(facts.get(key) for key in ("model", "width", "image_size", "params")), _text(settings))

    @property
    def teacher(self) -> str:
        """The identity of the teacher across runs; the run must have one.

        Fingerprints (see `stages.evaluate`) identify a teacher completely. They are missing for logits that were made
        elsewhere and in older versions. One file may then be two teachers, with two heads or kinds of input, which
        their figures on test tell apart.
        """
        facts = self.results["teacher"]
        keys = ("fingerprints",) if "fingerprints" in facts else ("sha256", "logits", "test")
        return _text([facts["model"], *map(facts.get, keys)])

    @property
    def student_name(self) -> str:
        """The name of the student: its model, its width unless 1, and the size of its images."""
        model, width, size = self.student[:3]
        return f"{model}{f' × {width:g}' if width not in (None, 1) else ''}{f' {size} px' if size else ''}"

    def alone(self, measure: str) -> str | None:
        """Returns the arm without a teacher that is best on validation; None if every arm uses the teacher."""
        return find_alone(shown_arms(self.results), measure)


@functools.cache
def _defaults() -> dict[str, dict[str, Any]]:
    """Returns the defaults of the configuration sections that a student depends on, in the form of results.json."""
    defaults = json.loads(base().to_json())
    return {name: defaults[name] for name in ("dataset", "student", "distill")}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
