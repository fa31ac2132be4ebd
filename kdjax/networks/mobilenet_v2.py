"""MobileNetV2: Sandler et al., "Inverted Residuals and Linear Bottlenecks", arXiv 1801.04381, table 2."""

import functools
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.networks import inverted_residual, layers
from kdjax.networks.graph import IMAGE, Builder
from kdjax.networks.inverted_residual import Block, InvertedResidual, scaled
from kdjax.networks.model import Model, Place
from kdjax.objective.outputs import Outputs

MEAN, STD = layers.IMAGENET_MEAN, layers.IMAGENET_STD

# Rows of table 2: expansion, output channels, blocks, stride of the first block.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def blocks() -> Iterator[tuple[str, Block]]:
    """Yields the name and description of each block: `block_1` ..."""
    number = 0
    for stage, (expansion, channels, repeats, stride) in enumerate(STAGES):
        for place in range(repeats):
            number += 1
            yield f"block_{number}", Block(stage, place, expansion, channels, stride if place == 0 else 1)


class MobileNetV2(nn.Module):
    """MobileNetV2 over images in [0, 1], (b, H, W, bands); normalized inside.

    Args:
        num_classes: length of the logits.
        width: multiplies every channel count, rounded to multiples of 8; the last layer keeps at least 1280.
        dropout: rate on the pooled features in front of the head.
        form: 'examples_first' (accelerators, export) or 'examples_last' (CPU): how all layers compute and lay out
            their activations. Parameters are the same, values and gradients are equal up to rounding.
        dtype: compute dtype; None = the dtype of the images, at least float32.
        axis_name: mapped device axis; BatchNorm takes its statistics over the batches of all devices on it.
        bands: which bands of the images the network takes, and how they are normalized.

    Parameters: `stem`, `stem_bn`, `block_1` ... `block_17` {expand, expand_bn, depthwise, depthwise_bn, project,
    project_bn}, `last`, `last_bn`, `head`. Source: arXiv 1801.04381 and torchvision.models.mobilenet_v2 for padding,
    rounding, dropout and initialization.
    """

    num_classes: int
    width: float = 1.0
    dropout: float = 0.2
    form: str = "examples_first"
    dtype: jnp.dtype | None = None
    axis_name: str | None = None
    bands: layers.InputBands = layers.InputBands(MEAN, STD)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, example_keys: jax.Array | None = None) -> Outputs:
        """Returns logits (b, num_classes) and the features in front of the head, (b, F).

        Args:
            images: (b, H, W, bands) floats in [0, 1].
            train: whether to use batch statistics instead of running ones, and dropout if `example_keys` are given.
            example_keys: typed keys (b,), one per example; None = no dropout.
        """
        x = layers.normalize(images, self.bands, self.dtype)
        norm = functools.partial(layers.BatchNorm, self.form, 6.0, self.axis_name)
        x = layers.FORMS[self.form].arrange(x)
        x = layers.Convolution(scaled(32 * self.width), self.form, stride=2, name="stem")(x)
        x = norm(name="stem_bn")(x, train)
        for name, block in blocks():
            features = scaled(block.channels * self.width)
            x = InvertedResidual(features, block, self.form, self.axis_name, name=name)(x, train)
        x = layers.Pointwise(scaled(1280 * max(1.0, self.width)), self.form, name="last")(x)
        x = features = layers.FORMS[self.form].average(norm(name="last_bn")(x, train))
        if train and example_keys is not None and self.dropout:
            x = layers.dropout(x, self.dropout, example_keys, 1)
        return Outputs(
            logits=layers.Linear(self.num_classes, name="head")(x), features=features.astype(layers.wide(x.dtype))
        )


LAYERS = {  # name in kdjax: names in (torchvision, timm)
    "stem": ("features.0.0", "conv_stem"),
    "stem_bn": ("features.0.1", "bn1"),
    "last": ("features.18.0", "conv_head"),
    "last_bn": ("features.18.1", "bn2"),
}
EXPANDED = {  # name in kdjax: name in torchvision's block
    "expand": "0.0",
    "expand_bn": "0.1",
    "depthwise": "1.0",
    "depthwise_bn": "1.1",
    "project": "2",
    "project_bn": "3",
}
PLAIN = {  # the same for a block that does not expand
    "depthwise": "0.0",
    "depthwise_bn": "0.1",
    "project": "1",
    "project_bn": "2",
}


def names() -> dict[str, dict[str, Place]]:
    """Returns the place of every layer in torchvision's and timm's files, by its path in kdjax."""
    torchvision = {layer: Place(prefix) for layer, (prefix, _) in LAYERS.items()}
    timm = {layer: Place(prefix) for layer, (_, prefix) in LAYERS.items()}
    for number, (name, block) in enumerate(blocks(), 1):
        for part, prefix in (PLAIN if block.expansion == 1 else EXPANDED).items():
            torchvision[f"{name}/{part}"] = Place(f"features.{number}.conv.{prefix}")
        timm |= inverted_residual.timm_names(name, block)
    head = {"torchvision": Place("classifier.1", linear=True), "timm": Place("classifier", linear=True)}
    return {"torchvision": torchvision | {"head": head["torchvision"]}, "timm": timm | {"head": head["timm"]}}


def graph(draw: Builder) -> str:
    """Draws the network in evaluation and returns its last node."""
    x = draw.rectify(draw.convolution(IMAGE, "stem", norm="stem_bn", stride=2), 6.0)
    for number, (name, block) in enumerate(blocks(), 1):
        x = inverted_residual.graph(draw, x, name, block, sum_name=f"features.{number}")
    x = draw.rectify(draw.convolution(x, "last", norm="last_bn"), 6.0)
    return draw.dense(draw.mean(x), "head")


MODELS = {"mobilenet_v2": Model(MobileNetV2, mean=MEAN, std=STD, names=names(), graph=graph)}
