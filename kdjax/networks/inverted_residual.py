"""The block of MobileNetV2 and EfficientNet-Lite: expand, filter each channel, project.

Sandler et al., "Inverted Residuals and Linear Bottlenecks", arXiv 1801.04381, section 3.3.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax

from kdjax.networks import layers
from kdjax.networks.graph import Builder
from kdjax.networks.model import Place


class Block(NamedTuple):
    """One inverted residual: the row of the table (`stage`), its place among that row's blocks, and its settings."""

    stage: int
    place: int
    expansion: int
    channels: int
    stride: int
    size: int = 3


def scaled(channels: float) -> int:
    """Rounds to a multiple of 8, at least 8 and never below 0.9 * channels, as torchvision's _make_divisible does."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class InvertedResidual(nn.Module):
    """Expands, filters each channel and projects; adds the input if the shapes are equal.

    Args:
        features: number of output channels.
        block: the block; its `channels`, which are those at width 1, are not read.
        form: the form of the network.
        axis_name: the network's mapped device axis.
        padding: one of `padding.PADDINGS`.
        eps: of every BatchNorm.
    """

    features: int
    block: Block
    form: str
    axis_name: str | None
    padding: str = "around"
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm = functools.partial(layers.BatchNorm, self.form, axis_name=self.axis_name, eps=self.eps)
        channels, block = x.shape[layers.FORMS[self.form].CHANNEL_AXIS], self.block
        y = x
        if block.expansion != 1:
            y = layers.Pointwise(block.expansion * channels, self.form, name="expand")(y)
            y = norm(ceiling=6.0, name="expand_bn")(y, train)
        y = layers.Depthwise(block.stride, self.form, block.size, self.padding, name="depthwise")(y)
        y = norm(ceiling=6.0, name="depthwise_bn")(y, train)
        y = layers.Pointwise(self.features, self.form, name="project")(y)
        y = norm(name="project_bn")(y, train)
        return x + y if block.stride == 1 and channels == self.features else y


EXPANDED = {  # name in kdjax: name in timm
    "expand": "conv_pw",
    "expand_bn": "bn1",
    "depthwise": "conv_dw",
    "depthwise_bn": "bn2",
    "project": "conv_pwl",
    "project_bn": "bn3",
}
PLAIN = {  # the same for a block that does not expand
    "depthwise": "conv_dw",
    "depthwise_bn": "bn1",
    "project": "conv_pw",
    "project_bn": "bn2",
}


def timm_names(layer: str, block: Block) -> dict[str, Place]:
    """Returns the place in timm's files of every layer of the block called `layer`, by its path in kdjax."""
    parts = PLAIN if block.expansion == 1 else EXPANDED
    return {f"{layer}/{part}": Place(f"blocks.{block.stage}.{block.place}.{name}") for part, name in parts.items()}


def graph(
    draw: Builder, x: str, layer: str, block: Block, *, sum_name: str, padding: str = "around", eps: float = 1e-5
) -> str:
    """Draws the block called `layer` in evaluation, which reads x; returns its last node.

    `sum_name` is the name of the node that adds the input, if there is one.
    """

    def convolution(x: str, part: str, stride: int = 1) -> str:
        part = f"{layer}/{part}"
        return draw.convolution(x, part, norm=f"{part}_bn", eps=eps, stride=stride, padding=padding)

    y = x if block.expansion == 1 else draw.rectify(convolution(x, "expand"), 6.0)
    y = draw.rectify(convolution(y, "depthwise", block.stride), 6.0)
    y = convolution(y, "project")
    return draw.add(x, y, sum_name) if block.stride == 1 and draw.shapes[x] == draw.shapes[y] else y
