"""Measures each file of an export: accuracy and trust on the test images, size and latency."""

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
from kdjax.deploy.classifier import Classifier
from kdjax.deploy.export import onnx_graph, parity
from kdjax.deploy.trust import Trust
from kdjax.deploy.trust import measure as measure_trust
from kdjax.errors import InputError
from kdjax.networks import pretrained
from kdjax.networks.graph import Graph
from kdjax.results import metrics
from kdjax.run.run import Run
from kdjax.training.step import eval_step

BATCH = 64
"""Number of test images that go through the networks together."""

BATCHES = (1, 32)
"""Batch sizes whose latency is measured."""


def figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The figures for parity.json from logits (n, classes) and labels (n,)."""
    statistics = metrics.classification(logits, labels)
    return {name: statistics[name] for name in ("count", "top1", "macro_f1", "nll", "ece")}


def measure(
    run: Run,
    directory: Path,
    network: Graph,
    variables: dict[str, Any],
    reference: np.ndarray,
    trusts: dict[str, Trust],
) -> dict[str, Any]:
    """Measures accuracy and trust on the test images, size and latency of each file.

    Args:
        run: gives the images and the way to evaluate its student.
        directory: folder of the files.
        network, variables: the student, folded and as trained.
        reference: logits of the test images from training's evaluation, (n, classes).
        trusts: by the name of each file that a `Classifier` can open.

    Returns:
        The fields of parity.json from `test_images` to `machine`.
    """
    test = run.dataset.test
    classifiers = {name: Classifier(directory / name) for name in trusts}
    loaded = pretrained.load_imagenet(directory / "student.safetensors", run.config.student.model, variables, "whole")
    program = jax.export.deserialize(bytearray((directory / "student.stablehlo").read_bytes()))
    evaluate = jax.jit(functools.partial(eval_step, network=run.student.network, size=run.student.size))
    variables_on_device = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None, None], loaded.variables)
    outputs = {
        "student.safetensors": lambda batch: np.asarray(evaluate(variables_on_device, batch))[0, 0],
        "student.stablehlo": lambda batch: np.asarray(program.call(batch)),
        **{name: classifier.logits for name, classifier in classifiers.items()},
    }
    batch_logits: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
    equal_images, first_batch = 0, None
    for start, images in _test_batches(run, classifiers["student.onnx"]):
        first_batch = images if first_batch is None else first_batch
        equal_images += int((images == test.images[start : start + len(images)]).all((1, 2, 3)).sum())
        for name, function in outputs.items():
            batch_logits[name].append(function(images))
    logits = {name: np.concatenate(batches) for name, batches in batch_logits.items()}
    litert_files = [name for name in trusts if litert.recognized(directory / name)]
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    assert first_batch is not None
    latencies = _latencies(directory, network, first_batch, litert_files)
    return {
        "test_images": {
            "count": len(test),
            "read_from": "files" if _from_files(run) else "stored images",
            "equal_to_the_stored_ones": equal_images,
        },
        "artifacts": {
            name: {
                **parity.compare(values, reference, test.labels),
                "bytes": (directory / name).stat().st_size,
                "sha256": hashlib.sha256((directory / name).read_bytes()).hexdigest(),
                "latency_ms": latencies.get(name),
            }
            for name, values in logits.items()
        },
        "trust": {
            name: measure_trust(trust, logits[name], test.labels)
            for name, trust in {"student.safetensors": trusts["student.onnx"], **trusts}.items()
        },
        "torchvision_shaped_latency_ms": latencies["torchvision_shaped"],
        "machine": {
            "onnxruntime": onnxruntime.__version__,
            **({"ai_edge_litert": importlib.metadata.version("ai-edge-litert")} if litert_files else {}),
            "latency_threads": 1,
            "machine": platform.machine(),
            "cpu_count": os.cpu_count(),
            "load_average_before": load_average,
        },
    }


def _latencies(
    directory: Path, network: Graph, images: np.ndarray, litert_files: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Median latency in milliseconds by model and batch size.

    On one thread, because the idle threads of several sessions would take each other's cores.
    """
    # For comparison, the network as others export it: the same layers, for images that already have its size.
    unresized = dataclasses.replace(network, storage_size=network.image_size, resize=None)
    models = {
        "student.onnx": (directory / "student.onnx").read_bytes(),
        "student.int8.onnx": (directory / "student.int8.onnx").read_bytes(),
        "torchvision_shaped": onnx_graph.build(unresized, {}).SerializeToString(),
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for name, content in models.items()
    }
    litert_models = {name: litert.Model(directory / name, threads=1) for name in litert_files}
    times: dict[str, dict[str, float]] = {name: {} for name in (*sessions, *litert_models)}
    for batch in BATCHES:
        calls: dict[str, Callable[[], Any]] = {}
        for name, session in sessions.items():
            inputs = {onnx_graph.INPUT: np.resize(images, (batch, *session.get_inputs()[0].shape[1:]))}
            calls[name] = functools.partial(session.run, None, inputs)
        for name, model in litert_models.items():
            calls[name] = functools.partial(model, np.resize(images, (batch, *model.image_shape)))
        for name, milliseconds in parity.latencies(calls).items():
            times[name][str(batch)] = round(milliseconds, 3)
    return times


def _from_files(run: Run) -> bool:
    return run.config.dataset.source == "folder"


def _test_batches(run: Run, classifier: Classifier) -> Iterator[tuple[int, np.ndarray]]:
    """Yields batches of test images (n, storage_size, storage_size, bands), each with the index of its first image.

    If the data set is a folder, the images are read from its files, as `kdjax.deploy.predict` reads them.
    """
    test, config = run.dataset.test, run.config.dataset
    starts = range(0, len(test), BATCH)
    if not _from_files(run):
        yield from ((start, test.images[start : start + BATCH]) for start in starts)
        return
    encoded = folder.read_named(config.path, test.names)
    try:
        for start in starts:
            yield start, np.stack([classifier.prepare(data, outside=True) for data in itertools.islice(encoded, BATCH)])
    except decode.DecodeError as error:
        raise InputError(
            f"dataset.path: a test image of {config.path} can no longer be read ({error}): put it back"
        ) from error
