"""ResNet 18, 34 and 50: He et al., "Deep Residual Learning", arXiv 1512.03385, table 1, in torchvision's variant.

In that variant ("ResNet v1.5") the 3 x 3 convolution of a bottleneck has the stride, not the first convolution.
"""

import functools
import math
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

BASE = 64
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}  # blocks of each stage
BOTTLENECKS = ("resnet50",)
EXPANSION = 4  # output channels of a bottleneck, over the channels of its 3 x 3 convolution


class Block(NamedTuple):
    """One residual block: its stage, its place in that stage (both from 0), and the stride of its 3 x 3 convolution."""

    stage: int
    place: int
    stride: int


def blocks(model: str) -> Iterator[tuple[str, Block]]:
    """Yields the name and description of each block: `stage_1_block_1` ..."""
    for stage, repeats in enumerate(DEPTHS[model]):
        for place in range(repeats):
            yield f"stage_{stage + 1}_block_{place + 1}", Block(stage, place, 2 if stage > 0 and place == 0 else 1)


class ConvolutionShape(NamedTuple):
    """One convolution of a block: side of its kernel, factor of its output channels over the block's, and stride."""

    size: int
    expansion: int
    stride: int


def convolutions(stride: int, bottleneck: bool) -> tuple[ConvolutionShape, ...]:
    """Returns the convolutions of a block, in order."""
    if bottleneck:
        return ConvolutionShape(1, 1, 1), ConvolutionShape(3, 1, stride), ConvolutionShape(1, EXPANSION, 1)
    return ConvolutionShape(3, 1, stride), ConvolutionShape(3, 1, 1)


class Residual(nn.Module):
    """Two or three convolutions with BatchNorm, plus the input, which is projected if the shapes differ."""

    features: int
    stride: int
    bottleneck: bool
    form: str
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm = functools.partial(layers.BatchNorm, self.form, axis_name=self.axis_name)
        axis = layers.FORMS[self.form].CHANNEL_AXIS
        y, plan = x, convolutions(self.stride, self.bottleneck)
        for number, (size, expansion, stride) in enumerate(plan, 1):
            features, name = self.features * expansion, f"conv_{number}"
            if size == 1:
                y = layers.Pointwise(features, self.form, stride, name=name)(y)
            else:
                y = layers.Convolution(features, self.form, stride, size=size, name=name)(y)
            y = norm(math.inf if number < len(plan) else None, name=f"{name}_bn")(y, train)
        if self.stride > 1 or x.shape[axis] != y.shape[axis]:
            x = layers.Pointwise(y.shape[axis], self.form, self.stride, name="shortcut")(x)
            x = norm(name="shortcut_bn")(x, train)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet over images in [0, 1], (b, H, W, bands); normalized inside.

    Args:
        num_classes: length of the logits.
        width: multiplies every channel count; those of the 3 x 3 convolutions are rounded to multiples of 8.
        dropout: rate on the pooled features in front of the head.
        form: 'examples_first' (accelerators, export) or 'examples_last' (CPU): how all layers compute and lay out
            their activations. Parameters are the same, values and gradients are equal up to rounding.
        dtype: compute dtype; None = the dtype of the images, at least float32.
        axis_name: mapped device axis; BatchNorm takes its statistics over the batches of all devices on it.
        bands: which bands of the images the network takes, and how they are normalized.
        model: name of the network, a key of `DEPTHS`.

    Parameters: `stem`, `stem_bn`, `stage_1_block_1` ... {conv_1, conv_1_bn, ..., shortcut, shortcut_bn}, `head`.
    Source: arXiv 1512.03385 and torchvision.models.resnet for strides, padding and initialization. The head is
    initialized as in torchvision's MobileNetV2.
    """

    num_classes: int
    width: float = 1.0
    dropout: float = 0.0
    form: str = "examples_first"
    dtype: jnp.dtype | None = None
    axis_name: str | None = None
    bands: layers.InputBands = layers.InputBands(MEAN, STD)
    model: str = "resnet18"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, example_keys: jax.Array | None = None) -> Outputs:
        """Returns logits (b, num_classes) and the features in front of the head, (b, F).

        Args:
            images: (b, H, W, bands) floats in [0, 1].
            train: whether to use batch statistics instead of running ones, and dropout if `example_keys` are given.
            example_keys: typed keys (b,), one per example; None = no dropout.
        """
        form, bottleneck = layers.FORMS[self.form], self.model in BOTTLENECKS
        x = form.arrange(layers.normalize(images, self.bands, self.dtype))
        x = layers.Convolution(layers.scaled(BASE * self.width), self.form, 2, size=7, name="stem")(x)
        x = layers.BatchNorm(self.form, math.inf, self.axis_name, name="stem_bn")(x, train)
        x = form.max_pool(x, 3, 2, 1)
        for name, block in blocks(self.model):
            features = layers.scaled(BASE * 2**block.stage * self.width)
            x = Residual(features, block.stride, bottleneck, self.form, self.axis_name, name=name)(x, train)
        x = features = form.average(x)
        if train and example_keys is not None and self.dropout:
            x = layers.dropout(x, self.dropout, example_keys, 1)
        return Outputs(
            logits=layers.Linear(self.num_classes, name="head")(x), features=features.astype(layers.wide(x.dtype))
        )


def names(model: str) -> dict[str, dict[str, Place]]:
    """Returns the place of every layer in torchvision's files, by its path in kdjax. timm uses the same names."""
    places = {"stem": Place("conv1"), "stem_bn": Place("bn1"), "head": Place("fc", linear=True)}
    for name, block in blocks(model):
        prefix = f"layer{block.stage + 1}.{block.place}"
        for number, _ in enumerate(convolutions(block.stride, model in BOTTLENECKS), 1):
            places[f"{name}/conv_{number}"] = Place(f"{prefix}.conv{number}")
            places[f"{name}/conv_{number}_bn"] = Place(f"{prefix}.bn{number}")
        places[f"{name}/shortcut"] = Place(f"{prefix}.downsample.0")
        places[f"{name}/shortcut_bn"] = Place(f"{prefix}.downsample.1")
    return {"torchvision": places}


def graph(draw: Builder, model: str) -> str:
    """Draws the network in evaluation and returns its last node."""

    def convolution(x: str, layer: str, stride: int) -> str:
        return draw.convolution(x, layer, norm=f"{layer}_bn", stride=stride)

    x = draw.max_pool(draw.rectify(convolution(IMAGE, "stem", 2)), 3, 2, 1)
    for name, block in blocks(model):
        y, plan = x, convolutions(block.stride, model in BOTTLENECKS)
        for number, (_, _, stride) in enumerate(plan, 1):
            y = convolution(y, f"{name}/conv_{number}", stride)
            y = draw.rectify(y) if number < len(plan) else y
        if draw.has(f"{name}/shortcut"):
            x = convolution(x, f"{name}/shortcut", block.stride)
        x = draw.rectify(draw.add(x, y, f"layer{block.stage + 1}.{block.place}"))
    return draw.dense(draw.mean(x), "head")


def _model(name: str) -> Model:
    return Model(
        functools.partial(ResNet, model=name),
        mean=MEAN,
        std=STD,
        names=names(name),
        # These have other pixel statistics, or pooling in place of strides.
        unlike={r"ra4_e3600|resnet(aa|blur)\d": f"timm/{name}.a1_in1k"},
        graph=functools.partial(graph, model=name),
    )


MODELS = {name: _model(name) for name in DEPTHS}
