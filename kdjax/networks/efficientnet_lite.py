"""EfficientNet-Lite 0 to 4: EfficientNet without squeeze-and-excite and with ReLU6, to suit integer kernels.

Tan and Le, "EfficientNet", arXiv 1905.11946, table 1. The differences are from models/official/efficientnet/lite in
TensorFlow's tpu repository: other multipliers; the same width of the stem and of the last convolution in all five
networks; and the same depth of the first and of the last stage.
"""

import functools
import math
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.networks import inverted_residual, layers
from kdjax.networks.graph import IMAGE, Builder
from kdjax.networks.inverted_residual import Block, InvertedResidual, scaled
from kdjax.networks.model import Model, Place
from kdjax.objective.outputs import Outputs

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
EPS = 1e-3
PADDING = "same"

# Rows of table 1: expansion, kernel, output channels, blocks, stride of the first block.
STAGES = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)
STEM, LAST = 32, 1280
SIZES = {  # multipliers of the channels and blocks of the stages; dropout
    "efficientnet_lite0": (1.0, 1.0, 0.2),
    "efficientnet_lite1": (1.0, 1.1, 0.2),
    "efficientnet_lite2": (1.1, 1.2, 0.3),
    "efficientnet_lite3": (1.2, 1.4, 0.3),
    "efficientnet_lite4": (1.4, 1.8, 0.3),
}


def blocks(depth: float) -> Iterator[tuple[str, Block]]:
    """Yields the name and description of each block: `stage_1_block_1` ..."""
    for stage, (expansion, size, channels, repeats, stride) in enumerate(STAGES):
        fixed = stage in (0, len(STAGES) - 1)
        for place in range(repeats if fixed else math.ceil(repeats * depth)):
            block = Block(stage, place, expansion, channels, stride if place == 0 else 1, size)
            yield f"stage_{stage + 1}_block_{place + 1}", block


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite over images in [0, 1], (b, H, W, bands); normalized inside.

    Args:
        num_classes: length of the logits.
        width: multiplies every channel count, rounded to multiples of 8; the last layer keeps at least 1280.
        dropout: rate on the pooled features in front of the head.
        form: 'examples_first' (accelerators, export) or 'examples_last' (CPU): how all layers compute and lay out
            their activations. Parameters are the same, values and gradients are equal up to rounding.
        dtype: compute dtype; None = the dtype of the images, at least float32.
        axis_name: mapped device axis; BatchNorm takes its statistics over the batches of all devices on it.
        bands: which bands of the images the network takes, and how they are normalized.
        channels: the published multiplier of the stages' channels, in addition to `width`.
        depth: the published multiplier of the number of blocks in a stage, rounded up.

    Parameters: `stem`, `stem_bn`, `stage_1_block_1` ... {expand, expand_bn, depthwise, depthwise_bn, project,
    project_bn}, `last`, `last_bn`, `head`. Padding is TensorFlow's and so depends on the size of the image.
    Source: arXiv 1905.11946 and timm's tf_efficientnet_lite0 ... 4 for rounding and BatchNorm's eps; initialization as
    in torchvision's MobileNetV2.
    """

    num_classes: int
    width: float = 1.0
    dropout: float = 0.2
    form: str = "examples_first"
    dtype: jnp.dtype | None = None
    axis_name: str | None = None
    bands: layers.InputBands = layers.InputBands(MEAN, STD)
    channels: float = 1.0
    depth: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, example_keys: jax.Array | None = None) -> Outputs:
        """Returns logits (b, num_classes) and the features in front of the head, (b, F).

        Args:
            images: (b, H, W, bands) floats in [0, 1].
            train: whether to use batch statistics instead of running ones, and dropout if `example_keys` are given.
            example_keys: typed keys (b,), one per example; None = no dropout.
        """
        norm = functools.partial(layers.BatchNorm, self.form, 6.0, self.axis_name, EPS)
        x = layers.FORMS[self.form].arrange(layers.normalize(images, self.bands, self.dtype))
        x = layers.Convolution(scaled(STEM * self.width), self.form, stride=2, padding=PADDING, name="stem")(x)
        x = norm(name="stem_bn")(x, train)
        for name, block in blocks(self.depth):
            features = scaled(block.channels * self.channels * self.width)
            x = InvertedResidual(features, block, self.form, self.axis_name, PADDING, EPS, name=name)(x, train)
        x = layers.Pointwise(scaled(LAST * max(1.0, self.width)), self.form, name="last")(x)
        x = features = layers.FORMS[self.form].average(norm(name="last_bn")(x, train))
        if train and example_keys is not None and self.dropout:
            x = layers.dropout(x, self.dropout, example_keys, 1)
        return Outputs(
            logits=layers.Linear(self.num_classes, name="head")(x), features=features.astype(layers.wide(x.dtype))
        )


LAYERS = {  # name in kdjax: name in timm
    "stem": Place("conv_stem"),
    "stem_bn": Place("bn1"),
    "last": Place("conv_head"),
    "last_bn": Place("bn2"),
    "head": Place("classifier", linear=True),
}


def names(depth: float) -> dict[str, dict[str, Place]]:
    """Returns the place of every layer in timm's files, by its path in kdjax."""
    parts = [inverted_residual.timm_names(name, block) for name, block in blocks(depth)]
    return {"timm": functools.reduce(dict.__or__, parts, LAYERS)}


def graph(draw: Builder, depth: float) -> str:
    """Draws the network in evaluation and returns its last node."""
    x = draw.rectify(draw.convolution(IMAGE, "stem", norm="stem_bn", eps=EPS, stride=2, padding=PADDING), 6.0)
    for name, block in blocks(depth):
        sum_name = f"blocks.{block.stage}.{block.place}"
        x = inverted_residual.graph(draw, x, name, block, sum_name=sum_name, padding=PADDING, eps=EPS)
    x = draw.rectify(draw.convolution(x, "last", norm="last_bn", eps=EPS), 6.0)
    return draw.dense(draw.mean(x), "head")


# Weights that timm trained itself, with PyTorch's padding and eps and with ImageNet's mean and standard deviation.
UNLIKE = {
    rf"timm(/|--)efficientnet_lite{size}|(?<!tf_)efficientnet_lite{size}[._]ra(_in1k|-)": (
        f"timm/tf_efficientnet_lite{size}.in1k"
    )
    for size in range(len(SIZES))
}


def _model(channels: float, depth: float, dropout: float) -> Model:
    return Model(
        functools.partial(EfficientNetLite, channels=channels, depth=depth, dropout=dropout),
        mean=MEAN,
        std=STD,
        names=names(depth),
        graph=functools.partial(graph, depth=depth),
        unlike=UNLIKE,
    )


MODELS = {name: _model(*size) for name, size in SIZES.items()}
