"""ImageNet weights from safetensors in torchvision's or timm's naming, and back.

Only safetensors are read: a pickle can run code. Layouts: PyTorch keeps convolutions as (O, I, H, W) and linear
layers as (O, I); here they are (H, W, I, O) and (I, O), depthwise kernels (H, W, C). What each network's layers are
called is said in the file of its family.
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
"""Median norm of the first layer's filters below which they were made for pixels of 0 to 255. Those of torchvision's
VGG16 and MobileNetV2, for pixels of unit variance, have 1.2 and 0.8; divided by a deviation of about 58, 0.02."""

PIXELS = ("network", "caffe")
"""What the weights of a file were trained on: pixels as the network takes them, or BGR of 0 to 255 less their mean. The
means of caffe's weights and ImageNet's here differ by less than a gray level, which is neglected."""

CLASSIFIERS = ("keep", "fitting", "whole")
"""What is taken of a file's classifier: nothing, the layers of the right shape, or all of it."""

STEMS = ("stem", "conv_1")
"""What the first convolution of a network may be called."""

Leaf = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """One tensor of a file: array here = tensor.reshape(middle).transpose(order).reshape(shape here)."""

    name: str
    shape: tuple[int, ...]
    middle: tuple[int, ...]
    order: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _File:
    """A file that fits some variables: its naming, its tensors, and where each leaf lies among them."""

    path: Path
    naming: str
    found: dict[str, np.ndarray]
    table: dict[Leaf, _Tensor]
    narrow: Leaf | None = None
    """The first kernel, where it is one for red, green and blue, and the network takes other bands."""

    def fits(self, leaf: Leaf) -> bool:
        tensor = self.table[leaf]
        return tensor.name in self.found and self.found[tensor.name].shape == tensor.shape


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What was taken from a file of weights.

    Attributes:
        variables: of the network, NumPy arrays in the dtypes of those that were given.
        report: what was taken, in one line.
        record: of the file, for a run to keep: source, file, sha256, its commit on the hub or None, naming, pixels; and
            bands, mean and std where it says by which statistics its bands are normalized.
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
    """The variables with parameters and BatchNorm statistics taken from a safetensors file.

    Args:
        source: path of a .safetensors file, or a hub id, see `hub.locate`. torchvision and timm names are told apart by
            what the file holds.
        model_name: a key of `networks.MODELS`.
        variables: {'params': ..., 'batch_stats': ...} of that model at the file's width; not changed.
        classifier: what is taken of the classifier, one of CLASSIFIERS; the rest stays as it is in `variables`.
        pixels: one of PIXELS; the first layer of a file in caffe's form is converted.
        colors: places of red, green and blue among the network's bands; None = it takes these three. The first layer
            of a file for red, green and blue is widened to the bands, see `widened`.

    Raises:
        InputError: no such file, not safetensors, or tensors missing, unexpected, misshapen or not finite (named);
            a file that is another network's by its name; or one in caffe's form for a network that does not take
            ImageNet's mean and deviation.
    """
    file = _read(source, model_name, variables, classifier, pixels, colors)
    deviation = np.asarray(MODELS[model_name].std)
    leaves = traverse_util.flatten_dict(variables)
    taken = [leaf for leaf in file.table if leaf[1] != "head"]
    if classifier != "keep":
        partial = {leaf[:-1] for leaf in file.table if not file.fits(leaf)}
        taken += [leaf for leaf in file.table if leaf[1] == "head" and leaf[:-1] not in partial]
    for leaf in taken:
        tensor, old = file.table[leaf], leaves[leaf]
        value = file.found[tensor.name].reshape(tensor.middle).transpose(tensor.order)
        if pixels == "caffe" and value.ndim == 4 and value.shape[2] == len(deviation):
            value = value[:, :, ::-1].astype(np.float64) * (255 * deviation)[:, None]
        if leaf == file.narrow and colors is not None:
            value = widened(value, np.shape(old)[2], colors)
        leaves[leaf] = np.ascontiguousarray(value, old.dtype).reshape(np.shape(old))
    first = next(iter(MODELS[model_name].names))
    turned = _scales(leaves, model_name, file.naming, first)
    leaves |= turned
    kept = sorted({"/".join(leaf[1:-1]) for leaf in file.table.keys() - set(taken)})
    report = (
        f"{len(taken)} of {len(leaves)} tensors of {model_name} from {file.path} ({file.naming} names); "
        f"{'kept as initialized: ' + ', '.join(kept) if kept else 'nothing kept as initialized'}"
        f"{f'; {len(turned)} BatchNorm scales turned to another eps' if turned else ''}{_doubt(file, pixels)}"
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
    """Raises InputError where `load_imagenet` would. Of the leaves of `variables` only the shapes are read."""
    _read(source, model_name, variables, "keep", pixels, colors)


def digest(source: str | Path) -> str:
    """SHA-256 of a file of weights, in hexadecimal. Raises InputError where there is none."""
    with hub.locate(source).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def input_statistics(source: str | Path) -> dict[str, list[str] | list[float]]:
    """The names of the bands that a file's network takes, their mean and std in [0, 1]; {} where it does not say all.

    Raises:
        InputError: no such file, or not safetensors.
    """
    names, statistics = weights_metadata.band_names(source), weights_metadata.statistics(source)
    if names is None or statistics is None or len(names) != len(statistics[0]):
        return {}
    return {"bands": names, "mean": statistics[0], "std": statistics[1]}


def named_tensors(model_name: str, variables: dict[str, Any], naming: str | None = None) -> dict[str, np.ndarray]:
    """The variables as arrays in PyTorch's layout under another package's names (`load_imagenet` turned round).

    Dtypes are kept. `num_batches_tracked`, which neither package needs to load a model, is left out; a VGG16 with
    the average-pool head, which torchvision lacks, has its head under 'classifier'.

    Args:
        model_name: a key of `networks.MODELS`.
        variables: {'params': ..., 'batch_stats': ...} of that model.
        naming: one of the model's `names`; by default the first, which is torchvision's where there is one.
    """
    names = MODELS[model_name].names
    first = next(iter(names))
    places = names[naming or first]
    tensors = {}
    leaves = traverse_util.flatten_dict(variables)
    for leaf, value in {**leaves, **_scales(leaves, model_name, first, naming or first)}.items():
        tensor = _tensor(leaf, np.shape(value), places)
        turned = [tensor.middle[axis] for axis in tensor.order]
        value = np.asarray(value).reshape(turned).transpose(np.argsort(tensor.order))
        tensors[tensor.name] = np.ascontiguousarray(value).reshape(tensor.shape)
    return tensors


def _scales(leaves: Mapping[Leaf, Any], model_name: str, source: str, target: str) -> dict[Leaf, np.ndarray]:
    """Scales of BatchNorm that do with the eps of one naming in evaluation what those here did with another's.

    scale' / sqrt(var + eps') = scale / sqrt(var + eps). The statistics stay what they are, so that training goes on
    from them. Empty where both namings have the same eps.
    """
    eps = MODELS[model_name].eps
    if eps.get(source) == eps.get(target):
        return {}
    turned = {}
    for leaf, scale in leaves.items():
        if leaf[-1] == "scale":
            var = np.asarray(leaves["batch_stats", *leaf[1:-1], "var"], np.float64)
            factor = np.sqrt((var + eps[target]) / (var + eps[source]))
            turned[leaf] = (scale * factor).astype(np.asarray(scale).dtype)
    return turned


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
    with weights_metadata.opened(path) as file:
        for name in file.keys():
            # Those of 8 bits and fewer come with scales that no naming here has.
            if (dtype := file.get_slice(name).get_dtype()).startswith(("F8_", "F6_", "F4")):
                raise InputError(f"weights {path}: {name} holds {dtype}: give the file in float32, bfloat16 or float16")
        found = {name: file.get_tensor(name) for name in file.keys()}
        bands = weights_metadata.names(weights_metadata.field(file, "bands"))
    shapes = {leaf: np.shape(value) for leaf, value in traverse_util.flatten_dict(variables).items()}
    narrow = None
    if colors is not None and bands is None:
        # A file that says nothing of bands is one for red, green and blue.
        narrow = next(leaf for leaf in shapes if leaf[1] in STEMS and leaf[-1] == "kernel")
        shapes[narrow] = (*shapes[narrow][:2], 3, shapes[narrow][3])
    tables = {
        naming: {leaf: _tensor(leaf, shape, places) for leaf, shape in shapes.items()}
        for naming, places in MODELS[model_name].names.items()
    }
    # Of namings with equally many of their names in the file the first is taken.
    naming = max(tables, key=lambda one: sum(tensor.name in found for tensor in tables[one].values()))
    fitting = _File(path, naming, found, tables[naming], narrow)
    _check_names(fitting, model_name, whole=classifier == "whole")
    _check_values(fitting)
    return fitting


def _check_names(file: _File, model_name: str, *, whole: bool) -> None:
    needed = {tensor.name: tensor.shape for leaf, tensor in file.table.items() if whole or leaf[1] != "head"}
    classifier = MODELS[model_name].classifier
    ignored = lambda name: name.endswith("num_batches_tracked") or name.startswith(classifier)
    faults = {
        "missing": [name for name in needed if name not in file.found],
        "unexpected": [name for name in sorted(file.found) if name not in needed and not ignored(name)],
        "misshapen": [
            f"{name} {file.found[name].shape} instead of {shape}"
            for name, shape in needed.items()
            if name in file.found and file.found[name].shape != shape
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {_listed(names)}" for kind, names in faults.items() if names)
        raise InputError(f"weights {file.path} do not fit {model_name} ({file.naming} names): {listed}")


def _check_values(file: _File) -> None:
    """All tensors that may be taken, as the float32 that they become."""
    bad = []
    for leaf, tensor in file.table.items():
        if file.fits(leaf):
            values = file.found[tensor.name]
            if values.dtype.kind in "iub":
                raise InputError(f"weights {file.path}: {tensor.name} holds {values.dtype}, not floating-point numbers")
            with np.errstate(over="ignore"):
                wrong = values.size - np.count_nonzero(np.isfinite(values.astype(np.float32)))
            if wrong:
                bad.append(f"{tensor.name} ({wrong} of {values.size} values)")
    if bad:
        raise InputError(f"weights {file.path}: NaN or infinite values in {_listed(bad)}: take another file")


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _doubt(file: _File, pixels: str) -> str:
    """A warning, where the first layer seems to expect other pixels than are declared."""
    first = next(
        (tensor for leaf, tensor in file.table.items() if len(tensor.shape) == 4 and tensor.shape[1] == 3), None
    )
    if first is None:
        return ""
    kernel = file.found[first.name].astype(np.float64)
    norm = np.median(np.sqrt(np.square(kernel).sum((1, 2, 3))))
    small = norm < PIXEL_SCALE
    if small == (pixels == "caffe"):
        return ""
    size = "small (median norm" if small else "large for pixels of 0 to 255 (median norm"
    mend = "set weights_pixels to 'caffe' if that is so" if small else "set weights_pixels to 'network' if they are not"
    return (
        f"; WARNING: the filters of {first.name} are {size} {norm:.2g}), "
        + ("as of a network for pixels of 0 to 255 in caffe's form (BGR): " if small else "")
        + mend
    )


def _tensor(leaf: Leaf, shape: tuple[int, ...], places: Mapping[str, Place]) -> _Tensor:
    """Where a leaf ('params' | 'batch_stats', layer, ..., 'kernel') of this shape lies in a file."""
    place = places["/".join(leaf[1:-1])]
    name = f"{place.name}.{LEAVES[leaf[-1]]}"
    if leaf[-1] != "kernel":
        return _Tensor(name, shape, shape, (0,))
    if len(shape) == 4:
        turned = shape[3], shape[2], shape[0], shape[1]
        return _Tensor(name, turned, turned, (2, 3, 1, 0))
    if len(shape) == 3:
        height, width, channels = shape
        return _Tensor(name, (channels, 1, height, width), (channels, height, width), (1, 2, 0))
    inputs, outputs = shape
    middle = (outputs, inputs // place.side**2, place.side, place.side)
    return _Tensor(name, (outputs, inputs) if place.linear else middle, middle, (2, 3, 1, 0))
