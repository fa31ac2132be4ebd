"""Teachers: whatever turns the views of the training images into logits.

A trained network of kdjax, an ONNX file of anyone's, or folders of logits made before. Each ends as the same arrays.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from kdjax.errors import InputError
from kdjax.inputs.feed import read_ahead
from kdjax.networks.layers import IMAGENET_MEAN, IMAGENET_STD
from kdjax.runtime.devices import Mapping
from kdjax.teacher.store import tree_digest
from kdjax.training import predictor
from kdjax.training import step as steps

ONNX_INPUTS = ("imagenet", "unit", "uint8")
"""How an ONNX file takes its pixels: normalised by ImageNet's mean and deviation, in [0, 1], or as bytes."""

ONNX_LAYOUTS = ("NHWC", "NCHW")


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A teacher that can be run.

    Attributes:
        parts: what its logits depend on beside the data, as JSON values.
        views: from training images (N, side, side, 3) uint8, example indices (n,) and a view to logits (n, classes).
        clean: from images (n, side, side, 3) uint8 to the logits (n, classes) of the plainly resized images.
        network: the flax module and its variables, where it is one: only such a teacher can be online.
    """

    parts: dict[str, Any]
    views: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
    clean: Callable[[np.ndarray], np.ndarray]
    network: tuple[nn.Module, Any] | None = None


def from_network(
    name: str,
    model: nn.Module,
    variables: Any,
    *,
    size: int,
    data_seed: int,
    dtype: str,
    on_device: bool,
    mapping: Mapping,
) -> Teacher:
    """A network of kdjax's as teacher.

    Args:
        name: of the network.
        model: the network.
        variables: its variables, without population axes, on the host.
        size: side of its input, px.
        data_seed: see `steps.view_keys`.
        dtype: compute dtype, part of the fingerprint.
        on_device: whether all images are held on the devices at once, or read from the host batch by batch.
        mapping: the devices.
    """
    step = mapping.map(
        functools.partial(steps.teacher_view_step, model=model, size=size),
        ("whole", "whole", "batch", "batch", "batch", "whole"),
    )
    # Placed once, when first used: most runs find all logits on disk.
    placed = functools.cache(lambda: mapping.place(variables))
    held: dict[int, Any] = {}
    batch = predictor.BATCH_PER_DEVICE * len(mapping.devices)

    def views(images: np.ndarray, examples: np.ndarray, view: int) -> np.ndarray:
        if on_device and id(images) not in held:
            held[id(images)] = mapping.place(images)

        def read(start: int) -> tuple[Any, Any, Any]:
            # The last batch is filled up with its last image, and cut again.
            chosen = examples[np.minimum(np.arange(start, start + batch), len(examples) - 1)].astype(np.int32)
            shares = mapping.split((chosen, np.full_like(chosen, view)))
            return *shares, None if on_device else images[shares[0]]

        pieces = [
            np.asarray(step(placed(), held.get(id(images)), *shares, np.int32(data_seed)))
            for shares in read_ahead(range(0, len(examples), batch), read)
        ]
        return np.concatenate(pieces)[: len(examples)]

    predict = predictor.predictor(model, size=size, mapping=mapping)

    def clean(images: np.ndarray) -> np.ndarray:
        return predict(mapping.place(jax.tree.map(lambda leaf: leaf[None, None], variables)), images)[0, 0]

    parts = {"teacher": tree_digest(variables), "model": name, "size": size, "dtype": dtype}
    return Teacher(parts, views, clean, (model, variables))


def from_onnx(
    path: str, *, layout: str, pixels: str, order: Sequence[str], classes: Sequence[str], size: int, data_seed: int
) -> Teacher:
    """An ONNX file as teacher, run by onnxruntime on the CPU.

    Args:
        path: the file. It takes one batch of images and its first output is the logits (batch, classes).
        layout: "NHWC" or "NCHW".
        pixels: one of `ONNX_INPUTS`.
        order: names of the classes in the order of its logits; () = as the file's metadata say under "classes".
        classes: names of the classes of the data set; each must be among the file's.
        size: side of its input, px.
        data_seed: see `steps.view_keys`.

    Raises:
        InputError: the file or what was declared of it does not fit.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise InputError("teacher.onnx needs onnxruntime: pip install 'kdjax[export]'")
    import onnxruntime

    if not Path(path).is_file():
        raise InputError(f"teacher.onnx: no file {path}")
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many kinds, none public
        raise InputError(f"teacher.onnx: {path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    places = _class_places(path, session, order, classes)
    entry = session.get_inputs()[0]
    wanted = "tensor(uint8)" if pixels == "uint8" else "tensor(float)"
    if entry.type != wanted:
        raise InputError(f"teacher.onnx: {path} takes {entry.type}, but teacher.onnx_input={pixels!r} gives {wanted}")
    shape = (size, size, 3) if layout == "NHWC" else (3, size, size)
    declared = entry.shape[1:]
    if len(entry.shape) != 4 or any(isinstance(a, int) and a != b for a, b in zip(declared, shape, strict=True)):
        raise InputError(
            f"teacher.onnx: {path} takes images {entry.shape}, but teacher.onnx_layout={layout!r} at {size} px gives "
            f"{('batch', *shape)}: set teacher.onnx_layout or teacher.image_size"
        )

    @jax.jit
    def rendered(images: jax.Array, examples: jax.Array, view: jax.Array) -> jax.Array:
        keys = steps.view_keys(data_seed, examples, jax.numpy.full_like(examples, view))
        return steps.render(images, keys, size)

    plain = jax.jit(lambda images: steps.eval_views(images, size))

    def run(images: np.ndarray) -> np.ndarray:
        if pixels == "uint8":
            images = np.round(images * 255).astype(np.uint8)
        elif pixels == "imagenet":
            images = (images - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
        if layout == "NCHW":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        logits = session.run(None, {entry.name: images})[0]
        if logits.ndim != 2 or logits.shape[1] <= max(places):
            raise InputError(f"teacher.onnx: {path} gives {logits.shape}, needed (batch, at least {max(places) + 1})")
        return logits[:, places].astype(np.float32)

    run(np.zeros((1, size, size, 3), np.float32))  # refused now rather than after the first views were rendered

    def by_batch(count: int, one: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        # Batches of one length, so that the rendering is compiled once.
        batch = min(predictor.BATCH_PER_DEVICE, count)
        starts = range(0, count, batch)
        pieces = [one(np.minimum(np.arange(start, start + batch), count - 1)) for start in starts]
        return np.concatenate(pieces)[:count]

    def views(images: np.ndarray, examples: np.ndarray, view: int) -> np.ndarray:
        def one(rows: np.ndarray) -> np.ndarray:
            chosen = examples[rows].astype(np.int32)
            return run(np.asarray(rendered(images[chosen], chosen, np.int32(view))))

        return by_batch(len(examples), one)

    def clean(images: np.ndarray) -> np.ndarray:
        return by_batch(len(images), lambda rows: run(np.asarray(plain(images[rows]))))

    parts = {
        "teacher": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "model": "onnx",
        "size": size,
        "dtype": "float32",
        "input": [layout, pixels, list(map(int, places))],
    }
    return Teacher(parts, views, clean)


def _class_places(path: str, session: Any, order: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """For each class of the data set, where the file has its logit."""
    names = list(order)
    if not names:
        try:
            names = list(json.loads(session.get_modelmeta().custom_metadata_map["classes"]))
        except (KeyError, ValueError, TypeError):
            raise InputError(
                f"teacher.onnx: {path} does not say which logit is which class: give teacher.onnx_classes"
            ) from None
    missing = [name for name in classes if name not in names]
    if missing or len(set(names)) < len(names):
        what = f"lacks {', '.join(missing)}" if missing else "names a class twice"
        raise InputError(f"teacher.onnx: the classes of {path} do not fit the data set: it {what}")
    return np.array([names.index(name) for name in classes])
