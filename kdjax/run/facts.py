"""What the networks of a run are and cost, as results.json has it."""

from typing import Any

from kdjax.networks import cost, cost_by_head
from kdjax.run.given import given_teachers
from kdjax.run.run import Run
from kdjax.training.learner import Learner


def teacher_facts(run: Run) -> dict[str, Any]:
    """Of the teacher; of one that is no network of kdjax's, its name."""
    if run.teacher is not None:
        return network_facts(run.teacher)
    names = [one.words for one in given_teachers(run.config)]
    if run.config.distill.logits:
        names = ["stored logits"]
    return {"model": names[0] if len(names) == 1 else f"mean of {len(names)} teachers", "params": None, "macs": None}


def network_facts(learner: Learner) -> dict[str, Any]:
    """Of a network of kdjax's."""
    section, heads = learner.section, cost_by_head(learner.network, learner.size)
    return {
        "model": section.model,
        "width": section.width,
        "image_size": learner.size,
        "weights": learner.weights,
        **cost(learner.network, learner.size),
        **({"head": section.head, "heads": heads} if heads else {}),
    }
