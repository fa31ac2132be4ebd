"""MobileNetV2: Sandler et al., "Inverted Residuals and Linear Bottlenecks", arXiv 1801.04381, table 2."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.networks import layers
from kdjax.networks.graph import IMAGE, Builder
from kdjax.networks.model import Model, Place
from kdjax.objective.outputs import Outputs

MEAN, STD = layers.IMAGENET_MEAN, layers.IMAGENET_STD

# Rows of table 2: expansion, output channels, blocks, stride of the first block.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class Block(NamedTuple):
    """One inverted residual of table 2: its row, its place there, and what it does."""

    stage: int
    place: int
    expansion: int
    channels: int
    stride: int


def blocks() -> Iterator[tuple[str, Block]]:
    """The blocks, by their names here: `block_1` ..."""
    number = 0
    for stage, (expansion, channels, repeats, stride) in enumerate(STAGES):
        for place in range(repeats):
            number += 1
            yield f"block_{number}", Block(stage, place, expansion, channels, stride if place == 0 else 1)


def scaled(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and never below nine tenths (torchvision's _make_divisible)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; the input is added where shapes allow."""

    features: int
    expansion: int
    stride: int
    form: str
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm = functools.partial(layers.BatchNorm, self.form, axis_name=self.axis_name)
        channels = x.shape[layers.FORMS[self.form].CHANNEL_AXIS]
        y = x
        if self.expansion != 1:
            y = layers.Pointwise(self.expansion * channels, self.form, name="expand")(y)
            y = norm(ceiling=6.0, name="expand_bn")(y, train)
        y = layers.Depthwise(self.stride, self.form, name="depthwise")(y)
        y = norm(ceiling=6.0, name="depthwise_bn")(y, train)
        y = layers.Pointwise(self.features, self.form, name="project")(y)
        y = norm(name="project_bn")(y, train)
        return x + y if self.stride == 1 and channels == self.features else y


class MobileNetV2(nn.Module):
    """MobileNetV2 over RGB images in [0, 1], (b, H, W, 3); normalized inside.

    Args:
        num_classes: length of the logits.
        width: multiplies every channel count, rounded to multiples of 8; the last layer keeps at least 1280.
        dropout: rate on the pooled features in front of the head.
        form: 'examples_first' (accelerators, export) or 'examples_last' (CPU): how all layers compute and lay out
            their activations; the same parameters, and values and gradients equal to rounding.
        dtype: compute dtype; None is that of the images, at least float32.
        axis_name: mapped axis of devices whose batches BatchNorm takes together.

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

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, example_keys: jax.Array | None = None) -> Outputs:
        """Logits (b, num_classes) and the features in front of the head, (b, F).

        Args:
            images: (b, H, W, 3) floats in [0, 1].
            train: batch statistics instead of running ones, and dropout where `example_keys` are given.
            example_keys: typed keys (b,), one an example; None means no dropout.
        """
        x = layers.normalize(images, MEAN, STD, self.dtype)
        norm = functools.partial(layers.BatchNorm, self.form, 6.0, self.axis_name)
        x = layers.FORMS[self.form].arrange(x)
        x = layers.Convolution(scaled(32 * self.width), self.form, stride=2, name="stem")(x)
        x = norm(name="stem_bn")(x, train)
        for name, block in blocks():
            features = scaled(block.channels * self.width)
            x = InvertedResidual(features, block.expansion, block.stride, self.form, self.axis_name, name=name)(
                x, train
            )
        x = layers.Pointwise(scaled(1280 * max(1.0, self.width)), self.form, name="last")(x)
        x = features = layers.FORMS[self.form].average(norm(name="last_bn")(x, train))
        if train and example_keys is not None and self.dropout:
            x = layers.dropout(x, self.dropout, example_keys, 1)
        return Outputs(
            logits=layers.Linear(self.num_classes, name="head")(x), features=features.astype(layers.wide(x.dtype))
        )


LAYERS = {  # here: (torchvision, timm)
    "stem": ("features.0.0", "conv_stem"),
    "stem_bn": ("features.0.1", "bn1"),
    "last": ("features.18.0", "conv_head"),
    "last_bn": ("features.18.1", "bn2"),
}
EXPANDED = {  # in a block
    "expand": ("0.0", "conv_pw"),
    "expand_bn": ("0.1", "bn1"),
    "depthwise": ("1.0", "conv_dw"),
    "depthwise_bn": ("1.1", "bn2"),
    "project": ("2", "conv_pwl"),
    "project_bn": ("3", "bn3"),
}
PLAIN = {  # in a block that does not expand
    "depthwise": ("0.0", "conv_dw"),
    "depthwise_bn": ("0.1", "bn1"),
    "project": ("1", "conv_pw"),
    "project_bn": ("2", "bn2"),
}


def names() -> dict[str, dict[str, Place]]:
    """The tables above, of all blocks."""
    torchvision = {layer: Place(theirs) for layer, (theirs, _) in LAYERS.items()}
    timm = {layer: Place(theirs) for layer, (_, theirs) in LAYERS.items()}
    for number, (name, block) in enumerate(blocks(), 1):
        for part, theirs in (PLAIN if block.expansion == 1 else EXPANDED).items():
            torchvision[f"{name}/{part}"] = Place(f"features.{number}.conv.{theirs[0]}")
            timm[f"{name}/{part}"] = Place(f"blocks.{block.stage}.{block.place}.{theirs[1]}")
    head = {"torchvision": Place("classifier.1", linear=True), "timm": Place("classifier", linear=True)}
    return {"torchvision": torchvision | {"head": head["torchvision"]}, "timm": timm | {"head": head["timm"]}}


def graph(draw: Builder) -> str:
    """The network in evaluation."""

    def convolution(x: str, layer: str, stride: int = 1) -> str:
        return draw.convolution(x, layer, norm=f"{layer}_bn", stride=stride)

    x = draw.rectify(convolution(IMAGE, "stem", 2), 6.0)
    for number, (name, block) in enumerate(blocks(), 1):
        y = x if block.expansion == 1 else draw.rectify(convolution(x, f"{name}/expand"), 6.0)
        y = draw.rectify(convolution(y, f"{name}/depthwise", block.stride), 6.0)
        y = convolution(y, f"{name}/project")
        summed = block.stride == 1 and draw.shapes[x] == draw.shapes[y]
        x = draw.add(x, y, f"features.{number}") if summed else y
    return draw.dense(draw.mean(draw.rectify(convolution(x, "last"), 6.0)), "head")


MODELS = {"mobilenet_v2": Model(MobileNetV2, mean=MEAN, std=STD, names=names(), graph=graph)}
