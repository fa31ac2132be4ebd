"""The layers both networks are built from: NHWC, torchvision semantics, a matrix product wherever one will do.

Every layer takes its compute dtype from its input and keeps its parameters and statistics in float32 (float64 when
the input is float64). Only weights that take weight decay are called `kernel`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# torchvision: kaiming_normal_(mode='fan_out') for convolutions, normal_(0, 0.01) for linear layers.
LINEAR_INIT = nn.initializers.normal(0.01)


def kaiming_fan_out(fan_out: int) -> nn.initializers.Initializer:
    """Normal with variance 2 / fan_out (He et al. 2015, arXiv 1502.01852, equation 14)."""
    return nn.initializers.normal((2.0 / fan_out) ** 0.5)


def wide(dtype) -> jnp.dtype:
    """The dtype of parameters, statistics and logits beside a compute dtype: at least float32."""
    return jnp.promote_types(dtype, jnp.float32)


def normalise(images: jax.Array, dtype=None) -> jax.Array:
    """RGB in [0, 1] to zero mean and unit variance by ImageNet's constants, in the compute dtype.

    The arithmetic is done in at least float32; `dtype` None keeps that dtype."""
    images = images.astype(wide(images.dtype))
    mean = jnp.asarray(IMAGENET_MEAN, images.dtype)
    std = jnp.asarray(IMAGENET_STD, images.dtype)
    return ((images - mean.reshape(1, 1, 1, 3)) / std.reshape(1, 1, 1, 3)).astype(dtype or images.dtype)


@jax.custom_jvp
def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6); the derivative is 0 at both corners, as in PyTorch (jnp.clip gives one half there)."""
    return jnp.clip(x, 0, 6)


@relu6.defjvp
def _relu6_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return relu6(x), jnp.where((x > 0) & (x < 6), dx, jnp.zeros_like(dx))


def max_pool(x: jax.Array) -> jax.Array:
    """2 x 2 maximum with stride 2 over (b, H, W, C); an odd last row or column is dropped, as in PyTorch.

    Of equal values the first takes the gradient. Four strided slices: XLA's CPU backend runs the gradient of a
    windowed maximum as a scatter."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    columns = [x[:, :height, start:width:2] for start in (0, 1)]
    x = jnp.where(columns[0] >= columns[1], columns[0], columns[1])
    rows = [x[:, start::2] for start in (0, 1)]
    return jnp.where(rows[0] >= rows[1], rows[0], rows[1])


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
    """(b, H, W, C) to (b, size, size, C): mean over the bins of PyTorch's AdaptiveAvgPool2d."""
    for axis in (1, 2):
        length = x.shape[axis]
        if length != size:
            bins = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
            x = jnp.stack([lax.slice_in_dim(x, a, b, axis=axis).mean(axis) for a, b in bins], axis)
    return x


def dropout(x: jax.Array, rate: float, example_keys: jax.Array, layer: int) -> jax.Array:
    """Zero each value of x (b, features) with probability `rate` and scale the rest by 1 / (1 - rate).

    Each example draws its own mask from its own key (b,), so the mask does not depend on how a batch is split;
    `layer` tells apart the dropout layers of one network."""
    draw = lambda key: jax.random.bernoulli(jax.random.fold_in(key, layer), 1.0 - rate, x.shape[1:])
    return jnp.where(jax.vmap(draw)(example_keys), x / (1.0 - rate), jnp.zeros_like(x))


class Linear(nn.Module):
    """x (b, I) @ kernel (I, O) + bias (O,), accumulated and returned in at least float32."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param('kernel', LINEAR_INIT, (x.shape[-1], self.features), wide(x.dtype))
        bias = self.param('bias', nn.initializers.zeros, (self.features,), wide(x.dtype))
        product = jnp.matmul(x, kernel.astype(x.dtype), preferred_element_type=wide(x.dtype))
        return product + bias.astype(product.dtype)[None, :]


class Pointwise(nn.Module):
    """1 x 1 convolution without bias: a matrix product over the last axis, kernel (I, O)."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = kaiming_fan_out(self.features)
        kernel = self.param('kernel', init, (x.shape[-1], self.features), wide(x.dtype))
        return jnp.matmul(x, kernel.astype(x.dtype))


class Convolution(nn.Module):
    """3 x 3 convolution, padding 1 on every side, kernel (3, 3, I, O)."""

    features: int
    bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = kaiming_fan_out(9 * self.features)
        kernel = self.param('kernel', init, (3, 3, x.shape[-1], self.features), wide(x.dtype))
        x = lax.conv_general_dilated(x, kernel.astype(x.dtype), (1, 1), [(1, 1), (1, 1)],
                                     dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        if self.bias:
            x = x + self.param('bias', nn.initializers.zeros, (self.features,), wide(x.dtype)).astype(x.dtype)
        return x


class Stem(nn.Module):
    """3 x 3 convolution of the image with stride 2 and padding 1, kernel (3, 3, I, O), as patches @ matrix.

    The patches do not depend on the kernel: mapped over students that share their images they are cut once."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        kernel = self.param('kernel', kaiming_fan_out(9 * self.features), (3, 3, channels, self.features),
                            wide(x.dtype))
        patches = jnp.concatenate(shifts(x, 2), axis=-1)
        return jnp.matmul(patches, kernel.astype(x.dtype).reshape(9 * channels, self.features))


def shifts(x: jax.Array, stride: int) -> list[jax.Array]:
    """The nine views of (b, H, W, C) that a 3 x 3 kernel with padding 1 sees, row by row."""
    height, width = (-(-side // stride) for side in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [lax.slice(x, (0, i, j, 0),
                      (x.shape[0], i + (height - 1) * stride + 1, j + (width - 1) * stride + 1, x.shape[3]),
                      (1, stride, stride, 1)) for i in range(3) for j in range(3)]


class Depthwise(nn.Module):
    """3 x 3 convolution of every channel on its own, padding 1 on every side also for stride 2, kernel (3, 3, C).

    `form` 'shift' is nine shifted multiply-adds, 'conv' a grouped convolution: equal in value and gradient."""

    stride: int
    form: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        kernel = self.param('kernel', kaiming_fan_out(9 * channels), (3, 3, channels), wide(x.dtype)).astype(x.dtype)
        if self.form == 'conv':
            return lax.conv_general_dilated(x, kernel[:, :, None, :], (self.stride, self.stride), [(1, 1), (1, 1)],
                                            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
                                            feature_group_count=channels)
        taps = kernel.reshape(9, 1, 1, 1, channels)
        return sum(view * tap for view, tap in zip(shifts(x, self.stride), taps))


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy, arXiv 1502.03167), as PyTorch does it.

    eps 1e-5; the running statistics move by a tenth a step, the running variance with n / (n - 1). In train mode
    the batch is that of every device on `axis_name` together. The moments are taken in at least float32."""

    axis_name: str | None = None
    eps: float = 1e-5
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        dtype, shape = wide(x.dtype), (x.shape[-1],)
        scale = self.param('scale', nn.initializers.ones, shape, dtype)
        bias = self.param('bias', nn.initializers.zeros, shape, dtype)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape, dtype)
        running_var = self.variable('batch_stats', 'var', jnp.ones, shape, dtype)
        if not train:
            factor = scale.astype(dtype) * lax.rsqrt(running_var.value.astype(dtype) + self.eps)
            offset = bias.astype(dtype) - running_mean.value.astype(dtype) * factor
            return (x.astype(dtype) * factor + offset).astype(x.dtype)
        axes = tuple(range(x.ndim - 1))
        everywhere = (lambda value: lax.pmean(value, self.axis_name)) if self.axis_name else (lambda value: value)
        mean = everywhere(jnp.mean(x.astype(dtype), axes))
        var = everywhere(jnp.mean(jnp.square(x.astype(dtype) - mean), axes))
        if not self.is_initializing():
            count = x.size // x.shape[-1] * (lax.axis_size(self.axis_name) if self.axis_name else 1)
            unbiased = var * (count / max(count - 1, 1))
            for running, value in ((running_mean, mean), (running_var, unbiased)):
                running.value = self.momentum * running.value + (1 - self.momentum) * lax.stop_gradient(value)
        return ((x.astype(dtype) - mean) * (scale * lax.rsqrt(var + self.eps)) + bias).astype(x.dtype)
