"""The block of MobileNetV2 and of the mobile networks after it: expand, filter each channel, project.

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
    """One inverted residual of a table: its row, its place there, and what it does."""

    stage: int
    place: int
    expansion: int
    channels: int
    stride: int
    size: int = 3


def scaled(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and never below nine tenths (torchvision's _make_divisible)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; the input is added where shapes allow.

    Args:
        features: channels of the result.
        block: what it does; its `channels` are those at width 1 and are not read.
        form: as in the network.
        axis_name: as in the network.
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


EXPANDED = {  # in timm
    "expand": "conv_pw",
    "expand_bn": "bn1",
    "depthwise": "conv_dw",
    "depthwise_bn": "bn2",
    "project": "conv_pwl",
    "project_bn": "bn3",
}
PLAIN = {  # in timm, of a block that does not expand
    "depthwise": "conv_dw",
    "depthwise_bn": "bn1",
    "project": "conv_pw",
    "project_bn": "bn2",
}


def timm_names(layer: str, block: Block) -> dict[str, Place]:
    """timm's place of every layer of the block called `layer`, by its path here."""
    parts = PLAIN if block.expansion == 1 else EXPANDED
    return {f"{layer}/{part}": Place(f"blocks.{block.stage}.{block.place}.{name}") for part, name in parts.items()}


def graph(
    draw: Builder, x: str, layer: str, block: Block, *, total: str, padding: str = "around", eps: float = 1e-5
) -> str:
    """The block called `layer` in evaluation, reading x; `total` is the name of its sum."""

    def convolution(x: str, part: str, stride: int = 1) -> str:
        part = f"{layer}/{part}"
        return draw.convolution(x, part, norm=f"{part}_bn", eps=eps, stride=stride, padding=padding)

    y = x if block.expansion == 1 else draw.rectify(convolution(x, "expand"), 6.0)
    y = draw.rectify(convolution(y, "depthwise", block.stride), 6.0)
    y = convolution(y, "project")
    return draw.add(x, y, total) if block.stride == 1 and draw.shapes[x] == draw.shapes[y] else y
