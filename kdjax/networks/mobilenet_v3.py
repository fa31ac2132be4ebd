"""MobileNetV3: Howard et al., "Searching for MobileNetV3", arXiv 1905.02244, tables 1 and 2."""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.networks import layers
from kdjax.networks.forms.activations import hard_swish
from kdjax.networks.graph import IMAGE, Builder
from kdjax.networks.inverted_residual import EXPANDED, PLAIN, scaled
from kdjax.networks.model import Model, Place
from kdjax.objective.outputs import Outputs

MEAN, STD = layers.IMAGENET_MEAN, layers.IMAGENET_STD
EPS = {"torchvision": 1e-3, "timm": 1e-5}  # of BatchNorm in the published networks
STEM = 16
PUBLISHED = {"large": "timm/mobilenetv3_large_100.ra_in1k", "small": "timm/mobilenetv3_small_100.lamb_in1k"}

# Rows of the tables: side of the depthwise kernel, expanded channels, output channels, whether it squeezes and excites,
# whether it uses hard swish (else ReLU), stride.
ROWS = {
    "large": (  # table 1
        (3, 16, 16, False, False, 1),
        (3, 64, 24, False, False, 2),
        (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2),
        (5, 120, 40, True, False, 1),
        (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 480, 112, True, True, 1),
        (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2),
        (5, 960, 160, True, True, 1),
        (5, 960, 160, True, True, 1),
    ),
    "small": (  # table 2
        (3, 16, 16, True, False, 2),
        (3, 72, 24, False, False, 2),
        (3, 88, 24, False, False, 1),
        (5, 96, 40, True, True, 2),
        (5, 240, 40, True, True, 1),
        (5, 240, 40, True, True, 1),
        (5, 120, 48, True, True, 1),
        (5, 144, 48, True, True, 1),
        (5, 288, 96, True, True, 2),
        (5, 576, 96, True, True, 1),
        (5, 576, 96, True, True, 1),
    ),
}
HIDDEN = {"large": 1280, "small": 1024}  # features of the layer between the average and the head


class Block(NamedTuple):
    """One inverted residual: its stage and place in timm, whether it expands, and its row of the table.

    A stage of timm holds the consecutive blocks with the same number of output channels.
    """

    stage: int
    place: int
    expands: bool
    kernel: int
    expanded: int
    channels: int
    excites: bool
    hard_swish: bool
    stride: int


def blocks(size: str) -> Iterator[tuple[str, Block]]:
    """Yields the name and description of each block of 'small' or 'large': `block_1` ..."""
    stage, place, channels = -1, 0, STEM
    for number, row in enumerate(ROWS[size], 1):
        _, expanded, outputs, *_ = row
        stage, place = (stage + 1, 0) if number == 1 or outputs != channels else (stage, place + 1)
        yield f"block_{number}", Block(stage, place, expanded != channels, *row)
        channels = outputs


class InvertedResidual(nn.Module):
    """Expands, filters each channel, excites and projects; adds the input if the shapes are equal."""

    block: Block
    width: float
    form: str
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        block, form = self.block, self.form
        norm = batch_norm(form, self.axis_name)
        ceiling = None if block.hard_swish else math.inf
        activated = functools.partial(norm, ceiling=ceiling, hard_swish=block.hard_swish)
        channels, expanded = x.shape[layers.FORMS[form].CHANNEL_AXIS], scaled(block.expanded * self.width)
        features = scaled(block.channels * self.width)
        y = x
        if block.expands:
            y = activated(name="expand_bn")(layers.Pointwise(expanded, form, name="expand")(y), train)
        y = layers.Depthwise(block.stride, form, block.kernel, name="depthwise")(y)
        y = activated(name="depthwise_bn")(y, train)
        if block.excites:
            y = layers.SqueezeExcite(scaled(expanded // 4), form, name="excite")(y)
        y = norm(name="project_bn")(layers.Pointwise(features, form, name="project")(y), train)
        return x + y if block.stride == 1 and channels == features else y


def batch_norm(form: str, axis_name: str | None) -> functools.partial[layers.BatchNorm]:
    """Returns BatchNorm with the eps of torchvision's MobileNetV3.

    The running statistics move by a tenth per step, as in timm. With torchvision's hundredth, a run of a few hundred
    steps would be evaluated with statistics of much earlier weights.
    """
    return functools.partial(layers.BatchNorm, form, axis_name=axis_name, eps=EPS["torchvision"])


class MobileNetV3(nn.Module):
    """MobileNetV3 over images in [0, 1], (b, H, W, bands); normalized inside.

    Args:
        num_classes: length of the logits.
        size: 'small' or 'large', the table of blocks.
        width: multiplies every channel count, including those of the last layers, rounded to multiples of 8.
        dropout: rate on the features in front of the head.
        form: 'examples_first' (accelerators, export) or 'examples_last' (CPU): how all layers compute and lay out
            their activations. Parameters are the same, values and gradients are equal up to rounding.
        dtype: compute dtype; None = the dtype of the images, at least float32.
        axis_name: mapped device axis; BatchNorm takes its statistics over the batches of all devices on it.
        bands: which bands of the images the network takes, and how they are normalized.

    Parameters: `stem`, `stem_bn`, `block_1` ... {expand, expand_bn, depthwise, depthwise_bn, excite, project,
    project_bn}, `last`, `last_bn`, `hidden`, `head`. Every block but the first expands, at any width. (Below a
    width of 0.14, torchvision leaves out an expansion that rounding turns into one to the same number of channels.)
    Source: arXiv 1905.02244 and torchvision.models.mobilenet_v3 for padding, rounding, BatchNorm, dropout and
    initialization.
    """

    num_classes: int
    size: str = "large"
    width: float = 1.0
    dropout: float = 0.2
    form: str = "examples_first"
    dtype: jnp.dtype | None = None
    axis_name: str | None = None
    bands: layers.InputBands = layers.InputBands(MEAN, STD)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, example_keys: jax.Array | None = None) -> Outputs:
        """Returns logits (b, num_classes) and the features that the head reads, (b, F), from the hidden layer.

        Args:
            images: (b, H, W, bands) floats in [0, 1].
            train: whether to use batch statistics instead of running ones, and dropout if `example_keys` are given.
            example_keys: typed keys (b,), one per example; None = no dropout.
        """
        x = layers.normalize(images, self.bands, self.dtype)
        dtype = x.dtype
        norm = functools.partial(batch_norm(self.form, self.axis_name), hard_swish=True)
        x = layers.FORMS[self.form].arrange(x)
        x = layers.Convolution(scaled(STEM * self.width), self.form, stride=2, name="stem")(x)
        x = norm(name="stem_bn")(x, train)
        for name, block in blocks(self.size):
            x = InvertedResidual(block, self.width, self.form, self.axis_name, name=name)(x, train)
        x = layers.Pointwise(6 * x.shape[layers.FORMS[self.form].CHANNEL_AXIS], self.form, name="last")(x)
        x = layers.FORMS[self.form].average(norm(name="last_bn")(x, train))
        x = layers.Linear(scaled(HIDDEN[self.size] * self.width), name="hidden")(x)
        x = features = hard_swish(x).astype(dtype)
        if train and example_keys is not None and self.dropout:
            x = layers.dropout(x, self.dropout, example_keys, 1)
        return Outputs(
            logits=layers.Linear(self.num_classes, name="head")(x), features=features.astype(layers.wide(dtype))
        )


def names(size: str) -> dict[str, dict[str, Place]]:
    """Returns the place of every layer in torchvision's and timm's files, by its path in kdjax.

    timm's `tf_mobilenetv3_*` use the same names and shapes with other padding, and some of timm's weights expect other
    pixel statistics. They do not fit this network, although nothing inside the files shows that.
    """
    *_, (_, deepest) = blocks(size)
    last, stage = len(ROWS[size]) + 1, deepest.stage + 1
    torchvision = {"stem": Place("features.0.0"), "stem_bn": Place("features.0.1")}
    timm = {"stem": Place("conv_stem"), "stem_bn": Place("bn1")}
    for number, (name, block) in enumerate(blocks(size), 1):
        for part, prefix in _torchvision_names(block).items():
            torchvision[f"{name}/{part}"] = Place(f"features.{number}.block.{prefix}")
        for part, prefix in _timm_names(block).items():
            timm[f"{name}/{part}"] = Place(f"blocks.{block.stage}.{block.place}.{prefix}")
    torchvision |= {
        "last": Place(f"features.{last}.0"),
        "last_bn": Place(f"features.{last}.1"),
        "hidden": Place("classifier.0", linear=True),
        "head": Place("classifier.3", linear=True),
    }
    timm |= {
        "last": Place(f"blocks.{stage}.0.conv"),
        "last_bn": Place(f"blocks.{stage}.0.bn1"),
        "hidden": Place("conv_head"),
        "head": Place("classifier", linear=True),
    }
    return {"torchvision": torchvision, "timm": timm}


def _torchvision_names(block: Block) -> dict[str, str]:
    parts = ["expand"] * block.expands + ["depthwise"] + ["excite"] * block.excites + ["project"]
    prefixes: dict[str, str] = {}
    for place, part in enumerate(parts):
        if part == "excite":
            prefixes |= {"excite/reduce": f"{place}.fc1", "excite/expand": f"{place}.fc2"}
        else:
            prefixes |= {part: f"{place}.0", f"{part}_bn": f"{place}.1"}
    return prefixes


def _timm_names(block: Block) -> dict[str, str]:
    excite = {"excite/reduce": "se.conv_reduce", "excite/expand": "se.conv_expand"} if block.excites else {}
    return (EXPANDED if block.expands else PLAIN) | excite


def graph(draw: Builder, size: str) -> str:
    """Draws the network in evaluation and returns its last node."""

    def convolution(x: str, layer: str, stride: int = 1) -> str:
        return draw.convolution(x, layer, norm=f"{layer}_bn", eps=EPS["torchvision"], stride=stride)

    def excited(x: str, layer: str) -> str:
        hidden = draw.rectify(draw.dense(draw.mean(x), f"{layer}/reduce"))
        return draw.scale(x, draw.hard_sigmoid(draw.dense(hidden, f"{layer}/expand")))

    x = draw.hard_swish(convolution(IMAGE, "stem", 2))
    for number, (name, block) in enumerate(blocks(size), 1):
        activated = draw.hard_swish if block.hard_swish else draw.rectify
        y = activated(convolution(x, f"{name}/expand")) if block.expands else x
        y = activated(convolution(y, f"{name}/depthwise", block.stride))
        y = excited(y, f"{name}/excite") if block.excites else y
        y = convolution(y, f"{name}/project")
        summed = block.stride == 1 and draw.shapes[x] == draw.shapes[y]
        x = draw.add(x, y, f"features.{number}") if summed else y
    x = draw.mean(draw.hard_swish(convolution(x, "last")))
    return draw.dense(draw.hard_swish(draw.dense(x, "hidden")), "head")


def model(size: str) -> Model:
    """Returns the registry's entry for 'small' or 'large'."""
    return Model(
        functools.partial(MobileNetV3, size=size),
        mean=MEAN,
        std=STD,
        names=names(size),
        eps=EPS,
        unlike={"miil_in21k|ra4_e3600|tf_mobilenetv3": PUBLISHED[size]},  # other pixel statistics, or padding
        graph=functools.partial(graph, size=size),
    )


MODELS = {f"mobilenet_v3_{size}": model(size) for size in ROWS}
