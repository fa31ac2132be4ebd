"""ImageNet weights from safetensors in torchvision's or timm's naming, and back.

Only safetensors are read: a pickle can run code. Layouts: PyTorch keeps convolutions as (O, I, H, W) and linear
layers as (O, I); here they are (H, W, I, O) and (I, O), depthwise kernels (H, W, C).
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open

from kdjax.errors import InputError

HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>[\w./-]+))?")
LISTED = 8  # names in an error message before "and ... more"

NORM_LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# Place of each convolution in torchvision's VGG16 `features`: ReLU, maximum and BatchNorm count too.
VGG_PLACES = {
    False: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    True: (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
}
TIMM_STAGES = (1, 2, 3, 4, 3, 3, 1)  # blocks in each stage of MobileNetV2
HEAD_PREFIXES = ("classifier.", "pre_logits.", "head.")


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """One tensor of a file: array here = tensor.reshape(middle).transpose(order).reshape(shape here)."""

    name: str
    shape: tuple[int, ...]
    middle: tuple[int, ...]
    order: tuple[int, ...]


def load_imagenet(
    source: str | Path, model_name: str, variables: dict[str, Any], head: bool = False
) -> tuple[dict[str, Any], str]:
    """The variables with parameters and BatchNorm statistics taken from a safetensors file.

    Args:
      source: path of a .safetensors file, or a Hugging Face hub id 'org/name' or 'org/name:file'
        (default file 'model.safetensors'). torchvision and timm names are told apart by themselves.
      model_name: 'vgg16', 'vgg16_bn' or 'mobilenet_v2'.
      variables: {'params': ..., 'batch_stats': ...} of that model at the file's width; not changed.
      head: take those layers of the classifier that the file holds in the right shape; otherwise, and by default,
        the classifier stays as it is in `variables`.

    Returns:
      The new variables, NumPy arrays in the dtypes of the old ones, and a report in one line.

    Raises:
      InputError: no such file, not safetensors, or tensors missing, unexpected or misshapen (named).
    """
    path, naming, found, table = _read(source, model_name, variables)
    leaves = traverse_util.flatten_dict(variables)
    taken = {leaf: tensor for leaf, tensor in table.items() if leaf[1] != "head"}
    if head:
        fits = lambda tensor: tensor.name in found and found[tensor.name].shape == tensor.shape
        layers = {leaf[:-1] for leaf in table if leaf[1] == "head"}
        taken |= {
            leaf: table[leaf]
            for layer in layers
            for leaf in table
            if leaf[:-1] == layer and all(fits(t) for other, t in table.items() if other[:-1] == layer)
        }
    for leaf, tensor in taken.items():
        value = found[tensor.name].reshape(tensor.middle).transpose(tensor.order)
        leaves[leaf] = np.ascontiguousarray(value, leaves[leaf].dtype).reshape(np.shape(leaves[leaf]))
    kept = sorted({"/".join(leaf[1:-1]) for leaf in table if leaf not in taken})
    report = (
        f"{len(taken)} of {len(leaves)} tensors of {model_name} from {path} ({naming} names); "
        f"{'kept as initialised: ' + ', '.join(kept) if kept else 'nothing kept as initialised'}"
    )
    return {**variables, **traverse_util.unflatten_dict(leaves)}, report


def check(source: str | Path, model_name: str, variables: dict[str, Any]) -> None:
    """Raises InputError where `load_imagenet` would. Of the leaves of `variables` only the shapes are read."""
    _read(source, model_name, variables)


def _read(
    source: str | Path, model_name: str, variables: dict[str, Any]
) -> tuple[Path, str, dict[str, np.ndarray], dict[tuple[str, ...], _Tensor]]:
    """Of a file that fits the variables: path, naming, its tensors, and where each leaf lies among them."""
    path = _locate(source)
    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, TypeError) as error:
        raise InputError(f"weights {path}: not a readable safetensors file ({error})") from None
    naming = _naming(found)
    leaves = traverse_util.flatten_dict(variables)
    table = {leaf: _tensor(leaf, np.shape(value), model_name, naming, leaves) for leaf, value in leaves.items()}
    _check(path, model_name, naming, found, [tensor for leaf, tensor in table.items() if leaf[1] != "head"])
    return path, naming, found, table


def named_tensors(model_name: str, variables: dict[str, Any], naming: str = "torchvision") -> dict[str, np.ndarray]:
    """The variables as arrays in PyTorch's layout under 'torchvision' or 'timm' names (`load_imagenet` turned round).

    Dtypes are kept. `num_batches_tracked`, which neither package needs to load a model, is left out; a VGG16 with
    the average-pool head, which torchvision lacks, has its head under 'classifier'.
    """
    leaves = traverse_util.flatten_dict(variables)
    tensors = {}
    for leaf, value in leaves.items():
        tensor = _tensor(leaf, np.shape(value), model_name, naming, leaves)
        turned = [tensor.middle[axis] for axis in tensor.order]
        value = np.asarray(value).reshape(turned).transpose(np.argsort(tensor.order))
        tensors[tensor.name] = np.ascontiguousarray(value).reshape(tensor.shape)
    return tensors


def _locate(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if path.is_file():
        return path
    match = HUB_ID.fullmatch(str(source))
    if path.suffix == ".safetensors" and ":" not in str(source) or not match:
        raise InputError(f'weights {source}: no such file; give a .safetensors file or a hub id "org/name[:file]"')
    from huggingface_hub import hf_hub_download  # slow to import, and only needed here
    from huggingface_hub.errors import HfHubHTTPError

    file = match["file"] or "model.safetensors"
    if not file.endswith(".safetensors"):
        raise InputError(f"weights {source}: only .safetensors files are read")
    try:
        return Path(hf_hub_download(match["repo"], file))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"weights {source}: no such file, and not from the Hugging Face hub: {reason}") from None


def _naming(found: dict[str, np.ndarray]) -> str:
    timm = {"conv_stem.weight", "pre_logits.fc1.weight", "head.fc.weight"}
    return "timm" if timm & found.keys() else "torchvision"


def _check(path: Path, model_name: str, naming: str, found: dict[str, np.ndarray], needed) -> None:
    needed = {tensor.name: tensor.shape for tensor in needed}
    ignored = lambda name: name.endswith("num_batches_tracked") or name.startswith(HEAD_PREFIXES)
    faults = {
        "missing": [name for name in needed if name not in found],
        "unexpected": [name for name in sorted(found) if name not in needed and not ignored(name)],
        "misshapen": [
            f"{name} {found[name].shape} instead of {shape}"
            for name, shape in needed.items()
            if name in found and found[name].shape != shape
        ],
    }
    if any(faults.values()):
        told = "; ".join(
            f"{kind}: "
            + ", ".join(names[:LISTED])
            + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
            for kind, names in faults.items()
            if names
        )
        raise InputError(f"weights {path} do not fit {model_name} ({naming} names): {told}")


def _tensor(leaf: tuple[str, ...], shape: tuple[int, ...], model_name: str, naming: str, leaves) -> _Tensor:
    """Where a leaf ('params' | 'batch_stats', layer, ..., 'kernel') of this shape lies in a file."""
    *layer, kind = leaf[1:]
    if model_name == "mobilenet_v2":
        prefix = (_mobilenet_torchvision if naming == "torchvision" else _mobilenet_timm)(layer, leaves)
    else:
        prefix = _vgg(layer, naming, batch_norm=model_name == "vgg16_bn")
    if kind != "kernel":
        return _Tensor(f"{prefix}.{NORM_LEAVES[kind]}", shape, shape, (0,))
    name = f"{prefix}.weight"
    if len(shape) == 4:
        turned = shape[3], shape[2], shape[0], shape[1]
        return _Tensor(name, turned, turned, (2, 3, 1, 0))
    if len(shape) == 3:
        channels = shape[2]
        return _Tensor(name, (channels, 1, 3, 3), (channels, 3, 3), (1, 2, 0))
    inputs, outputs = shape
    if layer[-1] == "fc_1":
        # PyTorch flattens (C, 7, 7) where we flatten (7, 7, C); timm keeps it as a 7 x 7 convolution.
        middle = (outputs, inputs // 49, 7, 7)
        return _Tensor(name, middle if naming == "timm" else (outputs, inputs), middle, (2, 3, 1, 0))
    as_convolution = layer[0] != "head" or (layer[-1] == "fc_2" and naming == "timm")
    return _Tensor(name, (outputs, inputs, 1, 1) if as_convolution else (outputs, inputs), (outputs, inputs), (1, 0))


def _mobilenet_torchvision(layer: list[str], leaves) -> str:
    fixed = {
        "stem": "features.0.0",
        "stem_bn": "features.0.1",
        "last": "features.18.0",
        "last_bn": "features.18.1",
        "head": "classifier.1",
    }
    if layer[0] in fixed:
        return fixed[layer[0]]
    block, part = layer
    places = {
        "expand": "0.0",
        "expand_bn": "0.1",
        "depthwise": "1.0",
        "depthwise_bn": "1.1",
        "project": "2",
        "project_bn": "3",
    }
    if ("params", block, "expand", "kernel") not in leaves:
        places = {"depthwise": "0.0", "depthwise_bn": "0.1", "project": "1", "project_bn": "2"}
    return f"features.{block.removeprefix('block_')}.conv.{places[part]}"


def _mobilenet_timm(layer: list[str], leaves) -> str:
    fixed = {"stem": "conv_stem", "stem_bn": "bn1", "last": "conv_head", "last_bn": "bn2", "head": "classifier"}
    if layer[0] in fixed:
        return fixed[layer[0]]
    block, part = layer
    places = {
        "expand": "conv_pw",
        "expand_bn": "bn1",
        "depthwise": "conv_dw",
        "depthwise_bn": "bn2",
        "project": "conv_pwl",
        "project_bn": "bn3",
    }
    if ("params", block, "expand", "kernel") not in leaves:
        places = {"depthwise": "conv_dw", "depthwise_bn": "bn1", "project": "conv_pw", "project_bn": "bn2"}
    index = int(block.removeprefix("block_")) - 1
    stage = next(s for s in range(len(TIMM_STAGES)) if index < sum(TIMM_STAGES[: s + 1]))
    return f"blocks.{stage}.{index - sum(TIMM_STAGES[:stage])}.{places[part]}"


def _vgg(layer: list[str], naming: str, batch_norm: bool) -> str:
    if layer[0] == "head":
        names = {
            "fc_1": ("classifier.0", "pre_logits.fc1"),
            "fc_2": ("classifier.3", "pre_logits.fc2"),
            "logits": ("classifier.6", "head.fc"),
            "head": ("classifier", "head.fc"),
        }
        return names[layer[-1]][naming == "timm"]
    part, number = layer[0].split("_")
    return f"features.{VGG_PLACES[batch_norm][int(number) - 1] + (part == 'bn')}"
