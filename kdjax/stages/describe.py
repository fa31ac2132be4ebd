"""The stage that describes: data and networks, without training."""

from kdjax.results import notes
from kdjax.run.network_facts import network_facts, teacher_facts
from kdjax.run.run import Run


def describe(run: Run) -> None:
    """Stage `describe`: what the networks are and cost, whatever kind the teacher is."""
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
