"""VGG16: Simonyan and Zisserman, "Very Deep Convolutional Networks", arXiv 1409.1556, configuration D."""

import functools
import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.networks import layers
from kdjax.networks.model import Model
from kdjax.objective.outputs import Outputs

MEAN, STD = layers.IMAGENET_MEAN, layers.IMAGENET_STD

# Output channels of the thirteen convolutions, block by block; a 2 x 2 maximum closes each block.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def scaled(channels: int, width: float) -> int:
    """The channel count at a width, a multiple of 8 and at least 8."""
    return max(8, round(channels * width / 8) * 8)


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
    """VGG16 over RGB images in [0, 1], (b, H, W, 3) with H, W at least 32; normalized inside.

    Args:
        num_classes: length of the logits.
        width: multiplies every channel count, rounded to multiples of 8, and the hidden layers of the 'fc' head.
        head: 'average' is a global average pool and one linear layer, 'fc' the paper's 4096-4096 head.
        dropout: rate on the pooled features ('average') or after each hidden layer ('fc', 0.5 in the paper).
        form: 'examples_first' (accelerators, export) or 'examples_last' (CPU): how all layers compute and lay out
            their activations; the same parameters, and values and gradients equal to rounding.
        batch_norm: a BatchNorm between each convolution and its ReLU (torchvision's vgg16_bn).
        dtype: compute dtype; None is that of the images, at least float32.
        axis_name: mapped axis of devices whose batches BatchNorm takes together.

    Parameters: `conv_1` ... `conv_13` {kernel (3, 3, I, O), bias}, `bn_1` ... {scale, bias}, and `head`.
    Source: arXiv 1409.1556 and torchvision.models.vgg16 for padding and initialization.
    """

    HEADS: ClassVar[tuple[str, ...]] = ("average", "fc")

    num_classes: int
    width: float = 1.0
    head: str = "average"
    dropout: float = 0.0
    form: str = "examples_first"
    batch_norm: bool = False
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, example_keys: jax.Array | None = None) -> Outputs:
        """Logits (b, num_classes) and the features that the last linear layer reads, (b, F).

        Args:
            images: (b, H, W, 3) floats in [0, 1].
            train: batch statistics instead of running ones, and dropout where `example_keys` are given.
            example_keys: typed keys (b,), one an example; None means no dropout.
        """
        form = layers.FORMS[self.form]
        x = form.arrange(layers.normalize(images, MEAN, STD, self.dtype))
        number = 0
        for block in BLOCKS:
            for place, channels in enumerate(block):
                number += 1
                features, last = scaled(channels, self.width), place == len(block) - 1
                if self.batch_norm:
                    x = layers.Convolution(features, self.form, use_bias=True, name=f"conv_{number}")(x)
                    x = layers.BatchNorm(self.form, math.inf, self.axis_name, name=f"bn_{number}")(x, train)
                    x = form.max_pool(x) if last else x
                else:
                    x = layers.ConvolutionReLU(features, self.form, last, name=f"conv_{number}")(x)
        keys = example_keys if train else None
        if self.head == "fc":
            hidden = scaled(4096, self.width)
            return FullyConnected(self.num_classes, hidden, self.dropout, name="head")(form.examples_first(x), keys)
        x = features = form.average(x)
        if keys is not None and self.dropout:
            x = layers.dropout(x, self.dropout, keys, 1)
        return Outputs(
            logits=layers.Linear(self.num_classes, name="head")(x), features=features.astype(layers.wide(x.dtype))
        )


MODELS = {
    "vgg16": Model(VGG16, mean=MEAN, std=STD, heads=VGG16.HEADS),
    "vgg16_bn": Model(functools.partial(VGG16, batch_norm=True), mean=MEAN, std=STD, heads=VGG16.HEADS),
}
