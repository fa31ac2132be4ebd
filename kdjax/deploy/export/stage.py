"""Stage `export`: writes one finished student to the folder WORKDIR/export.

student.safetensors              the trained tensors by torchvision's names, or by timm's if torchvision has none
timm_names.json                  timm's names of the tensors, if student.safetensors has torchvision's
student.onnx student.int8.onnx   for onnxruntime
student.stablehlo                for JAX, see `stablehlo`
student.tflite student_int8.tflite   for LiteRT, if `run.litert` is set
try.html                         a page that runs student.onnx, see `kdjax.deploy.browser`
labels.json                      class names in the order of the logits
README.md                        the model card, for people and for the Hugging Face hub
parity.json                      accuracy, size and speed of each file, measured on the test images
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
from ml_collections import ConfigDict

from kdjax.data.dataset import Split
from kdjax.data.rows import Images, Rows
from kdjax.deploy import litert
from kdjax.deploy.browser import page
from kdjax.deploy.export import (
    candidates,
    card,
    check_images,
    check_student,
    measure,
    onnx_graph,
    parity,
    quantize,
    stablehlo,
    tensors,
)
from kdjax.deploy.export.fold import fold
from kdjax.deploy.trust import Trust, few_images_warning
from kdjax.deploy.trust import fit as fit_trust
from kdjax.errors import InputError
from kdjax.networks.graph import Graph
from kdjax.results.comparison import NAMES
from kdjax.run import other_run
from kdjax.run.network_facts import network_facts, teacher_facts
from kdjax.run.run import Run
from kdjax.runtime import files, preemption, temporary
from kdjax.runtime.devices import DeviceMapping
from kdjax.training.state import Best

FILES = frozenset(
    ("student.safetensors", "timm_names.json", "student.onnx", "student.int8.onnx", "student.stablehlo")
    + ("student.tflite", "student_int8.tflite", "try.html", "labels.json", "README.md", "parity.json")
    + ("stac_item.json",)  # `kdjax.deploy.catalog` describes one export and no other
    + ("model_card.md",)  # the card of earlier versions
)
"""Files that belong to an export and are replaced by the next one. All others in the folder are the user's."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The student to export: its indices (row, column) on the axes (seed, arm), its names, and why it was chosen."""

    row: int
    column: int
    arm: str
    seed: int
    reason: str


def choose(
    best: Best, usable: np.ndarray, arms: tuple[str, ...], seeds: tuple[int, ...], arm: Any, seed: Any
) -> Choice:
    """Chooses the requested student; by default the best seed of the best arm, judged on validation alone.

    Args:
        best: each student's selected network; only `score` and `nll`, (seed, arm), are read.
        usable: (seed, arm) bool.
        arms, seeds: names along the axes.
        arm, seed: the request; None = not given. By default the arm is the one with the most usable seeds. Of equal
            arms it is the one with the best mean validation score over those seeds, then with the lower mean NLL. By
            default the seed is the arm's best.

    Raises:
        InputError: the arm or seed is unknown, or the student failed in training.
    """
    check_student(arms, seeds, arm, seed)
    rows = [row for row, candidate in enumerate(seeds) if seed in (None, candidate)]
    columns = [
        column
        for column, candidate in enumerate(arms)
        if arm in (None, candidate) and any(usable[row, column] for row in rows)
    ]
    if not columns:
        request = f"{arm or 'any arm'}/{'any seed' if seed is None else seed}"
        raise InputError(f"export: no student to export, {request} failed in training: see distill/metrics.jsonl")
    score, nll = np.asarray(best.score, np.float64), np.asarray(best.nll, np.float64)

    def rank(students: list[tuple[int, int]]) -> tuple[float, float, float]:
        return (
            len(students),
            np.mean([score[index] for index in students]),
            -np.mean([nll[index] for index in students]),
        )

    column = max(columns, key=lambda column: rank([(row, column) for row in rows if usable[row, column]]))
    row = max((row for row in rows if usable[row, column]), key=lambda row: rank([(row, column)]))
    reasons = [] if arm is not None or len(columns) == 1 else ["the arm with the best mean on validation"]
    reasons += [] if seed is not None or len(rows) == 1 else ["its best seed on validation"]
    return Choice(
        row,
        column,
        arms[column],
        seeds[row],
        " and ".join(reasons) or ("the only one" if arm is seed is None else "as asked"),
    )


def export(run: Run, arm: str | None = None, seed: int | None = None) -> None:
    """Writes WORKDIR/export from the checkpoints. An existing folder is replaced once the new one is complete.

    Args:
        run: a run whose students are trained.
        arm, seed: the requested student, see `choose`.

    Raises:
        InputError: no student is finished, none has that name, or it cannot be exported to a requested format. Nothing
            is written in that case.
    """
    student = run.student
    check_images(litert=run.config.run.litert, bands=run.dataset.meaning.bands is not None)
    finished = student.finished()
    best = finished.best
    choice = choose(best, finished.usable, student.arm_names, student.seeds, arm, seed)
    step = int(best.step[choice.row, choice.column])
    score = float(best.score[choice.row, choice.column])
    name = f"student {choice.arm}/{choice.seed} of step {step}"
    run.log(f"export: {name}, validation {NAMES[run.selected_by]} {100 * score:.2f} %: {choice.reason}")
    variables = finished.one(choice.row, choice.column)
    # One student over all devices, as in `evaluate`. All processes must take part in this.
    unmapped = dataclasses.replace(student, mapping=DeviceMapping())
    predict = unmapped.predicting(jax.tree.map(lambda leaf: leaf[None, None], variables))
    logits = {side: predict(getattr(run.dataset, side).images)[0, 0] for side in ("validation", "test")}
    if jax.process_index() == 0:
        with replacing(run.workdir / "export") as directory:
            _write(run, directory, choice, step, variables, logits)
        if warning := few_images_warning(len(run.dataset.validation)):
            run.log(f"export: warning: {warning}")
        run.log(f"export: {run.workdir / 'export'}")


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields an empty folder to fill, which replaces `target` when the block ends.

    Files in `target` that do not belong to an export are moved to the new folder. If the block raises, `target` stays
    as it was.
    """
    with temporary.folder(target.parent, target.name) as scratch:
        new, old = scratch / "new", scratch / "old"
        new.mkdir()
        yield new
        with preemption.shielded():
            if target.exists():
                target.rename(old)
            new.rename(target)
            for path in sorted(old.iterdir()) if old.is_dir() and not old.is_symlink() else ():
                if path.name not in FILES:
                    path.rename(target / path.name)


def _write(
    run: Run, directory: Path, choice: Choice, step: int, variables: dict[str, Any], logits: dict[str, np.ndarray]
) -> None:
    """Writes all files of the export."""
    run = _with_student_bands(run)
    dataset, config = run.dataset, run.config
    network = fold(
        config.student.model,
        variables,
        storage_size=config.dataset.storage_size,
        image_size=run.student.size,
        bands=run.student.network.bands,
        dtype=dataset.meaning.dtype,
    )
    metadata = onnx_graph.metadata(network, dataset.classes, dataset.meaning)
    trusts, candidate_figures = _write_onnx(run, directory, network, metadata)
    trust = trusts["student.onnx"]
    bands = run.student.network.bands
    statistics = {"mean": json.dumps(bands.mean), "std": json.dumps(bands.std)}
    tensors.write(directory, config.student.model, variables, metadata | statistics, trust)
    (directory / "student.stablehlo").write_bytes(stablehlo.serialize(network))
    (directory / "labels.json").write_text(
        json.dumps(dataset.classes, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    title = f"{config.name}: {config.student.model}"
    if dataset.meaning.bands is None:  # browsers decode nothing but red, green and blue
        digest = hashlib.sha256((directory / "student.onnx").read_bytes()).hexdigest()
        (directory / "try.html").write_text(
            page.document(title, dataset.classes, network.storage_size, dataset.meaning, trust, digest),
            encoding="utf-8",
        )
    if config.run.litert:
        litert_trusts, litert_figures = _write_litert(run, directory, network, metadata)
        trusts, candidate_figures = trusts | litert_trusts, candidate_figures | litert_figures
    document = {
        "student": {
            "run": config.name,
            "arm": choice.arm,
            "seed": choice.seed,
            "step": step,
            "chosen": choice.reason,
            **{side: measure.figures(logits[side], getattr(dataset, side).labels) for side in logits},
        },
        "network": network_facts(run.student),
        "data": {"name": dataset.name, "source": config.dataset.source, "bounds": list(dataset.bounds)},
        **measure.measure(run, directory, network, variables, logits["test"], trusts),
        **candidate_figures,
    }
    files.write_json(directory / "parity.json", document)
    (directory / "README.md").write_text(
        card.text(
            card.Facts(
                document,
                run.arms[choice.column],
                json.loads(config.to_json()),
                dataset,
                teacher=teacher_facts(run),
                teacher_weights=_teacher_weights(config),
                student=document["network"],
                metadata=metadata,
            )
        ),
        encoding="utf-8",
    )


def _with_student_bands(run: Run) -> Run:
    """The run with images of only the student's bands, which are the bands that its exported files take."""
    student, meaning = run.student, run.dataset.meaning
    chosen = student.network.bands.chosen
    if meaning.bands is None or not chosen:
        return run

    def selected(split: Split) -> Split:
        if chosen == tuple(range(split.images.shape[-1])):
            return split
        return dataclasses.replace(split, images=Rows.of(split.images).viewed(lambda block: block[..., list(chosen)]))

    data = run.dataset
    meaning = dataclasses.replace(meaning, bands=dataclasses.replace(meaning.bands, names=student.bands))
    network = student.network.clone(bands=dataclasses.replace(student.network.bands, chosen=()))
    return dataclasses.replace(
        run,
        dataset=dataclasses.replace(
            data,
            meaning=meaning,
            train=selected(data.train),
            validation=selected(data.validation),
            test=selected(data.test),
        ),
        student=dataclasses.replace(student, network=network),
    )


def _teacher_weights(config: ConfigDict) -> str | None:
    """The weights from which the teacher's training started, also if another run trained it."""
    if config.teacher.workdir:
        (teacher_run,) = other_run.borrowed_runs(config)
        return other_run.weights(teacher_run)
    return config.teacher.weights


FittedFiles = tuple[dict[str, Trust], dict[str, Any]]
"""Trust by file name, and the figures of the 8-bit candidates by their field in parity.json.

Trust is fitted on the outputs of the file itself: the run may have computed in bfloat16, which no file does.
"""


def _write_onnx(run: Run, directory: Path, network: Graph, metadata: dict[str, str]) -> FittedFiles:
    validation, calibration_images = run.dataset.validation, candidates.calibration(run.dataset.train)
    float_model = onnx_graph.build(network, metadata)
    expected = _outputs(float_model, validation.images)
    trust = fit_trust(expected, validation.labels)
    onnx.helper.set_model_props(float_model, {**metadata, **trust.metadata()})
    onnx.save(float_model, directory / "student.onnx")

    def make(settings: quantize.Settings) -> tuple[onnx.ModelProto, np.ndarray]:
        model = quantize.quantize(network, calibration_images, settings, metadata)
        return model, _outputs(model, validation.images)

    model, logits, figures = candidates.nearest(
        quantize.CANDIDATES,
        make,
        expected,
        validation.labels,
        lambda line: run.log(f"export: int8 {line}"),
    )
    int8_trust = fit_trust(logits, validation.labels)
    onnx.helper.set_model_props(model, {**metadata, **int8_trust.metadata()})
    onnx.save(model, directory / "student.int8.onnx")
    return {"student.onnx": trust, "student.int8.onnx": int8_trust}, {"int8_candidates": figures}


def _outputs(model: onnx.ModelProto, images: Images) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return parity.in_batches(lambda batch: session.run(None, {onnx_graph.INPUT: batch})[0], images)


def _write_litert(run: Run, directory: Path, network: Graph, metadata: dict[str, str]) -> FittedFiles:
    # These modules need the packages of the extra `litert`.
    from kdjax.deploy.export import litert_graph, litert_quantize

    validation, calibration_images = run.dataset.validation, candidates.calibration(run.dataset.train)
    float_model = litert_graph.build(network)
    expected = parity.in_batches(litert.Model(float_model), validation.images)
    trust = fit_trust(expected, validation.labels)

    def make(settings: litert_quantize.Settings) -> tuple[bytes, np.ndarray]:
        model = litert_quantize.quantize(network, calibration_images, settings)
        return model, parity.in_batches(litert.Model(model), validation.images)

    model, logits, figures = candidates.nearest(
        litert_quantize.CANDIDATES,
        make,
        expected,
        validation.labels,
        lambda line: run.log(f"export: LiteRT int8 {line}"),
    )
    int8_trust = fit_trust(logits, validation.labels)
    (directory / "student.tflite").write_bytes(litert.with_metadata(float_model, {**metadata, **trust.metadata()}))
    int8_metadata = {**metadata, "output": litert_quantize.OUTPUT, **int8_trust.metadata()}
    (directory / "student_int8.tflite").write_bytes(litert.with_metadata(model, int8_metadata))
    return {"student.tflite": trust, "student_int8.tflite": int8_trust}, {"litert_int8_candidates": figures}
