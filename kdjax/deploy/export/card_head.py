"""The head of a model card: what the Hugging Face hub reads of it, in YAML.

https://huggingface.co/docs/hub/model-cards. What a run cannot know is not guessed: the license is "unknown", and a data
set is named among the results, but not as one of the hub's. `kdjax.deploy.catalog` fills these in.
"""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from kdjax.results.text import printable

INT8 = "student.int8.onnx"


def head(document: Mapping[str, Any], distilled: bool) -> str:
    """The head, between its two lines of dashes, with the figures of the test images.

    Args:
        document: the content of parity.json.
        distilled: whether the student had a teacher.
    """
    student, data, network = document["student"], document["data"], document["network"]
    weights = network["weights"]
    # A file of the hub has a commit; any other source is a path of the machine that trained.
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
