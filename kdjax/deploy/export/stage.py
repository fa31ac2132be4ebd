"""Stage `export`: one finished student as the folder WORKDIR/export.

student.safetensors              the trained tensors by torchvision's names; timm_names.json: their names in timm
student.onnx student.int8.onnx   for onnxruntime; student.stablehlo: for JAX, see `stablehlo`
labels.json                      class names in the order of the logits
README.md                        the model card: what it is, for people and for the Hugging Face hub
parity.json                      how each file measures on the test images
"""

import contextlib
import dataclasses
import functools
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from ml_collections import ConfigDict

from kdjax.data import decode
from kdjax.data.sources import folder
from kdjax.deploy import trust as trusting
from kdjax.deploy.export import card, onnx_graph, parity, quantize, stablehlo, tensors
from kdjax.deploy.export.fold import fold
from kdjax.deploy.predict import Classifier
from kdjax.deploy.trust import Trust
from kdjax.errors import InputError
from kdjax.networks import pretrained
from kdjax.networks.graph import Graph
from kdjax.results import metrics
from kdjax.run import other_run
from kdjax.run.facts import network_facts, teacher_facts
from kdjax.run.run import Run
from kdjax.runtime import files
from kdjax.runtime.devices import Mapping
from kdjax.training.state import Best
from kdjax.training.step import eval_step

BATCHES = (1, 32)


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
        best: each student's selected network; only `top1` and `nll`, (seed, arm), are read.
        usable: (seed, arm) bool.
        arms, seeds: names along the axes.
        arm, seed: what was asked for, or None. Without an arm that with the best mean validation top-1 over its usable
            seeds is taken, then the lower mean NLL counts; without a seed the best of the arm, by the same measures.

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
    top1, nll = np.asarray(best.top1, np.float64), np.asarray(best.nll, np.float64)

    def rank(places: list[tuple[int, int]]) -> tuple[float, float]:
        return np.mean([top1[place] for place in places]), -np.mean([nll[place] for place in places])

    column = max(columns, key=lambda column: rank([(row, column) for row in rows if usable[row, column]]))
    row = max((row for row in rows if usable[row, column]), key=lambda row: rank([(row, column)]))
    reasons = [] if arm is not None or len(columns) == 1 else ["the arm with the best mean validation top-1"]
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
        InputError: no finished student, or none of that name. Nothing was written then.
    """
    student = run.student
    finished = student.finished()
    best = finished.best
    chosen = choose(best, finished.usable, tuple(one.name for one in student.arms), student.seeds, arm, seed)
    step = int(best.step[chosen.row, chosen.column])
    top1 = float(best.top1[chosen.row, chosen.column])
    name = f"student {chosen.arm}/{chosen.seed} of step {step}"
    run.log(f"export: {name}, validation top-1 {100 * top1:.2f} %: {chosen.reason}")
    variables = finished.one(chosen.row, chosen.column)
    # As `evaluate` measures it, one student over all devices. All processes take part in this.
    alone = dataclasses.replace(student, mapping=Mapping())
    predict = alone.predicting(jax.tree.map(lambda leaf: leaf[None, None], variables))
    logits = {side: predict(getattr(run.dataset, side).images)[0, 0] for side in ("validation", "test")}
    if jax.process_index() == 0:
        with replacing(run.workdir / "export") as place:
            _write(run, place, chosen, step, variables, logits)
        run.log(f"export: {run.workdir / 'export'}")


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `target` when the block ends.

    A block that raises leaves all as it was.
    """
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as beside:
        new = Path(beside) / "new"
        new.mkdir()
        yield new
        if target.exists():
            target.rename(Path(beside) / "old")
        new.rename(target)


def _write(
    run: Run, place: Path, chosen: Choice, step: int, variables: dict[str, Any], logits: dict[str, np.ndarray]
) -> None:
    """All files of the export."""
    dataset, config = run.dataset, run.config
    trust = trusting.fit(logits["validation"], dataset.validation.labels)
    meaning = dataset.meaning
    if meaning.bands is not None:  # the file takes the student's bands alone
        meaning = dataclasses.replace(meaning, bands=dataclasses.replace(meaning.bands, names=run.student.bands))
    network = fold(
        config.student.model,
        variables,
        storage_size=config.dataset.storage_size,
        image_size=run.student.size,
        bands=run.student.network.bands,
        dtype=meaning.dtype,
    )
    metadata = onnx_graph.metadata(network, dataset.classes, meaning)
    tensors.write(place, config.student.model, variables, metadata, trust)
    onnx.save(onnx_graph.build(network, {**metadata, **trust.metadata()}), place / "student.onnx")
    model, tried, theirs = _best_quantized(run, network, metadata)
    onnx.save(model, place / "student.int8.onnx")
    (place / "student.stablehlo").write_bytes(stablehlo.serialize(network))
    (place / "labels.json").write_text(
        json.dumps(dataset.classes, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    document = {
        "student": {
            "run": config.name,
            "arm": chosen.arm,
            "seed": chosen.seed,
            "step": step,
            "chosen": chosen.reason,
            **{side: _figures(logits[side], getattr(dataset, side).labels) for side in logits},
        },
        "network": network_facts(run.student),
        "data": {"name": dataset.name, "source": config.dataset.source, "bounds": list(dataset.bounds)},
        **_measured(
            run, place, network, variables, logits["test"], {"student.onnx": trust, "student.int8.onnx": theirs}
        ),
        "int8_candidates": tried,
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


def _teacher_weights(config: ConfigDict) -> str | None:
    """What the training of the teacher started from, of its own run where it is another's."""
    if config.teacher.workdir:
        (other,) = other_run.named(config)
        return other_run.weights(other)
    return config.teacher.weights


def _best_quantized(
    run: Run, network: Graph, metadata: dict[str, str]
) -> tuple[onnx.ModelProto, list[dict[str, Any]], Trust]:
    """The candidate with the validation logits nearest to the float graph's (root mean square); all figures; its trust.

    Top-1 would be a coarse judge: candidates differ by one or two validation images, which is chance.
    """
    train, validation = run.dataset.train.images, run.dataset.validation
    # The examples are ordered by class, so an even choice takes of all classes. No augmentation.
    even = np.linspace(0, len(train) - 1, min(len(train), quantize.CALIBRATION_IMAGES)).astype(int)
    held = _taken(run, validation.images)
    expected = _outputs(onnx_graph.build(network, metadata), held)
    models: list[tuple[onnx.ModelProto, np.ndarray]] = []
    tried: list[dict[str, Any]] = []
    for settings in quantize.CANDIDATES:
        model = quantize.quantize(network, _taken(run, train[even]), settings, metadata)
        logits = _outputs(model, held)
        top1 = metrics.classification(logits, validation.labels)["top1"]
        error = float(np.sqrt(np.mean(np.square(logits - expected))))
        tried.append(
            {**dataclasses.asdict(settings), "validation_top1": top1, "logit_rms_error": error, "chosen": False}
        )
        run.log(
            f"export: int8 {_words(settings)}: validation top-1 {100 * top1:.2f} %, logits off by {error:.3f} (rms)"
        )
        models.append((model, logits))
    best = min(range(len(tried)), key=lambda number: tried[number]["logit_rms_error"])
    tried[best]["chosen"] = True
    model, logits = models[best]
    trust = trusting.fit(logits, validation.labels)
    onnx.helper.set_model_props(model, {**metadata, **trust.metadata()})
    return model, tried, trust


def _taken(run: Run, images: np.ndarray) -> np.ndarray:
    """The student's bands of images of the data set."""
    chosen = run.student.network.bands.chosen
    return images[..., list(chosen)] if chosen else images


def _words(settings: quantize.Settings) -> str:
    return ", ".join(
        [
            *["equalized"] * settings.equalized,
            "per channel" if settings.per_channel else "per tensor",
            settings.calibration,
            *["7-bit weights"] * settings.reduce_range,
        ]
    )


def _outputs(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return parity.in_batches(lambda batch: session.run(None, {onnx_graph.INPUT: batch})[0], images)


def _figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    figures = metrics.classification(logits, labels)
    return {name: figures[name] for name in ("count", "top1", "macro_f1", "nll", "ece")}


def _measured(
    run: Run,
    place: Path,
    network: Graph,
    variables: dict[str, Any],
    reference: np.ndarray,
    trusts: dict[str, Trust],
) -> dict[str, Any]:
    """Accuracy on the test images, size and speed of each file."""
    test = run.dataset.test
    float_, int8 = (Classifier(place / name) for name in ("student.onnx", "student.int8.onnx"))
    images, source = _test_images(run, float_)
    loaded = pretrained.load_imagenet(place / "student.safetensors", run.config.student.model, variables, "whole")
    program = jax.export.deserialize(bytearray((place / "student.stablehlo").read_bytes()))
    bands = dataclasses.replace(run.student.network.bands, chosen=())  # the images have no others
    evaluated = jax.jit(
        functools.partial(eval_step, network=run.student.network.clone(bands=bands), size=run.student.size)
    )
    placed = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None, None], loaded.variables)
    outputs = {
        "student.safetensors": lambda batch: np.asarray(evaluated(placed, batch))[0, 0],
        "student.onnx": float_.logits,
        "student.int8.onnx": int8.logits,
        "student.stablehlo": lambda batch: np.asarray(program.call(batch)),
    }
    said = {name: parity.in_batches(function, images) for name, function in outputs.items()}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    times = _latencies(place, network, images)
    return {
        "test_images": {
            "count": len(images),
            "read_from": source,
            "equal_to_the_stored_ones": int((images == _taken(run, test.images)).all((1, 2, 3)).sum()),
        },
        "artefacts": {
            name: {
                **parity.compare(values, reference, test.labels),
                "bytes": (place / name).stat().st_size,
                "latency_ms": times.get(name),
            }
            for name, values in said.items()
        },
        "trust": {name: trusting.measure(trust, said[name], test.labels) for name, trust in trusts.items()},
        "torchvision_shaped_latency_ms": times["torchvision_shaped"],
        "machine": {
            "onnxruntime": onnxruntime.__version__,
            "latency_threads": 1,
            "machine": platform.machine(),
            "cpu_count": os.cpu_count(),
            "load_average_before": load,
        },
    }


def _latencies(place: Path, network: Graph, images: np.ndarray) -> dict[str, dict[str, float]]:
    """Milliseconds by model and batch, on one thread: the idle threads of several sessions take each other's cores."""
    # What others export: the same layers, on images of the right size.
    unresized = dataclasses.replace(network, storage_size=network.image_size, resize=None)
    models = {
        "student.onnx": (place / "student.onnx").read_bytes(),
        "student.int8.onnx": (place / "student.int8.onnx").read_bytes(),
        "torchvision_shaped": onnx_graph.build(unresized, {}).SerializeToString(),
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for name, model in models.items()
    }
    times: dict[str, dict[str, float]] = {name: {} for name in models}
    for batch in BATCHES:
        calls = {}
        for name, session in sessions.items():
            shown = {onnx_graph.INPUT: np.resize(images, (batch, *session.get_inputs()[0].shape[1:]))}
            calls[name] = functools.partial(session.run, None, shown)
        for name, taken in parity.latencies(calls).items():
            times[name][str(batch)] = round(taken, 3)
    return times


def _test_images(run: Run, classifier: Classifier) -> tuple[np.ndarray, str]:
    """The test images as the student takes them, read from the files as `kdjax.deploy.predict` does."""
    test, config = run.dataset.test, run.config.dataset
    if config.source != "folder":
        return _taken(run, test.images), "stored images"
    try:
        return np.stack([classifier.prepare(data) for data in folder.read_named(config.path, test.names)]), "files"
    except decode.DecodeError as error:
        raise InputError(f"dataset.path: a test image of {config.path} cannot be read any more: {error}") from error
