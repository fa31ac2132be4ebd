"""A trained MobileNetV2 as the fewest operations: BatchNorm, normalisation and resize folded into constants.

What is left is data (`Network`), which `onnx_graph` and `stablehlo` write down in their own ways.

- BatchNorm in evaluation is affine and joins the convolution in front of it (Jacob et al., arXiv 1712.05877, 3.2).
- The division by 255 and by the standard deviation joins the stem's kernel. The subtraction of the mean does not: the
  stem pads with zeros of the *normalised* image, which are not zeros of the pixels.
- The network reads the images at the size they are stored in, uint8, and makes them its own size itself, as two
  products with a constant matrix. Evaluation in training does that in floats. An input of the network's size would have
  to be rounded to uint8 once more: on UC Merced that moved logits by up to 0.25 and one class in 420, against 2e-5 and
  none this way.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from kdjax.networks.layers import IMAGENET_MEAN, IMAGENET_STD, BatchNorm
from kdjax.networks.mobilenet_v2 import STAGES

CEILING = 6.0  # ReLU6


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution with BatchNorm folded in; padding is half the kernel's side.

    Attributes:
      name: torchvision's name of the layer.
      kernel: (O, I / groups, k, k) float32.
      bias: (O,) float32.
      stride: in both directions.
      groups: 1, or O where every channel has its own filter.
      rectified: min(max(·, 0), 6) follows.
    """

    name: str
    kernel: np.ndarray
    bias: np.ndarray
    stride: int = 1
    groups: int = 1
    rectified: bool = False


@dataclasses.dataclass(frozen=True)
class Block:
    """An inverted residual: its convolutions, and whether its input is added to their result."""

    convolutions: tuple[Convolution, ...]
    residual: bool


@dataclasses.dataclass(frozen=True)
class Network:
    """All constants of a folded MobileNetV2.

    Attributes:
      storage_size: side of the uint8 images it reads, px.
      image_size: side at which it looks at them, px.
      resize: (image_size, storage_size) float32, rows sum to 1; None where the sizes are equal.
      mean: (3,) float32, what is subtracted from the pixels (0 to 255).
      stem, blocks, last: the convolutions; the stem reads pixels minus mean.
      weight, bias: (classes, features) and (classes,) float32 of the head, which reads the mean over the image.
    """

    storage_size: int
    image_size: int
    resize: np.ndarray | None
    mean: np.ndarray
    stem: Convolution
    blocks: tuple[Block, ...]
    last: Convolution
    weight: np.ndarray
    bias: np.ndarray


def fold(tensors: dict[str, np.ndarray], *, storage_size: int, image_size: int) -> Network:
    """The network of a state dict.

    Args:
      tensors: as `weights.named_tensors` gives them for 'mobilenet_v2' in torchvision's names.
      storage_size: side of the uint8 images to read, px.
      image_size: side of the images the network was trained on, px.

    The products are taken in float64 and rounded once.
    """

    def convolution(name: str, norm: str, scale: np.ndarray | None = None, **options) -> Convolution:
        kernel = tensors[f"{name}.weight"].astype(np.float64)
        weight, bias, mean, var = (
            tensors[f"{norm}.{leaf}"].astype(np.float64) for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        factor = weight / np.sqrt(var + BatchNorm.eps)
        kernel = kernel * factor[:, None, None, None]
        if scale is not None:
            kernel = kernel * scale[None, :, None, None]
        return Convolution(name, _float32(kernel), _float32(bias - mean * factor), **options)

    mean, std = 255.0 * np.array(IMAGENET_MEAN), 255.0 * np.array(IMAGENET_STD)
    stem = convolution("features.0.0", "features.0.1", 1 / std, stride=2, rectified=True)
    blocks, channels = [], len(stem.bias)
    for number, (expansion, stride) in enumerate(_block_kinds(), 1):
        place, parts = f"features.{number}.conv", []
        if expansion != 1:
            parts.append(convolution(f"{place}.0.0", f"{place}.0.1", rectified=True))
        at = len(parts)
        parts.append(
            convolution(
                f"{place}.{at}.0",
                f"{place}.{at}.1",
                stride=stride,
                groups=len(tensors[f"{place}.{at}.0.weight"]),
                rectified=True,
            )
        )
        parts.append(convolution(f"{place}.{at + 1}", f"{place}.{at + 2}"))
        features = len(parts[-1].bias)
        blocks.append(Block(tuple(parts), residual=stride == 1 and features == channels))
        channels = features
    return Network(
        storage_size,
        image_size,
        None if storage_size == image_size else resize_matrix(storage_size, image_size),
        _float32(mean),
        stem,
        tuple(blocks),
        convolution("features.18.0", "features.18.1", rectified=True),
        _float32(tensors["classifier.1.weight"]),
        _float32(tensors["classifier.1.bias"]),
    )


def resize_matrix(source: int, target: int) -> np.ndarray:
    """The triangle filter, widened to the scale when shrinking, as a matrix (target, source) float32; rows sum to 1.

    `augment.eval_view` is this matrix along the rows and the columns of an image.
    """
    step = source / target  # source pixels per target pixel
    centres = (np.arange(target) + 0.5) * step - 0.5
    weights = np.maximum(1 - np.abs(np.arange(source)[None, :] - centres[:, None]) / max(step, 1.0), 0.0)
    return _float32(weights / weights.sum(axis=1, keepdims=True))


def _block_kinds() -> Iterator[tuple[int, int]]:
    """Expansion and stride of every block."""
    for expansion, _, blocks, stride in STAGES:
        for block in range(blocks):
            yield expansion, stride if block == 0 else 1


def _float32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)
