"""The head of a model card: the YAML that the Hugging Face hub reads.

See https://huggingface.co/docs/hub/model-cards. Nothing is guessed that a run cannot know: the license is "unknown",
and the data set appears in the results but not as a data set of the hub. `kdjax.deploy.catalog` fills these in.
"""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from kdjax.results.text import printable

INT8 = "student.int8.onnx"


def head(document: Mapping[str, Any], distilled: bool) -> str:
    """The head with its two lines of dashes and the figures of the test images.

    Args:
        document: the content of parity.json.
        distilled: whether the student had a teacher.
    """
    student, data, network = document["student"], document["data"], document["network"]
    weights = network["weights"]
    # Weights from the hub have a commit; any other source is a local path on the machine that trained.
    base = weights["source"].split("@")[0].split(":")[0] if weights and weights["commit"] else None
    figures = [
        ("accuracy", student["test"]["top1"], "top-1"),
        ("f1", student["test"]["macro_f1"], "macro-F1"),
        ("accuracy", document["artifacts"][INT8]["top1"], f"top-1 of {INT8}"),
    ]
    tags = ["land-use", "earth-observation", "remote-sensing", "onnx", network["model"]]
    card = ModelCardData(
        license="unknown",
        library_name="kdjax",
        pipeline_tag="image-classification",
        tags=[*tags, *["knowledge-distillation"] * distilled],
        base_model=base,
        metrics=["accuracy", "f1"],
        model_name=printable(student["run"]),
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_name=printable(data["name"]),
                dataset_type=data["source"],
                dataset_split="test",
                metric_type=kind,
                metric_value=value,
                metric_name=name,
            )
            for kind, value, name in figures
        ],
    )
    return f"---\n{card.to_yaml()}\n---\n"
