"""Teachers that are ONNX files, whoever trained them; onnxruntime runs them on the CPU."""

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
from kdjax.teacher.teacher import Teacher, ViewSettings
from kdjax.training.predictor import BATCH_PER_DEVICE

INPUTS = ("imagenet", "normalized", "unit", "uint8")
"""The pixels that a file may expect: normalized with ImageNet's mean and standard deviation, normalized with those that
the user declares, floats in [0, 1], or bytes."""

LAYOUTS = ("NHWC", "NCHW")

GIVES = ("logits", "probabilities", "sigmoid", "embeddings")
"""What a file's output may hold. Probabilities of a softmax become logits as log p, those of sigmoids as
log(p / (1 − p)), see `as_logits`. A linear head is fitted to the embeddings of an encoder, see `fitted_head`."""

SMALLEST = 1e-12  # smaller probabilities are raised to this, so that their logarithm is finite


@dataclasses.dataclass(frozen=True)
class OnnxDeclaration:
    """What the user declares about a file.

    Attributes:
        layout: one of `LAYOUTS`.
        input: the pixels that the file expects, one of `INPUTS`.
        classes: class names in the order of the logits; () = those in the file's metadata under "classes".
        output: name of the output to use; "" = the only one.
        gives: what that output holds, one of `GIVES`.
        mean, std: of each channel in [0, 1], for the inputs "normalized" and "imagenet".
        bands: for each channel of the file, its index among the bands of the images; () = red, green and blue.
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
        """Number of channels of the images that the file takes."""
        return len(self.bands) or 3


@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """An opened file that matches what was declared about it.

    Attributes:
        path: the file.
        size: side of its input images, px.
        values: function from images (n, size, size, bands) float32 in [0, 1] to the output (n, length) float32.
        length: number of output values for one image.
        classes: class names from its metadata, in the order of the logits; or None.
        bands: band names from its metadata, in the order of the channels; or None.
        value_range: from its metadata, the values that became black and white in the images it was trained on, [] if
            these were bytes; or None.
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
        """Returns the output (n, length) for images (n, side, side, bands) that are only resized."""
        resized = jax.jit(lambda images: eval_views(images, self.size))
        return _by_batch(len(images), lambda rows: self.values(np.asarray(resized(images[rows]))))


def open_onnx(path: str, declared: OnnxDeclaration, size: int) -> OnnxFile:
    """Opens an ONNX file, and tries it on plain colors and noise.

    Args:
        path: the file, which takes batches of images.
        declared: what the user declares about it.
        size: side of its input images, px.

    Raises:
        InputError: the file cannot be used, or does not match what was declared about it.
    """
    session = onnx_file.open_session(path)
    image_input = _input(path, session, declared, size)
    output = _output(path, session, declared.output)
    fixed_batch = image_input.shape[0] if isinstance(image_input.shape[0], int) else None

    def values(images: np.ndarray) -> np.ndarray:
        run = lambda batch: onnx_file.run(path, session, output, image_input.name, batch)
        channels = images[..., list(declared.bands)] if declared.bands else images
        result = _in_batches(fixed_batch, run, _pixels(channels, declared))
        if result.ndim != 2 or len(result) != len(images):
            raise InputError(
                f"teacher.onnx: output {output!r} of {path} has the shape {result.shape} for {len(images)} images: "
                "name an output with one row per image in teacher.onnx_output"
            )
        return result.astype(np.float32)

    probe_values = values(_probe(size, max(declared.bands, default=2) + 1))
    _check_output(path, probe_values, declared.gives)
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
    metadata = onnx_file.json_metadata(session)
    classes = list(map(str, metadata["classes"])) if isinstance(metadata.get("classes"), list) else None
    bands = weights_metadata.as_names(metadata.get("bands"))
    value_range = weights_metadata.as_numbers(metadata.get("value_range"))
    return OnnxFile(path, size, values, probe_values.shape[1], classes, bands, value_range, parts)


def from_onnx(
    file: OnnxFile, declared: OnnxDeclaration, classes: Sequence[str], view_settings: ViewSettings
) -> Teacher:
    """Makes a teacher of an ONNX file that gives logits, or values that can be turned into logits.

    Args:
        file: the file.
        declared: what was declared when it was opened.
        classes: class names of the data set; each must be among the file's.
        view_settings: how images are shown to the teacher, at the file's size.

    Raises:
        InputError: the file's classes do not fit the data set.
    """
    places = class_places(f"teacher.onnx: {file.path}", file.classes, declared.classes, classes)
    count = len(declared.classes or file.classes or ())
    if count != file.length:
        raise InputError(
            f"teacher.onnx: {file.path} has {file.length} outputs and {count} class names: give "
            "teacher.classes one name for each output, in their order"
        )
    parts = {**file.parts, "input": [*file.parts["input"], places.tolist()]}
    return _teacher(file, view_settings, parts, lambda values: Outputs(as_logits(values, declared.gives)[:, places]))


def from_encoder(file: OnnxFile, head: Head, view_settings: ViewSettings) -> Teacher:
    """Makes a teacher of an ONNX file that gives embeddings and a linear head; its features are the embeddings."""

    def outputs(values: np.ndarray) -> Outputs:
        return Outputs(values @ head.kernel + head.bias, values)

    parts = {**file.parts, "head": tree_digest({"kernel": head.kernel, "bias": head.bias})}
    return dataclasses.replace(_teacher(file, view_settings, parts, outputs), measured=head.measured)


def _teacher(
    file: OnnxFile, view_settings: ViewSettings, parts: dict[str, Any], outputs: Callable[[np.ndarray], Outputs]
) -> Teacher:
    """Makes a teacher of a file; `outputs` turns the values that the file gives into `Outputs`."""

    @jax.jit
    def rendered(images: jax.Array, examples: jax.Array, view: jax.Array) -> jax.Array:
        keys = view_keys(view_settings.data_seed, examples, jax.numpy.full_like(examples, view))
        return render(images, keys, view_settings.size, view_settings.augmentation)

    def views(images: Images, examples: np.ndarray, view: int) -> Outputs:
        def file_values(rows: np.ndarray) -> np.ndarray:
            chosen = examples[rows].astype(np.int32)
            return file.values(np.asarray(rendered(images[chosen], chosen, np.int32(view))))

        return outputs(_by_batch(len(examples), file_values))

    return Teacher(parts, views, lambda images: outputs(file.plain(images)).logits)


def _by_batch(count: int, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Applies `function` to the indices below `count` in batches of equal length, so that it compiles only once."""
    batch = max(min(BATCH_PER_DEVICE, count), 1)
    starts = range(0, count, batch)
    pieces = [function(np.minimum(np.arange(start, start + batch), count - 1)) for start in starts]
    return np.concatenate(pieces)[:count]


def as_logits(values: np.ndarray, gives: str) -> np.ndarray:
    """Converts a file's values (n, classes), of the kind `gives` of `GIVES`, to logits (n, classes) float32."""
    if gives == "logits":
        return values
    probabilities = np.clip(values.astype(np.float64), SMALLEST, None)
    if gives == "probabilities":
        # Probabilities determine logits only up to an offset common to all classes, which changes the cosine of logits.
        # The offset of log p is large. A network's own logits have a mean over the classes of about 0, because
        # cross-entropy does not move it.
        logits = np.log(probabilities)
        return (logits - logits.mean(1, keepdims=True)).astype(np.float32)
    complements = np.clip(1 - values.astype(np.float64), SMALLEST, None)
    return (np.log(probabilities) - np.log(complements)).astype(np.float32)


def _input(path: str, session: Any, declared: OnnxDeclaration, size: int) -> Any:
    """Returns the input that takes the images, after comparing it with what was declared."""
    image_input, *others = session.get_inputs()
    if others:
        names = ", ".join(argument.name for argument in (image_input, *others))
        raise InputError(f"teacher.onnx: {path} takes {names}: give a file that takes only images")
    wanted = "tensor(uint8)" if declared.input == "uint8" else "tensor(float)"
    if image_input.type != wanted:
        raise InputError(
            f"teacher.onnx: {path} takes {image_input.type}, but teacher.onnx_input={declared.input!r} gives {wanted}: "
            "set teacher.onnx_input"
        )
    count = declared.channels
    shape = (size, size, count) if declared.layout == "NHWC" else (count, size, size)
    expected = image_input.shape[1:]
    if len(image_input.shape) != 4 or any(isinstance(a, int) and a != b for a, b in zip(expected, shape, strict=True)):
        raise InputError(
            f"teacher.onnx: {path} takes images {image_input.shape}, but teacher.onnx_layout={declared.layout!r} at "
            f"{size} px gives {('batch', *shape)}: set teacher.onnx_layout or teacher.image_size"
        )
    return image_input


def _output(path: str, session: Any, wanted: str) -> str:
    """Returns the name of the output to use: `wanted`, or the only one."""
    shapes = {output.name: output.shape for output in session.get_outputs()}
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    if wanted and wanted not in shapes:
        raise InputError(f"teacher.onnx_output: {path} has no output {wanted!r}; it has {listed}")
    if not wanted and len(shapes) > 1:
        raise InputError(f"teacher.onnx: {path} has several outputs ({listed}): name the logits in teacher.onnx_output")
    return wanted or next(iter(shapes))


def _pixels(images: np.ndarray, declared: OnnxDeclaration) -> np.ndarray:
    """Converts images (n, size, size, channels) float in [0, 1] to the pixels and layout that the file expects."""
    if declared.input == "uint8":
        images = np.round(images * 255).astype(np.uint8)
    elif declared.input in ("imagenet", "normalized"):
        images = (images - np.array(declared.mean, np.float32)) / np.array(declared.std, np.float32)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if declared.layout == "NCHW" else images


def _in_batches(length: int | None, function: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """Applies `function` to `images`, in batches of `length` padded with zeros, or all at once if it is None."""
    if length is None:
        return function(images)
    pieces = []
    for start in range(0, len(images), length):
        piece = images[start : start + length]
        padded = np.zeros((length, *piece.shape[1:]), piece.dtype)
        padded[: len(piece)] = piece
        pieces.append(function(padded)[: len(piece)])
    return np.concatenate(pieces)


def _probe(size: int, bands: int) -> np.ndarray:
    """Returns images (n, size, size, bands) float32 to try a file on: black, white, each band alone, and noise."""
    flat = [np.broadcast_to(color, (size, size, bands)) for color in (np.zeros(bands), np.ones(bands), *np.eye(bands))]
    noise = np.random.default_rng(0).random((size, size, bands), np.float32)
    return np.stack([*flat, noise]).astype(np.float32)


def _check_output(path: str, values: np.ndarray, gives: str) -> None:
    """Raises InputError if an output's values on a few images show that it does not hold what was declared."""
    if not np.isfinite(values).all():
        raise InputError(f"teacher.onnx: {path} gives values that are not finite for plain colors and noise")
    if gives == "embeddings":
        return
    in_unit_range = bool((values >= 0).all() and (values <= 1 + 1e-4).all())
    sum_to_one = in_unit_range and bool(np.allclose(values.sum(1), 1, atol=1e-3))
    kind = "probabilities" if sum_to_one else "sigmoid" if in_unit_range else "logits"
    if gives == "logits" and kind != "logits":
        evidence = "add up to 1" if sum_to_one else "all lie between 0 and 1"
        raise InputError(
            f"teacher.onnx: the outputs of {path} {evidence}, so they are not logits: set teacher.onnx_gives={kind}, "
            "or name another output in teacher.onnx_output"
        )
    if gives != "logits" and kind != gives and not (gives == "sigmoid" and in_unit_range):
        raise InputError(f"teacher.onnx_gives is {gives!r}, but the outputs of {path} look like {kind}")
