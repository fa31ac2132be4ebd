"""Writes the model card of an exported student, in Markdown; its head for the Hugging Face hub is in `card_head`."""

import dataclasses
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from kdjax.data import Dataset
from kdjax.deploy import trust
from kdjax.deploy.export.candidates import loss_warning
from kdjax.deploy.export.card_head import INT8, head
from kdjax.networks import MODELS
from kdjax.objective.arms import Arm
from kdjax.results import formats, notes
from kdjax.results.text import markdown

FILES = {
    "student.onnx": "ONNX, float32",
    "student.int8.onnx": "ONNX, 8-bit weights and activations",
    "student.tflite": "LiteRT (TFLite), float32",
    "student_int8.tflite": "LiteRT (TFLite), integers alone: uint8 images, int8 logits",
    "student.stablehlo": "StableHLO for CPU, CUDA and TPU: `jax.export.deserialize(bytearray(data)).call(images)`",
    "student.safetensors": "the trained tensors, BatchNorm not folded, by {names}",
}

INTEGERS = {INT8: "int8_candidates", "student_int8.tflite": "litert_int8_candidates"}
"""8-bit file -> field of parity.json with the figures of its candidates."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """The contents of a card.

    Attributes:
        document: the content of parity.json.
        arm: of the student.
        config: the run's configuration.
        dataset: that the student was trained on.
        teacher, student: from `run.network_facts`.
        teacher_weights: source of the weights from which the teacher's training started; None = from scratch.
        metadata: of the ONNX files, see `onnx_graph.metadata`.
    """

    document: Mapping[str, Any]
    arm: Arm
    config: Mapping[str, Any]
    dataset: Dataset
    teacher: Mapping[str, Any]
    teacher_weights: str | None
    student: Mapping[str, Any]
    metadata: Mapping[str, str]


def text(facts: Facts) -> str:
    """The card as Markdown."""
    names, student = facts.dataset.classes, facts.student
    lines = [
        head(facts.document, facts.arm.needs_teacher),
        f"# {markdown(facts.config['name'])}: {student['model']} for {len(names)} land-use classes",
        "",
        f"Classes: {', '.join(map(markdown, names))}.",
    ]
    sections = {
        "Files": _files,
        "Figures": _figures,
        "Trust": _trust,
        "Data": _data,
        "Recipe": _recipe,
        "Limits": _limits,
    }
    for heading, section in sections.items():
        lines += ["", f"## {heading}", "", *section(facts)]
    return "\n".join(lines) + "\n"


def _files(facts: Facts) -> list[str]:
    model = MODELS[facts.student["model"]]
    names = f"{next(iter(model.names))}'s names"
    names += "".join(f" (`{package}_names.json`: {package}'s)" for package in model.aliases)
    rows = [
        f"| `{name}` | {description.format(names=names)} | {figures['bytes'] / 1e6:.2f} MB "
        f"| {formats.percent(figures['top1'])} | {formats.percent(figures['agreement'])} |"
        for name, description in FILES.items()
        if (figures := facts.document["artifacts"].get(name))
    ]
    metadata = facts.metadata
    return [
        "| file | what | size | test top-1 % | same class as in training, % |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Input: {metadata['input']}. Before that: {metadata['resize']}.",
        f"Output: {metadata['output']}. `labels.json` names them in order.",
        "`python -m kdjax.deploy.predict student.onnx IMAGES` does all of this.",
    ]


def _figures(facts: Facts) -> list[str]:
    student = facts.document["student"]
    rows = [
        f"| {split} | {student[split]['count']} | {formats.percent(student[split]['top1'])} "
        f"| {formats.percent(student[split]['macro_f1'])} "
        f"| {formats.number(student[split]['nll'])} | {formats.percent(student[split]['ece'])} |"
        for split in ("validation", "test")
    ]
    return [
        "| split | images | top-1 % | macro-F1 % | NLL | ECE % |",
        "|---|---|---|---|---|---|",
        *rows,
        *(["", notes.compression(facts.teacher, facts.student)] if facts.arm.needs_teacher else []),
    ]


def _trust(facts: Facts) -> list[str]:
    warning = trust.few_images_warning(len(facts.dataset.validation))
    choices = " and ".join(_chosen_on_validation(facts))
    lines = [
        '`predict` gives calibrated probabilities, prediction sets and the answer "unknown"; `landuse_map` compares '
        "the mean over the windows of a cell with the same limits. All of this was fitted on validation images"
        f"{f', which also chose {choices}' if choices else ''}, so no share is guaranteed; the figures are from the "
        "test images. `student.safetensors` has the temperature and limits of `student.onnx`.",
        *([f"\nWarning: {warning}."] if warning else []),
        "",
        "| file | temperature | NLL before, after | ECE % before, after | sets that contain the class, % (mean size) "
        "| unknown % | top-1 % of the answered | of the unknown |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, figures in facts.document["trust"].items():
        before, after, unknown = figures["before"], figures["after"], figures["unknown"]
        sets = "; ".join(
            f"{100 * float(level):g} asked: {formats.percent(statistics['coverage'])} ({statistics['size']:.2f})"
            for level, statistics in figures["sets"].items()
        )
        lines.append(
            f"| `{name}` | {figures['temperature']:.3f} "
            f"| {formats.number(before['nll'])}, {formats.number(after['nll'])} "
            f"| {formats.percent(before['ece'])}, {formats.percent(after['ece'])} | {sets} "
            f"| {formats.percent(unknown['share'])} | {formats.percent(unknown['answered_top1'])} "
            f"| {formats.percent(unknown['unknown_top1'])} |"
        )
    return lines


def _data(facts: Facts) -> list[str]:
    dataset, config = facts.dataset, facts.config
    splits = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    counts = ", ".join(f"{len(split)} {name} images" for name, split in splits.items())
    return [
        f"{markdown(dataset.name)}: {counts}. Source: {config['dataset']['source']}. Split seed: "
        f"{config['data_seed']}. Fingerprint: `{dataset.fingerprint[:16]}`.",
        "",
        "License of the data: not known to kdjax. Whoever publishes this model must fill it in.",
    ]


def _recipe(facts: Facts) -> list[str]:
    choice, arm, student, section = facts.document["student"], facts.arm, facts.student, facts.config["student"]
    weights = ", ".join(f"{term} {weight:g}" for term, weight in arm.weights.items() if weight)
    temperature = f"; temperature {arm.temperature:g}" if arm.needs_teacher else ""
    teacher = (
        markdown(_teacher(facts.teacher, facts.teacher_weights))
        if arm.needs_teacher
        else "No teacher: this student learned only from labels."
    )
    return [
        f"Arm `{choice['arm']}`, seed {choice['seed']}, step {choice['step']} ({choice['chosen']}). "
        f"Loss weights: {weights}{temperature}. "
        f"{section['epochs']} epochs at {student['image_size']} px, batch {section['batch_size']}, "
        f"width {student['width']:g}, {_start(section['weights'])}.",
        "",
        teacher,
        "",
        "Chosen on validation images: "
        f"{', '.join((*_chosen_on_validation(facts), 'the settings of the 8-bit files'))}.",
    ]


def _chosen_on_validation(facts: Facts) -> list[str]:
    """The parts of the student that were chosen on validation images."""
    step = ["the step"] if facts.config["student"]["select"] == "best" else []
    return step + ["the student"] * ("validation" in facts.document["student"]["chosen"])


def _limits(facts: Facts) -> list[str]:
    size, images = facts.student["image_size"], len(facts.dataset.validation)
    chosen = {
        name: next(candidate for candidate in facts.document[field] if candidate["chosen"])
        for name, field in INTEGERS.items()
        if field in facts.document
    }
    return [
        '- It has no class for anything else. "unknown" catches images that it is not sure of or that are '
        "unlike the validation images, but not everything unusual.",
        "- The figures are from one split of one data set. Other sensors, seasons and regions were not tested.",
        f"- It sees {size} x {size} px. Anything smaller than a pixel there is lost.",
        "- The 8-bit file's figures are from the CPU it was exported on. On x86 CPUs without VNNI "
        + (
            "they should hold: its weights have 7 bits."
            if chosen[INT8]["reduce_range"]
            else "sums of 8-bit products can saturate: measure it there before use."
        ),
        *[
            f"- `{name}`: {warning}."
            for name, figures in chosen.items()
            if (warning := loss_warning(figures, images)) is not None
        ],
        *[
            "- The integer LiteRT file resizes in 8 bits as well. Its figures are from this CPU: other chips may round "
            "differently."
        ]
        * ("student_int8.tflite" in facts.document["artifacts"]),
        "- Latencies in `parity.json` were measured alongside whatever else was running on that machine.",
    ]


def _teacher(facts: Mapping[str, Any], weights: str | None) -> str:
    if "image_size" not in facts:
        return f"Teacher: {facts['model']}, from elsewhere."
    return f"Teacher: {facts['model']} at {facts['image_size']} px, {_start(weights)}."


def _start(source: str | None) -> str:
    return f"started from {PurePosixPath(source).name}" if source else "trained from scratch"
