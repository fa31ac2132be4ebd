"""Stage `export`: one finished student as the folder WORKDIR/export.

student.safetensors              the trained tensors by torchvision's names, or timm's where it has none
timm_names.json                  timm's names of them, where the first are torchvision's
student.onnx student.int8.onnx   for onnxruntime; student.stablehlo: for JAX, see `stablehlo`
student.tflite student_int8.tflite   for LiteRT, where `run.litert` asks for them
try.html                         a page that runs student.onnx, see `kdjax.deploy.browser`
labels.json                      class names in the order of the logits
README.md                        the model card: what it is, for people and for the Hugging Face hub
parity.json                      how each file measures on the test images
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
from kdjax.deploy import trust as trusting
from kdjax.deploy.browser import page
from kdjax.deploy.export import (
    candidates,
    card,
    check_images,
    measure,
    onnx_graph,
    parity,
    quantize,
    stablehlo,
    tensors,
)
from kdjax.deploy.export.fold import fold
from kdjax.deploy.trust import Trust
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
"""What belongs to an export, and is gone with it. All else in the folder is its owner's."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The student to export: its place on the axes (seed, arm), its names, and why it was taken."""

    row: int
    column: int
    arm: str
    seed: int
    reason: str


def choose(
    best: Best, usable: np.ndarray, arms: tuple[str, ...], seeds: tuple[int, ...], arm: Any, seed: Any
) -> Choice:
    """The student that was asked for; by default the best seed of the best arm, by validation alone.

    Args:
        best: each student's selected network; only `score` and `nll`, (seed, arm), are read.
        usable: (seed, arm) bool.
        arms, seeds: names along the axes.
        arm, seed: what was asked for, or None. Without an arm that with the most usable seeds is taken, among these the
            best mean score on validation over them, then the lower mean NLL; without a seed the best of the arm.

    Raises:
        InputError: an unknown arm or seed, or a student that failed.
    """
    for field, value, known in (("arm", arm, arms), ("seed", seed, seeds)):
        if value is not None and value not in known:
            raise InputError(f"--{field}: the run has no {field} {value!r}; it has {', '.join(map(str, known))}")
    rows = [row for row, one in enumerate(seeds) if seed in (None, one)]
    columns = [
        column for column, one in enumerate(arms) if arm in (None, one) and any(usable[row, column] for row in rows)
    ]
    if not columns:
        asked = f"{arm or 'any arm'}/{'any seed' if seed is None else seed}"
        raise InputError(f"export: no student to export, {asked} failed in training: see distill/metrics.jsonl")
    score, nll = np.asarray(best.score, np.float64), np.asarray(best.nll, np.float64)

    def rank(places: list[tuple[int, int]]) -> tuple[float, float, float]:
        return len(places), np.mean([score[place] for place in places]), -np.mean([nll[place] for place in places])

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
    """Writes WORKDIR/export from the checkpoints; a folder that is there is replaced when the new one is complete.

    Args:
        run: its students must be trained.
        arm, seed: which student, see `choose`.

    Raises:
        InputError: no finished student, none of that name, or a file that it cannot be. Nothing was written then.
    """
    student = run.student
    check_images(litert=run.config.run.litert, bands=run.dataset.meaning.bands is not None)
    finished = student.finished()
    best = finished.best
    chosen = choose(best, finished.usable, tuple(one.name for one in student.arms), student.seeds, arm, seed)
    step = int(best.step[chosen.row, chosen.column])
    score = float(best.score[chosen.row, chosen.column])
    name = f"student {chosen.arm}/{chosen.seed} of step {step}"
    run.log(f"export: {name}, validation {NAMES[student.selected_by]} {100 * score:.2f} %: {chosen.reason}")
    variables = finished.one(chosen.row, chosen.column)
    # As `evaluate` measures it, one student over all devices. All processes take part in this.
    alone = dataclasses.replace(student, mapping=DeviceMapping())
    predict = alone.predicting(jax.tree.map(lambda leaf: leaf[None, None], variables))
    logits = {side: predict(getattr(run.dataset, side).images)[0, 0] for side in ("validation", "test")}
    if jax.process_index() == 0:
        with replacing(run.workdir / "export") as place:
            _write(run, place, chosen, step, variables, logits)
        if rough := trusting.rough(len(run.dataset.validation)):
            run.log(f"export: warning: {rough}")
        run.log(f"export: {run.workdir / 'export'}")


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `target` when the block ends.

    What lies in `target` and is no file of an export goes along. A block that raises leaves all as it was.
    """
    with temporary.folder(target.parent, target.name) as beside:
        new, old = beside / "new", beside / "old"
        new.mkdir()
        yield new
        with preemption.shielded():
            if target.exists():
                target.rename(old)
            new.rename(target)
            for kept in sorted(old.iterdir()) if old.is_dir() and not old.is_symlink() else ():
                if kept.name not in FILES:
                    kept.rename(target / kept.name)


def _write(
    run: Run, place: Path, chosen: Choice, step: int, variables: dict[str, Any], logits: dict[str, np.ndarray]
) -> None:
    """All files of the export."""
    run = _of_its_bands(run)
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
    trusts, tried = _onnx_files(run, place, network, metadata)
    trust = trusts["student.onnx"]
    taken = run.student.network.bands
    statistics = {"mean": json.dumps(taken.mean), "std": json.dumps(taken.std)}
    tensors.write(place, config.student.model, variables, metadata | statistics, trust)
    (place / "student.stablehlo").write_bytes(stablehlo.serialize(network))
    (place / "labels.json").write_text(
        json.dumps(dataset.classes, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    title = f"{config.name}: {config.student.model}"
    if dataset.meaning.bands is None:  # a browser decodes red, green and blue
        digest = hashlib.sha256((place / "student.onnx").read_bytes()).hexdigest()
        (place / "try.html").write_text(
            page.document(title, dataset.classes, network.storage_size, dataset.meaning, trust, digest),
            encoding="utf-8",
        )
    if config.run.litert:
        more, litert_tried = _litert_files(run, place, network, metadata)
        trusts, tried = trusts | more, tried | litert_tried
    document = {
        "student": {
            "run": config.name,
            "arm": chosen.arm,
            "seed": chosen.seed,
            "step": step,
            "chosen": chosen.reason,
            **{side: measure.figures(logits[side], getattr(dataset, side).labels) for side in logits},
        },
        "network": network_facts(run.student),
        "data": {"name": dataset.name, "source": config.dataset.source, "bounds": list(dataset.bounds)},
        **measure.measured(run, place, network, variables, logits["test"], trusts),
        **tried,
    }
    files.write_json(place / "parity.json", document)
    (place / "README.md").write_text(
        card.text(
            card.Facts(
                document,
                run.student.arms[chosen.column],
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


def _of_its_bands(run: Run) -> Run:
    """The run with the student's bands alone, which are what its files take."""
    student, meaning = run.student, run.dataset.meaning
    chosen = student.network.bands.chosen
    if meaning.bands is None or not chosen:
        return run

    def taken(split: Split) -> Split:
        if chosen == tuple(range(split.images.shape[-1])):
            return split
        return dataclasses.replace(split, images=Rows.of(split.images).viewed(lambda block: block[..., list(chosen)]))

    data = run.dataset
    meaning = dataclasses.replace(meaning, bands=dataclasses.replace(meaning.bands, names=student.bands))
    network = student.network.clone(bands=dataclasses.replace(student.network.bands, chosen=()))
    return dataclasses.replace(
        run,
        dataset=dataclasses.replace(
            data, meaning=meaning, train=taken(data.train), validation=taken(data.validation), test=taken(data.test)
        ),
        student=dataclasses.replace(student, network=network),
    )


def _teacher_weights(config: ConfigDict) -> str | None:
    """What the training of the teacher started from, of its own run where it is another's."""
    if config.teacher.workdir:
        (other,) = other_run.named(config)
        return other_run.weights(other)
    return config.teacher.weights


Written = tuple[dict[str, Trust], dict[str, Any]]
"""Trust by the name of the file, and what was tried for the 8-bit file by its field in parity.json.

Trust is fitted on what the file itself says: the run may have computed in bfloat16, which no file does.
"""


def _onnx_files(run: Run, place: Path, network: Graph, metadata: dict[str, str]) -> Written:
    validation, images = run.dataset.validation, candidates.calibration(run.dataset.train)
    floats = onnx_graph.build(network, metadata)
    expected = _outputs(floats, validation.images)
    trust = trusting.fit(expected, validation.labels)
    onnx.helper.set_model_props(floats, {**metadata, **trust.metadata()})
    onnx.save(floats, place / "student.onnx")

    def make(settings: quantize.Settings) -> tuple[onnx.ModelProto, np.ndarray]:
        model = quantize.quantize(network, images, settings, metadata)
        return model, _outputs(model, validation.images)

    model, logits, tried = candidates.nearest(
        quantize.CANDIDATES,
        make,
        expected,
        validation.labels,
        lambda line: run.log(f"export: int8 {line}"),
    )
    theirs = trusting.fit(logits, validation.labels)
    onnx.helper.set_model_props(model, {**metadata, **theirs.metadata()})
    onnx.save(model, place / "student.int8.onnx")
    return {"student.onnx": trust, "student.int8.onnx": theirs}, {"int8_candidates": tried}


def _outputs(model: onnx.ModelProto, images: Images) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return parity.in_batches(lambda batch: session.run(None, {onnx_graph.INPUT: batch})[0], images)


def _litert_files(run: Run, place: Path, network: Graph, metadata: dict[str, str]) -> Written:
    # Its packages belong to an extra of their own.
    from kdjax.deploy.export import litert_graph, litert_quantize

    validation, images = run.dataset.validation, candidates.calibration(run.dataset.train)
    floats = litert_graph.build(network)
    expected = parity.in_batches(litert.Model(floats), validation.images)
    trust = trusting.fit(expected, validation.labels)

    def make(settings: litert_quantize.Settings) -> tuple[bytes, np.ndarray]:
        model = litert_quantize.quantize(network, images, settings)
        return model, parity.in_batches(litert.Model(model), validation.images)

    model, logits, tried = candidates.nearest(
        litert_quantize.CANDIDATES,
        make,
        expected,
        validation.labels,
        lambda line: run.log(f"export: LiteRT int8 {line}"),
    )
    theirs = trusting.fit(logits, validation.labels)
    (place / "student.tflite").write_bytes(litert.with_facts(floats, {**metadata, **trust.metadata()}))
    integers = {**metadata, "output": litert_quantize.OUTPUT, **theirs.metadata()}
    (place / "student_int8.tflite").write_bytes(litert.with_facts(model, integers))
    return {"student.tflite": trust, "student_int8.tflite": theirs}, {"litert_int8_candidates": tried}
