"""Converts ImageNet weights between safetensors files in torchvision's or timm's naming and kdjax's variables.

Only safetensors are read, because a pickle can run code. PyTorch keeps convolutions as (O, I, H, W) and linear layers
as (O, I). kdjax keeps them as (H, W, I, O) and (I, O), and depthwise kernels as (H, W, C). The file of each family
lists the names of its layers.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from kdjax.errors import InputError
from kdjax.networks import MODELS, hub, layers, weights_metadata
from kdjax.networks.model import Place
from kdjax.networks.widening import Colors, widened

LISTED = 8  # names in an error message before "and ... more"
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
PIXEL_SCALE = 0.05
"""Median norm of the first layer's filters below which they seem to expect pixels of 0 to 255. It is 1.2 and 0.8 for
torchvision's VGG16 and MobileNetV2, which expect unit variance; that divided by a standard deviation of about 58 is
0.02."""

PIXELS = ("network", "caffe")
"""Pixels that the weights of a file were trained on: as the network takes them, or BGR of 0 to 255 minus the mean. The
mean of caffe's weights and ImageNet's mean in kdjax differ by less than a gray level, which is ignored."""

CLASSIFIERS = ("keep", "fitting", "whole")
"""What to take of a file's classifier: nothing, the layers of the right shape, or all of it."""

STEMS = ("stem", "conv_1")
"""Possible names of a network's first convolution."""

Leaf = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor of a file, to be converted to a leaf: tensor.reshape(middle).transpose(order).reshape(leaf.shape)."""

    name: str
    shape: tuple[int, ...]
    middle: tuple[int, ...]
    order: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _File:
    """A file of weights: its naming, its tensors, and the tensor that each leaf of the variables is read from."""

    path: Path
    naming: str
    tensors: dict[str, np.ndarray]
    table: dict[Leaf, _Tensor]
    rgb_kernel: Leaf | None = None
    """The first kernel, if it is one for red, green and blue and the network takes other bands; else None."""

    def fits(self, leaf: Leaf) -> bool:
        tensor = self.table[leaf]
        return tensor.name in self.tensors and self.tensors[tensor.name].shape == tensor.shape


@dataclasses.dataclass(frozen=True)
class Loaded:
    """The result of loading a file of weights.

    Attributes:
        variables: of the network, NumPy arrays in the dtypes of those that were passed in.
        report: one line that says what was taken.
        record: facts about the file for the run's record: source, file, sha256, commit on the hub or None, naming and
            pixels; also bands, mean and std if its metadata say how its bands are normalized.
    """

    variables: dict[str, Any]
    report: str
    record: dict[str, Any]


def load_imagenet(
    source: str | Path,
    model_name: str,
    variables: dict[str, Any],
    classifier: str = "keep",
    pixels: str = "network",
    colors: Colors | None = None,
) -> Loaded:
    """Returns the variables with parameters and BatchNorm statistics from a safetensors file.

    Args:
        source: path of a .safetensors file, or a hub id, see `hub.locate`. The names of its tensors decide whether it
            is read in torchvision's or timm's naming.
        model_name: a key of `networks.MODELS`.
        variables: {'params': ..., 'batch_stats': ...} of that model at the file's width; not changed.
        classifier: what to take of the classifier, one of CLASSIFIERS; the rest stays as it is in `variables`.
        pixels: one of PIXELS; the first layer of a file in caffe's form is converted.
        colors: indices of red, green and blue among the network's bands; None = it takes just these three. The first
            layer of a file for red, green and blue is widened to the network's bands, see `widened`.

    Raises:
        InputError: there is no such file, it is not safetensors, or tensors are missing, unexpected, misshapen or not
            finite (the message names them); the file's name shows that it belongs to another network; or it is in
            caffe's form and the network does not take pixels with ImageNet's mean.
    """
    file = _read(source, model_name, variables, classifier, pixels, colors)
    std = np.asarray(MODELS[model_name].std)
    leaves = traverse_util.flatten_dict(variables)
    loaded = [leaf for leaf in file.table if leaf[1] != "head"]
    if classifier != "keep":
        misfits = {leaf[:-1] for leaf in file.table if not file.fits(leaf)}
        loaded += [leaf for leaf in file.table if leaf[1] == "head" and leaf[:-1] not in misfits]
    for leaf in loaded:
        tensor, old = file.table[leaf], leaves[leaf]
        value = file.tensors[tensor.name].reshape(tensor.middle).transpose(tensor.order)
        if pixels == "caffe" and value.ndim == 4 and value.shape[2] == len(std):
            value = value[:, :, ::-1].astype(np.float64) * (255 * std)[:, None]
        if leaf == file.rgb_kernel and colors is not None:
            value = widened(value, np.shape(old)[2], colors)
        leaves[leaf] = np.ascontiguousarray(value, old.dtype).reshape(np.shape(old))
    first = next(iter(MODELS[model_name].names))
    scales = _converted_scales(leaves, model_name, file.naming, first)
    leaves |= scales
    kept = sorted({"/".join(leaf[1:-1]) for leaf in file.table.keys() - set(loaded)})
    report = (
        f"{len(loaded)} of {len(leaves)} tensors of {model_name} from {file.path} ({file.naming} names); "
        f"{'kept as initialized: ' + ', '.join(kept) if kept else 'nothing kept as initialized'}"
        f"{f'; {len(scales)} BatchNorm scales turned to another eps' if scales else ''}{_pixel_warning(file, pixels)}"
    )
    record = {
        "source": str(source),
        "file": file.path.name,
        "sha256": digest(file.path),
        "commit": hub.commit(file.path),
        "naming": file.naming,
        "pixels": pixels,
        **input_statistics(file.path),
    }
    return Loaded({**variables, **traverse_util.unflatten_dict(leaves)}, report, record)


def check(
    source: str | Path,
    model_name: str,
    variables: dict[str, Any],
    pixels: str = "network",
    colors: Colors | None = None,
) -> None:
    """Raises InputError if `load_imagenet` would. Only the shapes of the leaves of `variables` are read."""
    _read(source, model_name, variables, "keep", pixels, colors)


def digest(source: str | Path) -> str:
    """Returns the SHA-256 of a file of weights, in hexadecimal. Raises InputError if there is no such file."""
    with hub.locate(source).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def input_statistics(source: str | Path) -> dict[str, list[str] | list[float]]:
    """Reads the names of the bands that a file's network takes, with their mean and std in [0, 1].

    Returns:
        {'bands': ..., 'mean': ..., 'std': ...}, or {} if any of these is missing from the metadata or invalid.

    Raises:
        InputError: there is no such file, or it is not safetensors.
    """
    names, statistics = weights_metadata.band_names(source), weights_metadata.statistics(source)
    if names is None or statistics is None or len(names) != len(statistics[0]):
        return {}
    return {"bands": names, "mean": statistics[0], "std": statistics[1]}


def named_tensors(model_name: str, variables: dict[str, Any], naming: str | None = None) -> dict[str, np.ndarray]:
    """Returns the variables in PyTorch's layout under another package's names: the inverse of `load_imagenet`.

    Dtypes are kept. `num_batches_tracked` is left out, because neither package needs it to load a model. The
    average-pool head of a VGG16, which torchvision lacks, is called 'classifier'.

    Args:
        model_name: a key of `networks.MODELS`.
        variables: {'params': ..., 'batch_stats': ...} of that model.
        naming: one of the model's `names`; by default the first, which is torchvision's if there is one.
    """
    names = MODELS[model_name].names
    first = next(iter(names))
    places = names[naming or first]
    tensors = {}
    leaves = traverse_util.flatten_dict(variables)
    for leaf, value in {**leaves, **_converted_scales(leaves, model_name, first, naming or first)}.items():
        tensor = _tensor(leaf, np.shape(value), places)
        shape = [tensor.middle[axis] for axis in tensor.order]
        value = np.asarray(value).reshape(shape).transpose(np.argsort(tensor.order))
        tensors[tensor.name] = np.ascontiguousarray(value).reshape(tensor.shape)
    return tensors


def _converted_scales(leaves: Mapping[Leaf, Any], model_name: str, source: str, target: str) -> dict[Leaf, np.ndarray]:
    """Converts BatchNorm's scales from the eps of the naming `source` to that of `target`.

    The network computes the same in evaluation: scale' / sqrt(var + eps') = scale / sqrt(var + eps). The statistics do
    not change, so that training can continue from them. The result is empty if both namings have the same eps.
    """
    eps = MODELS[model_name].eps
    if eps.get(source) == eps.get(target):
        return {}
    converted = {}
    for leaf, scale in leaves.items():
        if leaf[-1] == "scale":
            var = np.asarray(leaves["batch_stats", *leaf[1:-1], "var"], np.float64)
            factor = np.sqrt((var + eps[target]) / (var + eps[source]))
            converted[leaf] = (scale * factor).astype(np.asarray(scale).dtype)
    return converted


def _read(
    source: str | Path,
    model_name: str,
    variables: dict[str, Any],
    classifier: str,
    pixels: str,
    colors: Colors | None,
) -> _File:
    if pixels == "caffe" and tuple(MODELS[model_name].mean) != layers.IMAGENET_MEAN:
        raise InputError(f"weights {source}: {model_name} has none in caffe's form: set weights_pixels to 'network'")
    for pattern, instead in MODELS[model_name].unlike.items():
        if re.search(pattern, str(source)):
            raise InputError(
                f"weights {source}: the name is that of another network than kdjax's {model_name}, with other padding, "
                f"eps or pixel statistics, which tensors do not show: give {instead}"
            )
    path = hub.locate(source)
    with weights_metadata.open_weights(path) as file:
        for name in file.keys():
            # Numbers of 8 bits or fewer come with separate scales, for which no naming has a place.
            if (dtype := file.get_slice(name).get_dtype()).startswith(("F8_", "F6_", "F4")):
                raise InputError(f"weights {path}: {name} holds {dtype}: give the file in float32, bfloat16 or float16")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        bands = weights_metadata.as_names(weights_metadata.read_field(file, "bands"))
    shapes = {leaf: np.shape(value) for leaf, value in traverse_util.flatten_dict(variables).items()}
    rgb_kernel = None
    if colors is not None and bands is None:  # a file that does not name its bands is for red, green and blue
        rgb_kernel = next(leaf for leaf in shapes if leaf[1] in STEMS and leaf[-1] == "kernel")
        shapes[rgb_kernel] = (*shapes[rgb_kernel][:2], 3, shapes[rgb_kernel][3])
    tables = {
        naming: {leaf: _tensor(leaf, shape, places) for leaf, shape in shapes.items()}
        for naming, places in MODELS[model_name].names.items()
    }
    # The naming with most of its names in the file; the first one of equals.
    naming = max(tables, key=lambda name: sum(tensor.name in tensors for tensor in tables[name].values()))
    weights = _File(path, naming, tensors, tables[naming], rgb_kernel)
    _check_names(weights, model_name, whole=classifier == "whole")
    _check_values(weights)
    return weights


def _check_names(file: _File, model_name: str, *, whole: bool) -> None:
    needed = {tensor.name: tensor.shape for leaf, tensor in file.table.items() if whole or leaf[1] != "head"}
    classifier = MODELS[model_name].classifier
    ignored = lambda name: name.endswith("num_batches_tracked") or name.startswith(classifier)
    faults = {
        "missing": [name for name in needed if name not in file.tensors],
        "unexpected": [name for name in sorted(file.tensors) if name not in needed and not ignored(name)],
        "misshapen": [
            f"{name} {file.tensors[name].shape} instead of {shape}"
            for name, shape in needed.items()
            if name in file.tensors and file.tensors[name].shape != shape
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {_listed(names)}" for kind, names in faults.items() if names)
        raise InputError(f"weights {file.path} do not fit {model_name} ({file.naming} names): {listed}")


def _check_values(file: _File) -> None:
    """Raises InputError if a tensor that may be loaded is not floating-point, or not finite in float32."""
    bad = []
    for leaf, tensor in file.table.items():
        if file.fits(leaf):
            values = file.tensors[tensor.name]
            if values.dtype.kind in "iub":
                raise InputError(f"weights {file.path}: {tensor.name} holds {values.dtype}, not floating-point numbers")
            with np.errstate(over="ignore"):
                invalid = values.size - np.count_nonzero(np.isfinite(values.astype(np.float32)))
            if invalid:
                bad.append(f"{tensor.name} ({invalid} of {values.size} values)")
    if bad:
        raise InputError(f"weights {file.path}: NaN or infinite values in {_listed(bad)}: take another file")


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _pixel_warning(file: _File, pixels: str) -> str:
    """Returns a warning if the first layer seems to expect other pixels than declared, else ''."""
    first = next(
        (tensor for leaf, tensor in file.table.items() if len(tensor.shape) == 4 and tensor.shape[1] == 3), None
    )
    if first is None:
        return ""
    kernel = file.tensors[first.name].astype(np.float64)
    norm = np.median(np.sqrt(np.square(kernel).sum((1, 2, 3))))
    small = norm < PIXEL_SCALE
    if small == (pixels == "caffe"):
        return ""
    size = "small (median norm" if small else "large for pixels of 0 to 255 (median norm"
    fix = "set weights_pixels to 'caffe' if that is so" if small else "set weights_pixels to 'network' if they are not"
    return (
        f"; WARNING: the filters of {first.name} are {size} {norm:.2g}), "
        + ("as of a network for pixels of 0 to 255 in caffe's form (BGR): " if small else "")
        + fix
    )


def _tensor(leaf: Leaf, shape: tuple[int, ...], places: Mapping[str, Place]) -> _Tensor:
    """Returns the tensor in a file for a leaf ('params' | 'batch_stats', layer, ..., 'kernel') of this shape."""
    place = places["/".join(leaf[1:-1])]
    name = f"{place.name}.{LEAVES[leaf[-1]]}"
    if leaf[-1] != "kernel":
        return _Tensor(name, shape, shape, (0,))
    if len(shape) == 4:
        transposed = shape[3], shape[2], shape[0], shape[1]
        return _Tensor(name, transposed, transposed, (2, 3, 1, 0))
    if len(shape) == 3:
        height, width, channels = shape
        return _Tensor(name, (channels, 1, height, width), (channels, height, width), (1, 2, 0))
    inputs, outputs = shape
    middle = (outputs, inputs // place.side**2, place.side, place.side)
    return _Tensor(name, (outputs, inputs) if place.linear else middle, middle, (2, 3, 1, 0))
