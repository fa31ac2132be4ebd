"""The layers that networks are built from, with torchvision's semantics.

Every layer computes in the dtype of its input and keeps its parameters and statistics in float32 (float64 if the input
is float64). Only weights to which weight decay applies are called `kernel`.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from kdjax.networks.forms import examples_first, examples_last
from kdjax.networks.forms.activations import hard_sigmoid
from kdjax.networks.padding import PADDINGS, Padding, bins

FORMS = {"examples_first": examples_first, "examples_last": examples_last}
"""The forms of a network, which decide how its layers compute and lay out their activations; see the modules."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Statistics of RGB in [0, 1] that torchvision's and most of timm's weights were trained with."""

LINEAR_INIT = nn.initializers.normal(0.01)  # torchvision's for linear layers; `kaiming_fan_out` for convolutions


def kaiming_fan_out(fan_out: int) -> nn.initializers.Initializer:
    """Returns a normal initializer with variance 2 / fan_out (He et al. 2015, arXiv 1502.01852, equation 14)."""
    return nn.initializers.normal((2.0 / fan_out) ** 0.5)


def scaled(channels: float) -> int:
    """Rounds to the nearest multiple of 8, at least 8, as VGG16 and ResNet do at other widths."""
    return max(8, round(channels / 8) * 8)


def wide(dtype: DTypeLike) -> jnp.dtype:
    """Returns the dtype of parameters, statistics and logits for a compute dtype: at least float32."""
    return jnp.promote_types(dtype, jnp.float32)


@dataclasses.dataclass(frozen=True)
class InputBands:
    """The bands that a network takes of its images, and their normalization.

    Attributes:
        mean, std: of each band that it takes, in [0, 1]: those its weights were trained with, or the data's.
        chosen: indices of these bands among the bands of the images; () = the images have just these bands.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    chosen: tuple[int, ...] = ()

    @property
    def required(self) -> int:
        """Number of bands that images need to have."""
        return max(self.chosen) + 1 if self.chosen else len(self.mean)


def images_for(network: nn.Module, size: int, count: int = 1) -> jax.ShapeDtypeStruct:
    """Returns the shape of images to initialize or trace a network with, (count, size, size, bands) float32.

    A network without a field `bands` takes red, green and blue.
    """
    bands = getattr(network, "bands", None)
    return jax.ShapeDtypeStruct((count, size, size, bands.required if bands else 3), jnp.float32)


def normalize(images: jax.Array, bands: InputBands, dtype: DTypeLike | None = None) -> jax.Array:
    """Returns (images - mean) / std, band by band, in the compute dtype.

    Args:
        images: (b, H, W, bands) float in [0, 1].
        bands: which bands are taken, and how they are normalized.
        dtype: dtype of the result; None = that of the arithmetic, which is done in at least float32.

    Raises:
        ValueError: the images do not have these bands.
    """
    count = images.shape[-1]
    if count < bands.required or (count > len(bands.mean) and not bands.chosen):
        raise ValueError(f"images of {count} bands for a network of {len(bands.mean)}")
    if bands.chosen:
        images = images[..., np.array(bands.chosen)]
    images = images.astype(wide(images.dtype))
    per_band = lambda values: jnp.asarray(values, images.dtype)[None, None, None, :]
    return ((images - per_band(bands.mean)) / per_band(bands.std)).astype(dtype or images.dtype)


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
    """Averages (b, H, W, C) over the bins of PyTorch's AdaptiveAvgPool2d, to (b, size, size, C)."""
    for axis in (1, 2):
        length = x.shape[axis]
        if length != size:
            means = [lax.slice_in_dim(x, first, end, axis=axis).mean(axis) for first, end in bins(length, size)]
            x = jnp.stack(means, axis)
    return x


def dropout(x: jax.Array, rate: float, example_keys: jax.Array, layer: int) -> jax.Array:
    """Zeroes each value of x (b, features) with probability `rate` and scales the rest by 1 / (1 - rate).

    Each example has its own key, of `example_keys` (b,), so its mask does not depend on how a batch is split. `layer`
    is a different number for each dropout layer of a network, so that their masks differ.
    """
    draw = lambda key: jax.random.bernoulli(jax.random.fold_in(key, layer), 1.0 - rate, x.shape[1:])
    return jnp.where(jax.vmap(draw)(example_keys), x / (1.0 - rate), jnp.zeros_like(x))


class Linear(nn.Module):
    """x (b, I) @ kernel (I, O) + bias (O,), accumulated and returned in at least float32."""

    features: int
    initializer: nn.initializers.Initializer = LINEAR_INIT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.initializer, (x.shape[-1], self.features), wide(x.dtype))
        bias = self.param("bias", nn.initializers.zeros, (self.features,), wide(x.dtype))
        product = jnp.matmul(x, kernel.astype(x.dtype), preferred_element_type=wide(x.dtype))
        return product + bias.astype(product.dtype)[None, :]


def _padding(name: str, x: jax.Array, size: int, stride: int, form: str) -> Padding:
    sides = [x.shape[axis] for axis in FORMS[form].SPATIAL_AXES]
    return PADDINGS[name](sides, size, stride)


class Pointwise(nn.Module):
    """1 x 1 convolution without bias of every `stride`-th pixel, computed as a matrix product; kernel (I, O)."""

    features: int
    form: str
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        form = FORMS[self.form]
        for axis in form.SPATIAL_AXES if self.stride > 1 else ():
            x = lax.slice_in_dim(x, 0, None, self.stride, axis)
        shape = x.shape[form.CHANNEL_AXIS], self.features
        kernel = self.param("kernel", kaiming_fan_out(self.features), shape, wide(x.dtype))
        return form.pointwise(x, kernel.astype(x.dtype))


class Convolution(nn.Module):
    """size x size convolution; kernel (size, size, I, O). `padding` is one of `padding.PADDINGS`."""

    features: int
    form: str
    stride: int = 1
    use_bias: bool = False
    size: int = 3
    padding: str = "around"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        form = FORMS[self.form]
        shape = self.size, self.size, x.shape[form.CHANNEL_AXIS], self.features
        kernel = self.param("kernel", kaiming_fan_out(self.size**2 * self.features), shape, wide(x.dtype))
        padding = _padding(self.padding, x, self.size, self.stride, self.form)
        y = form.convolution(x, kernel.astype(x.dtype), self.stride, padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), wide(x.dtype))
            y = form.add_bias(y, bias.astype(x.dtype))
        return y


class ConvolutionReLU(nn.Module):
    """3 x 3 convolution with bias and ReLU, padding 1 on every side and kernel (3, 3, I, O); optional 2 x 2 maximum.

    The maximum is computed before bias and ReLU. Both are monotonic, so the value is the same for a quarter of their
    work.
    """

    features: int
    form: str
    pool: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        form = FORMS[self.form]
        shape = 3, 3, x.shape[form.CHANNEL_AXIS], self.features
        kernel = self.param("kernel", kaiming_fan_out(9 * self.features), shape, wide(x.dtype))
        bias = self.param("bias", nn.initializers.zeros, (self.features,), wide(x.dtype))
        y = form.convolution(x, kernel.astype(x.dtype))
        return form.bias_relu(form.max_pool(y) if self.pool else y, bias.astype(x.dtype))


class Depthwise(nn.Module):
    """size x size convolution of every channel on its own; kernel (size, size, C). `padding` as in `Convolution`."""

    stride: int
    form: str
    size: int = 3
    padding: str = "around"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        form = FORMS[self.form]
        channels = x.shape[form.CHANNEL_AXIS]
        shape = self.size, self.size, channels
        kernel = self.param("kernel", kaiming_fan_out(self.size**2 * channels), shape, wide(x.dtype))
        padding = _padding(self.padding, x, self.size, self.stride, self.form)
        return form.depthwise(x, kernel.astype(x.dtype), self.stride, padding)


class SqueezeExcite(nn.Module):
    """Scales each channel of an example by a factor in [0, 1] that two linear layers compute from the channels' means.

    Hu et al., arXiv 1709.01507, with the hard sigmoid of MobileNetV3 (arXiv 1905.02244, section 5.3). The layers are
    `reduce`, to `squeezed` values, followed by ReLU, and `expand`. Both are initialized like the 1 x 1 convolutions in
    torchvision.
    """

    squeezed: int
    form: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        form = FORMS[self.form]
        channels = x.shape[form.CHANNEL_AXIS]
        linear = lambda features, name: Linear(features, kaiming_fan_out(features), name=name)
        hidden = nn.relu(linear(self.squeezed, "reduce")(form.average(x))).astype(x.dtype)
        return form.scaled(x, hard_sigmoid(linear(channels, "expand")(hidden)).astype(x.dtype))


class BatchNorm(nn.Module):
    """Batch normalization of every channel (Ioffe and Szegedy, arXiv 1502.03167), as in PyTorch.

    Each step moves the running statistics toward those of the batch by 1 - `momentum`; the batch's variance is first
    multiplied by n / (n - 1). In train mode the batch consists of the examples of all devices on `axis_name`. The
    arithmetic is done in at least float32. An activation may follow: min(max(·, 0), ceiling) if there is a `ceiling`,
    or hard swish if `hard_swish` is set.
    """

    form: str
    ceiling: float | None = None
    axis_name: str | None = None
    eps: float = 1e-5
    momentum: float = 0.9
    hard_swish: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        form, dtype = FORMS[self.form], wide(x.dtype)
        shape = (x.shape[form.CHANNEL_AXIS],)
        scale = self.param("scale", nn.initializers.ones, shape, dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, dtype)
        if train:
            mean, var = form.moments(x.astype(dtype), running_mean.value)
            if self.axis_name is not None:
                local = mean
                mean = lax.pmean(local, self.axis_name)
                var = lax.pmean(var + jnp.square(local - mean), self.axis_name)
            if not self.is_initializing():
                count = x.size // shape[0] * (1 if self.axis_name is None else lax.axis_size(self.axis_name))
                for running, value in ((running_mean, mean), (running_var, var * (count / max(count - 1, 1)))):
                    running.value = self.momentum * running.value + (1 - self.momentum) * lax.stop_gradient(value)
        else:
            mean, var = running_mean.value.astype(dtype), running_var.value.astype(dtype)
        factor = scale.astype(dtype) * lax.rsqrt(var + self.eps)
        offset = bias.astype(dtype) - mean * factor
        if self.hard_swish:
            return form.affine_hard_swish(x.astype(dtype), factor, offset).astype(x.dtype)
        return form.affine(x.astype(dtype), factor, offset, self.ceiling).astype(x.dtype)
