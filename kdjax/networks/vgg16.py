"""VGG16: Simonyan and Zisserman, "Very Deep Convolutional Networks", arXiv 1409.1556, configuration D."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.networks import layers
from kdjax.networks.graph import IMAGE, Builder
from kdjax.networks.model import Model, Place
from kdjax.objective.outputs import Outputs

MEAN, STD = layers.IMAGENET_MEAN, layers.IMAGENET_STD

# Output channels of the thirteen convolutions, block by block. Each block ends with a 2 x 2 maximum.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class FullyConnected(nn.Module):
    """The paper's head: 7 x 7 cells, two hidden layers of 4096 (at width 1) with ReLU and dropout, then the logits."""

    num_classes: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, example_keys: jax.Array | None) -> Outputs:
        dtype = x.dtype
        x = layers.adaptive_average_pool(x, 7).reshape(x.shape[0], -1)
        for number in (1, 2):
            x = features = nn.relu(layers.Linear(self.hidden, name=f"fc_{number}")(x)).astype(dtype)
            if example_keys is not None and self.dropout:
                x = layers.dropout(x, self.dropout, example_keys, number)
        return Outputs(
            logits=layers.Linear(self.num_classes, name="logits")(x), features=features.astype(layers.wide(dtype))
        )


class VGG16(nn.Module):
    """VGG16 over images in [0, 1], (b, H, W, bands) with H, W at least 32; normalized inside.

    Args:
        num_classes: length of the logits.
        width: multiplies every channel count, rounded to multiples of 8, and the hidden layers of the 'fc' head.
        head: 'average' for a global average pool and one linear layer, 'fc' for the paper's 4096-4096 head.
        dropout: rate on the pooled features ('average') or after each hidden layer ('fc', 0.5 in the paper).
        form: 'examples_first' (accelerators, export) or 'examples_last' (CPU): how all layers compute and lay out
            their activations. Parameters are the same, values and gradients are equal up to rounding.
        batch_norm: whether there is a BatchNorm between each convolution and its ReLU (torchvision's vgg16_bn).
        dtype: compute dtype; None = the dtype of the images, at least float32.
        axis_name: mapped device axis; BatchNorm takes its statistics over the batches of all devices on it.
        bands: which bands of the images the network takes, and how they are normalized.

    Parameters: `conv_1` ... `conv_13` {kernel (3, 3, I, O), bias}, `bn_1` ... {scale, bias}, and `head`.
    Source: arXiv 1409.1556 and torchvision.models.vgg16 for padding and initialization.
    """

    num_classes: int
    width: float = 1.0
    head: str = "average"
    dropout: float = 0.0
    form: str = "examples_first"
    batch_norm: bool = False
    dtype: jnp.dtype | None = None
    axis_name: str | None = None
    bands: layers.InputBands = layers.InputBands(MEAN, STD)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, example_keys: jax.Array | None = None) -> Outputs:
        """Returns logits (b, num_classes) and the features that the last linear layer reads, (b, F).

        Args:
            images: (b, H, W, bands) floats in [0, 1].
            train: whether to use batch statistics instead of running ones, and dropout if `example_keys` are given.
            example_keys: typed keys (b,), one per example; None = no dropout.
        """
        form = layers.FORMS[self.form]
        x = form.arrange(layers.normalize(images, self.bands, self.dtype))
        number = 0
        for block in BLOCKS:
            for place, channels in enumerate(block):
                number += 1
                features, last = layers.scaled(channels * self.width), place == len(block) - 1
                if self.batch_norm:
                    x = layers.Convolution(features, self.form, use_bias=True, name=f"conv_{number}")(x)
                    x = layers.BatchNorm(self.form, math.inf, self.axis_name, name=f"bn_{number}")(x, train)
                    x = form.max_pool(x) if last else x
                else:
                    x = layers.ConvolutionReLU(features, self.form, last, name=f"conv_{number}")(x)
        keys = example_keys if train else None
        if self.head == "fc":
            hidden = layers.scaled(4096 * self.width)
            return FullyConnected(self.num_classes, hidden, self.dropout, name="head")(form.examples_first(x), keys)
        x = features = form.average(x)
        if keys is not None and self.dropout:
            x = layers.dropout(x, self.dropout, keys, 1)
        return Outputs(
            logits=layers.Linear(self.num_classes, name="head")(x), features=features.astype(layers.wide(x.dtype))
        )


# Index of each convolution in torchvision's and timm's `features`, where ReLU, maximum and BatchNorm count too.
PLACES = {
    "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    "vgg16_bn": (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
}
HEADS = {  # 'head' is the average-pool head, which torchvision lacks
    "torchvision": {
        "head": Place("classifier", linear=True),
        "head/fc_1": Place("classifier.0", linear=True, side=7),
        "head/fc_2": Place("classifier.3", linear=True),
        "head/logits": Place("classifier.6", linear=True),
    },
    "timm": {
        "head": Place("head.fc", linear=True),
        "head/fc_1": Place("pre_logits.fc1", side=7),
        "head/fc_2": Place("pre_logits.fc2"),
        "head/logits": Place("head.fc", linear=True),
    },
}


def names(model: str) -> dict[str, dict[str, Place]]:
    """Returns the place of every layer in torchvision's and timm's files, by its path in kdjax."""
    features = {f"conv_{number}": Place(f"features.{place}") for number, place in enumerate(PLACES[model], 1)}
    if model == "vgg16_bn":
        features |= {f"bn_{number}": Place(f"features.{place + 1}") for number, place in enumerate(PLACES[model], 1)}
    return {naming: features | head for naming, head in HEADS.items()}


def graph(draw: Builder, batch_norm: bool) -> str:
    """Draws the network in evaluation and returns its last node."""
    x, number = IMAGE, 0
    for block in BLOCKS:
        for _ in block:
            number += 1
            norm = f"bn_{number}" if batch_norm else None
            x = draw.rectify(draw.convolution(x, f"conv_{number}", norm=norm))
        x = draw.max_pool(x)
    if not draw.has("head/fc_1"):
        return draw.dense(draw.mean(x), "head")
    x = draw.adaptive_average(x, 7)
    for layer in ("head/fc_1", "head/fc_2"):
        x = draw.rectify(draw.dense(x, layer))
    return draw.dense(x, "head/logits")


def _model(name: str, batch_norm: bool) -> Model:
    return Model(
        functools.partial(VGG16, batch_norm=batch_norm),
        mean=MEAN,
        std=STD,
        names=names(name),
        graph=functools.partial(graph, batch_norm=batch_norm),
        heads=("average", "fc"),
        classifier=("classifier.", "pre_logits.", "head."),
    )


MODELS = {"vgg16": _model("vgg16", batch_norm=False), "vgg16_bn": _model("vgg16_bn", batch_norm=True)}
