"""What each file of an export comes to on the test images: accuracy, trust, size and latency."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnxruntime

from kdjax.data import decode
from kdjax.data.sources import folder
from kdjax.deploy import litert
from kdjax.deploy import trust as trusting
from kdjax.deploy.classifier import Classifier
from kdjax.deploy.export import onnx_graph, parity
from kdjax.deploy.trust import Trust
from kdjax.errors import InputError
from kdjax.networks import pretrained
from kdjax.networks.graph import Graph
from kdjax.results import metrics
from kdjax.run.run import Run
from kdjax.training.step import eval_step

BATCH = 64
"""Test images that are looked at together."""

BATCHES = (1, 32)
"""Those of which the time is taken."""


def figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """What is told of logits (n, classes) and labels (n,)."""
    found = metrics.classification(logits, labels)
    return {name: found[name] for name in ("count", "top1", "macro_f1", "nll", "ece")}


def measured(
    run: Run,
    place: Path,
    network: Graph,
    variables: dict[str, Any],
    reference: np.ndarray,
    trusts: dict[str, Trust],
) -> dict[str, Any]:
    """Accuracy on the test images, size and speed of each file.

    Args:
        run: for its images, and how its student is evaluated.
        place: folder of the files.
        network, variables: the student, folded and as it was trained.
        reference: its logits of the test images, (n, classes).
        trusts: by the name of each file that tells its classes itself.

    Returns:
        The fields of parity.json from `test_images` to `machine`.
    """
    test = run.dataset.test
    classifiers = {name: Classifier(place / name) for name in trusts}
    loaded = pretrained.load_imagenet(place / "student.safetensors", run.config.student.model, variables, "whole")
    program = jax.export.deserialize(bytearray((place / "student.stablehlo").read_bytes()))
    evaluated = jax.jit(functools.partial(eval_step, network=run.student.network, size=run.student.size))
    placed = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None, None], loaded.variables)
    outputs = {
        "student.safetensors": lambda batch: np.asarray(evaluated(placed, batch))[0, 0],
        "student.stablehlo": lambda batch: np.asarray(program.call(batch)),
        **{name: classifier.logits for name, classifier in classifiers.items()},
    }
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
    equal, first = 0, None
    for start, images in _test_batches(run, classifiers["student.onnx"]):
        first = images if first is None else first
        equal += int((images == test.images[start : start + len(images)]).all((1, 2, 3)).sum())
        for name, function in outputs.items():
            pieces[name].append(function(images))
    said = {name: np.concatenate(logits) for name, logits in pieces.items()}
    litert_files = [name for name in trusts if litert.recognized(place / name)]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    assert first is not None
    times = _latencies(place, network, first, litert_files)
    return {
        "test_images": {
            "count": len(test),
            "read_from": "files" if _from_files(run) else "stored images",
            "equal_to_the_stored_ones": equal,
        },
        "artifacts": {
            name: {
                **parity.compare(values, reference, test.labels),
                "bytes": (place / name).stat().st_size,
                "sha256": hashlib.sha256((place / name).read_bytes()).hexdigest(),
                "latency_ms": times.get(name),
            }
            for name, values in said.items()
        },
        "trust": {
            name: trusting.measure(trust, said[name], test.labels)
            for name, trust in {"student.safetensors": trusts["student.onnx"], **trusts}.items()
        },
        "torchvision_shaped_latency_ms": times["torchvision_shaped"],
        "machine": {
            "onnxruntime": onnxruntime.__version__,
            **({"ai_edge_litert": importlib.metadata.version("ai-edge-litert")} if litert_files else {}),
            "latency_threads": 1,
            "machine": platform.machine(),
            "cpu_count": os.cpu_count(),
            "load_average_before": load,
        },
    }


def _latencies(
    place: Path, network: Graph, images: np.ndarray, litert_files: Sequence[str]
) -> dict[str, dict[str, float]]:
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
    interpreters = {name: litert.Model(place / name, threads=1) for name in litert_files}
    times: dict[str, dict[str, float]] = {name: {} for name in (*sessions, *interpreters)}
    for batch in BATCHES:
        calls: dict[str, Callable[[], Any]] = {}
        for name, session in sessions.items():
            shown = {onnx_graph.INPUT: np.resize(images, (batch, *session.get_inputs()[0].shape[1:]))}
            calls[name] = functools.partial(session.run, None, shown)
        for name, interpreter in interpreters.items():
            calls[name] = functools.partial(interpreter, np.resize(images, (batch, *interpreter.given)))
        for name, taken in parity.latencies(calls).items():
            times[name][str(batch)] = round(taken, 3)
    return times


def _from_files(run: Run) -> bool:
    return run.config.dataset.source == "folder"


def _test_batches(run: Run, classifier: Classifier) -> Iterator[tuple[int, np.ndarray]]:
    """The test images (n, storage_size, storage_size, bands), a batch at a time, each with the number of its first.

    They are read from the files as `kdjax.deploy.predict` does, where there are files.
    """
    test, config = run.dataset.test, run.config.dataset
    starts = range(0, len(test), BATCH)
    if not _from_files(run):
        yield from ((start, test.images[start : start + BATCH]) for start in starts)
        return
    read = folder.read_named(config.path, test.names)
    try:
        for start in starts:
            yield start, np.stack([classifier.prepare(data, outside=True) for data in itertools.islice(read, BATCH)])
    except decode.DecodeError as error:
        raise InputError(
            f"dataset.path: a test image of {config.path} can no longer be read ({error}): put it back"
        ) from error
