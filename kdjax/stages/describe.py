"""Stage `describe`: logs what the networks are and cost, without training."""

from kdjax.results import notes
from kdjax.run.network_facts import network_facts, teacher_facts
from kdjax.run.run import Run


def describe(run: Run) -> None:
    """Logs the size and the cost of the teacher, of whatever kind, and the student."""
    facts = {"teacher": teacher_facts(run), "student": network_facts(run.student)}
    for name, cost in facts.items():
        pixels = f" at {cost['image_size']} px" if "image_size" in cost else ""
        size = (
            f": {cost['params']:,} parameters, {cost['macs']:,} multiply-adds and {cost['activation_bytes']:,} bytes "
            "of activations per image"
            if cost["params"]
            else ""
        )
        run.log(f"{name}: {cost['model']}{pixels}{size}")
    run.log(notes.compression(facts["teacher"], facts["student"]))
