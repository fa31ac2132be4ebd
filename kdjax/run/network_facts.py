"""What the networks of a run are and cost, as results.json has it."""

from typing import Any

from kdjax.networks import MODELS, cost_by_head
from kdjax.run import other_run
from kdjax.run.run import Run, other_networks
from kdjax.run.teacher_source import Given, given_teachers
from kdjax.teacher.store import read_parts
from kdjax.training.learner import Learner

SUMS = ("params", "macs")
"""What the networks of an ensemble cost together."""


def teacher_facts(run: Run) -> dict[str, Any]:
    """Of the teacher; of one that is no network of kdjax's, its name.

    Of the networks of other runs the parameters and multiply-adds of all together, and the activations of the largest.
    """
    if run.teacher is not None:
        return network_facts(run.teacher)
    given = given_teachers(run.config)
    names = [_stored(one) if one.kind == "logits" else one.words for one in given]
    costs = [_cost(run, one) for one in given]
    known = [one for one in costs if one]
    together: dict[str, Any] = dict.fromkeys(SUMS)
    if len(known) == len(costs):
        together = {key: sum(one[key] for one in known) for key in SUMS}
        together["activation_bytes"] = max(one["activation_bytes"] for one in known)
    return {"model": names[0] if len(names) == 1 else f"mean of {len(names)} teachers", **together}


def network_facts(learner: Learner) -> dict[str, Any]:
    """Of a network of kdjax's."""
    section = learner.section
    heads = cost_by_head(learner.network, MODELS[section.model].heads, learner.size)
    return {
        "model": section.model,
        "width": section.width,
        "image_size": learner.size,
        "weights": learner.weights,
        **learner.cost,
        **({"head": section.head, "heads": heads} if heads else {}),
    }


def _stored(one: Given) -> str:
    """What a folder of logits is called: by the model that made them, where it is known."""
    parts = read_parts(one.place, one.field)
    model, size = parts.get("model"), parts.get("size")
    return f"stored logits of {model}{f' at {size} px' if size else ''}" if model else "stored logits"


def _cost(run: Run, one: Given) -> dict[str, int] | None:
    """What the networks of another run cost that are one teacher; None of what is no network of kdjax's."""
    other = other_run.of(one)
    if other is None:
        return None
    learner = other_networks(run, other)
    asked = [other.arm in ("", arm.name) for arm in learner.arms]
    networks = int(learner.finished().usable[:, asked].sum())  # those that failed are in no mean
    each = learner.cost
    return {**{key: networks * each[key] for key in SUMS}, "activation_bytes": each["activation_bytes"]}
