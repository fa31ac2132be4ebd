"""An ONNX file of anyone's as teacher, run by onnxruntime on the CPU."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from kdjax.data.rows import Images
from kdjax.errors import InputError
from kdjax.inputs.batch import eval_views, render, view_keys
from kdjax.networks import weights_metadata
from kdjax.networks.classes import class_places
from kdjax.networks.layers import IMAGENET_MEAN, IMAGENET_STD
from kdjax.objective.outputs import Outputs
from kdjax.teacher import onnx_file
from kdjax.teacher.fitted_head import Head
from kdjax.teacher.store import tree_digest
from kdjax.teacher.teacher import Shown, Teacher
from kdjax.training.predictor import BATCH_PER_DEVICE

INPUTS = ("imagenet", "normalized", "unit", "uint8")
"""How a file takes its pixels: less ImageNet's mean over its deviation, less the mean that is declared over the
deviation that is, in [0, 1], or as bytes."""

LAYOUTS = ("NHWC", "NCHW")

GIVES = ("logits", "probabilities", "sigmoid", "embeddings")
"""What a file's output is. Of a softmax the logarithm is taken, of sigmoids log(p / (1 − p)): both are logits. To the
embeddings of an encoder a linear head is fitted, see `teacher.fitted_head`."""

SMALLEST = 1e-12  # a probability below this is taken for it, so that its logarithm is finite


@dataclasses.dataclass(frozen=True)
class Declared:
    """What the user says of a file.

    Attributes:
        layout: one of `LAYOUTS`.
        input: how it takes its pixels, one of `INPUTS`.
        classes: names of the classes in the order of its logits; () = as the file's metadata say under "classes".
        output: name of the output to use; "" = the only one.
        gives: what that output is, one of `GIVES`.
        mean, std: of each channel in [0, 1], for the input "normalized".
        bands: places of its channels among the bands of the images; () = they are red, green and blue.
    """

    layout: str = "NHWC"
    input: str = "imagenet"
    classes: Sequence[str] = ()
    output: str = ""
    gives: str = "logits"
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    bands: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        """How many it takes."""
        return len(self.bands) or 3


@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """A file that was opened, and fits what was declared of it.

    Attributes:
        path: the file.
        size: side of the images that it is given, px.
        values: from images (n, size, size, bands) float32 in [0, 1] to its output (n, length) float32.
        length: of the output for one image.
        classes: names of the classes that its metadata have, in the order of its logits; or None.
        bands: names of the bands that they have, in the order of its channels; or None.
        value_range: the values that became black and white in its images, by them: [] of bytes; or None.
        parts: what the output depends on, as JSON values.
    """

    path: str
    size: int
    values: Callable[[np.ndarray], np.ndarray]
    length: int
    classes: list[str] | None
    bands: list[str] | None
    value_range: list[float] | None
    parts: dict[str, Any]

    def plain(self, images: Images) -> np.ndarray:
        """The output (n, length) for the plainly resized images (n, side, side, bands)."""
        resized = jax.jit(lambda images: eval_views(images, self.size))
        return _by_batch(len(images), lambda rows: self.values(np.asarray(resized(images[rows]))))


def opened(path: str, declared: Declared, size: int) -> OnnxFile:
    """Opens an ONNX file, and tries it on plain colors and noise.

    Args:
        path: the file. It takes a batch of images.
        declared: what is known of it.
        size: side of the images that it will be given, px.

    Raises:
        InputError: the file or what was declared of it does not fit.
    """
    session = onnx_file.session(path)
    entry = _input(path, session, declared, size)
    output = _output(path, session, declared.output)
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) else None

    def values(images: np.ndarray) -> np.ndarray:
        run = lambda batch: onnx_file.run(path, session, output, entry.name, batch)
        shown = images[..., list(declared.bands)] if declared.bands else images
        found = _in_batches(fixed, run, _pixels(shown, declared))
        if found.ndim != 2 or len(found) != len(images):
            raise InputError(
                f"teacher.onnx: output {output!r} of {path} has the shape {found.shape} for {len(images)} images: name "
                "an output with one row per image in teacher.onnx_output"
            )
        return found.astype(np.float32)

    tried = values(_probe(size, max(declared.bands, default=2) + 1))
    _check_output(path, tried, declared.gives)
    normalized = [list(declared.mean), list(declared.std)] if declared.input == "normalized" else []
    parts = {
        "teacher": onnx_file.digest(path),
        "model": "onnx",
        "size": size,
        "dtype": "float32",
        "input": [declared.layout, declared.input, *normalized],
        **({"bands": list(declared.bands)} if declared.bands else {}),
        **({"output": [output, declared.gives]} if (declared.output or declared.gives != "logits") else {}),
        **({"mean": 0} if declared.gives == "probabilities" else {}),  # earlier versions stored log p as it is
    }
    facts = onnx_file.facts(session)
    classes = list(map(str, facts["classes"])) if isinstance(facts.get("classes"), list) else None
    bands, value_range = weights_metadata.names(facts.get("bands")), weights_metadata.numbers(facts.get("value_range"))
    return OnnxFile(path, size, values, tried.shape[1], classes, bands, value_range, parts)


def from_onnx(file: OnnxFile, declared: Declared, classes: Sequence[str], shown: Shown) -> Teacher:
    """An ONNX file that gives logits, or what logits are made of, as teacher.

    Args:
        file: the file.
        declared: what it was opened with.
        classes: names of the classes of the data set; each must be among the file's.
        shown: how images are shown to it, at the file's size.

    Raises:
        InputError: its classes do not fit.
    """
    places = class_places(f"teacher.onnx: {file.path}", file.classes, declared.classes, classes)
    count = len(declared.classes or file.classes or ())
    if count != file.length:
        raise InputError(
            f"teacher.onnx: {file.path} has {file.length} outputs and {count} class names: give "
            "teacher.classes one name for each output, in their order"
        )
    parts = {**file.parts, "input": [*file.parts["input"], places.tolist()]}
    return _teacher(file, shown, parts, lambda values: Outputs(as_logits(values, declared.gives)[:, places]))


def from_encoder(file: OnnxFile, head: Head, shown: Shown) -> Teacher:
    """An ONNX file that gives embeddings, with a linear head, as teacher: its embeddings are its features."""

    def outputs(values: np.ndarray) -> Outputs:
        return Outputs(values @ head.kernel + head.bias, values)

    parts = {**file.parts, "head": tree_digest({"kernel": head.kernel, "bias": head.bias})}
    return dataclasses.replace(_teacher(file, shown, parts, outputs), measured=head.measured)


def _teacher(file: OnnxFile, shown: Shown, parts: dict[str, Any], outputs: Callable[[np.ndarray], Outputs]) -> Teacher:
    """A teacher that makes its outputs of what a file gives."""

    @jax.jit
    def rendered(images: jax.Array, examples: jax.Array, view: jax.Array) -> jax.Array:
        keys = view_keys(shown.data_seed, examples, jax.numpy.full_like(examples, view))
        return render(images, keys, shown.size, shown.augmentation)

    def views(images: Images, examples: np.ndarray, view: int) -> Outputs:
        def one(rows: np.ndarray) -> np.ndarray:
            chosen = examples[rows].astype(np.int32)
            return file.values(np.asarray(rendered(images[chosen], chosen, np.int32(view))))

        return outputs(_by_batch(len(examples), one))

    return Teacher(parts, views, lambda images: outputs(file.plain(images)).logits)


def _by_batch(count: int, one: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`one` of the rows up to `count`, in batches of one length, so that what it compiles is compiled once."""
    batch = max(min(BATCH_PER_DEVICE, count), 1)
    starts = range(0, count, batch)
    pieces = [one(np.minimum(np.arange(start, start + batch), count - 1)) for start in starts]
    return np.concatenate(pieces)[:count]


def as_logits(values: np.ndarray, gives: str) -> np.ndarray:
    """Logits (n, classes) float32 of what a file gives, one of `GIVES`."""
    if gives == "logits":
        return values
    wide = np.clip(values.astype(np.float64), SMALLEST, None)
    if gives == "probabilities":
        # A softmax leaves the offset common to all classes open, and the cosine of logits depends on it: that of log p
        # is large. Logits of a network have a mean over its classes of about 0, which cross-entropy does not move.
        logits = np.log(wide)
        return (logits - logits.mean(1, keepdims=True)).astype(np.float32)
    return (np.log(wide) - np.log(np.clip(1 - values.astype(np.float64), SMALLEST, None))).astype(np.float32)


def _input(path: str, session: Any, declared: Declared, size: int) -> Any:
    """The input that takes the images, which fits what was declared."""
    entry, *others = session.get_inputs()
    if others:
        raise InputError(
            f"teacher.onnx: {path} takes {', '.join(one.name for one in (entry, *others))}: give a file that takes "
            "only images"
        )
    wanted = "tensor(uint8)" if declared.input == "uint8" else "tensor(float)"
    if entry.type != wanted:
        raise InputError(
            f"teacher.onnx: {path} takes {entry.type}, but teacher.onnx_input={declared.input!r} gives {wanted}: set "
            "teacher.onnx_input"
        )
    count = declared.channels
    shape = (size, size, count) if declared.layout == "NHWC" else (count, size, size)
    sides = entry.shape[1:]
    if len(entry.shape) != 4 or any(isinstance(a, int) and a != b for a, b in zip(sides, shape, strict=True)):
        raise InputError(
            f"teacher.onnx: {path} takes images {entry.shape}, but teacher.onnx_layout={declared.layout!r} at {size} "
            f"px gives {('batch', *shape)}: set teacher.onnx_layout or teacher.image_size"
        )
    return entry


def _output(path: str, session: Any, wanted: str) -> str:
    """Name of the output to use."""
    found = {one.name: one.shape for one in session.get_outputs()}
    listed = ", ".join(f"{name} {shape}" for name, shape in found.items())
    if wanted and wanted not in found:
        raise InputError(f"teacher.onnx_output: {path} has no output {wanted!r}; it has {listed}")
    if not wanted and len(found) > 1:
        raise InputError(f"teacher.onnx: {path} has several outputs ({listed}): name the logits in teacher.onnx_output")
    return wanted or next(iter(found))


def _pixels(images: np.ndarray, declared: Declared) -> np.ndarray:
    """Images (n, size, size, channels) float in [0, 1] as the file takes them."""
    if declared.input == "uint8":
        images = np.round(images * 255).astype(np.uint8)
    elif declared.input in ("imagenet", "normalized"):
        images = (images - np.array(declared.mean, np.float32)) / np.array(declared.std, np.float32)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if declared.layout == "NCHW" else images


def _in_batches(fixed: int | None, function: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """`function` of `images`, all at once, or in batches of the one length that a file takes, filled up with zeros."""
    if fixed is None:
        return function(images)
    pieces = []
    for start in range(0, len(images), fixed):
        piece = images[start : start + fixed]
        padded = np.zeros((fixed, *piece.shape[1:]), piece.dtype)
        padded[: len(piece)] = piece
        pieces.append(function(padded)[: len(piece)])
    return np.concatenate(pieces)


def _probe(size: int, bands: int) -> np.ndarray:
    """Images that no two classes should share their logits on: black, white, each band alone and noise, (n, size, size,
    bands) float32."""
    flat = [np.broadcast_to(color, (size, size, bands)) for color in (np.zeros(bands), np.ones(bands), *np.eye(bands))]
    noise = np.random.default_rng(0).random((size, size, bands), np.float32)
    return np.stack([*flat, noise]).astype(np.float32)


def _check_output(path: str, values: np.ndarray, gives: str) -> None:
    """Refuses an output that is not what it was declared to be, by its values on a few images."""
    if not np.isfinite(values).all():
        raise InputError(f"teacher.onnx: {path} gives values that are not finite for plain colors and noise")
    if gives == "embeddings":
        return
    inside = bool((values >= 0).all() and (values <= 1 + 1e-4).all())
    sums = inside and bool(np.allclose(values.sum(1), 1, atol=1e-3))
    found = "probabilities" if sums else "sigmoid" if inside else "logits"
    if gives == "logits" and found != "logits":
        what = "add up to 1" if sums else "all lie between 0 and 1"
        raise InputError(
            f"teacher.onnx: the outputs of {path} {what}, so they are not logits: set teacher.onnx_gives={found}, or "
            "name another output in teacher.onnx_output"
        )
    if gives != "logits" and found != gives and not (gives == "sigmoid" and inside):
        raise InputError(f"teacher.onnx_gives is {gives!r}, but the outputs of {path} look like {found}")
