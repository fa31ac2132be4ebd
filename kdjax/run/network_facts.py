"""What the networks of a run are and cost, in the form that results.json holds."""

from typing import Any

from kdjax.networks import MODELS, cost_by_head
from kdjax.run import other_run
from kdjax.run.run import Run, other_networks
from kdjax.run.teacher_source import GivenTeacher, given_teachers
from kdjax.teacher.store import read_parts
from kdjax.training.learner import Learner

SUMS = ("params", "macs")
"""Costs that are added up over the networks of an ensemble."""


def teacher_facts(run: Run) -> dict[str, Any]:
    """Returns the model and the cost of the teacher.

    Networks of other runs count together: the sum of their parameters and multiply-adds, and the activations of the
    largest. The costs are None if any teacher is not a kdjax network.
    """
    if run.teacher is not None:
        return network_facts(run.teacher)
    teachers = given_teachers(run.config)
    names = [_logits_name(teacher) if teacher.kind == "logits" else teacher.title for teacher in teachers]
    costs = [_cost(run, teacher) for teacher in teachers]
    known_costs = [cost for cost in costs if cost]
    totals: dict[str, Any] = dict.fromkeys(SUMS)
    if len(known_costs) == len(costs):
        totals = {key: sum(cost[key] for cost in known_costs) for key in SUMS}
        totals["activation_bytes"] = max(cost["activation_bytes"] for cost in known_costs)
    return {"model": names[0] if len(names) == 1 else f"mean of {len(names)} teachers", **totals}


def network_facts(learner: Learner) -> dict[str, Any]:
    """Returns the model, the settings and the cost of a kdjax network."""
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


def _logits_name(teacher: GivenTeacher) -> str:
    """Returns the name of a folder of logits: by the model that made them, if that is known."""
    parts = read_parts(teacher.place, teacher.field)
    model, size = parts.get("model"), parts.get("size")
    return f"stored logits of {model}{f' at {size} px' if size else ''}" if model else "stored logits"


def _cost(run: Run, teacher: GivenTeacher) -> dict[str, int] | None:
    """Returns the cost of the other run's networks that form one teacher; None if they are not kdjax networks."""
    other = other_run.borrowed_run(teacher)
    if other is None:
        return None
    learner = other_networks(run, other)
    in_mean = [other.arm in ("", arm) for arm in learner.arm_names]
    networks = int(learner.finished().usable[:, in_mean].sum())  # the mean leaves out those that failed
    each = learner.cost
    return {**{key: networks * each[key] for key in SUMS}, "activation_bytes": each["activation_bytes"]}
