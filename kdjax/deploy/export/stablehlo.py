"""Writes a folded network as a portable StableHLO program, which `jax.export.deserialize` loads without kdjax."""

from collections.abc import Callable

import jax
import jax.export  # `import jax` does not import it
import jax.numpy as jnp
import numpy as np
from jax import lax

from kdjax.networks import graph as g

PLATFORMS = ("cpu", "cuda", "tpu")


def serialize(network: g.Graph) -> bytes:
    """Serializes the program that maps images (batch, *network.image_shape) of network.dtype to logits.

    The logits are (batch, classes) float32. The program takes any batch size and runs on CPUs, NVIDIA GPUs and TPUs.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *network.image_shape), jnp.dtype(network.dtype))
    # By default accelerators multiply in fewer bits, which would not be the program that was measured.
    with jax.default_matmul_precision("highest"):
        exported = jax.export.export(jax.jit(lambda x: logits(network, x)), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def logits(network: g.Graph, images: jax.Array) -> jax.Array:
    """Computes logits (b, classes) float32 of images (b, *network.image_shape) with plain XLA convolutions."""
    x = images.astype(jnp.float32)
    if network.resize is not None:
        x = jnp.einsum("hr,brcx->bhcx", network.resize, x)
        x = jnp.einsum("wc,bhcx->bhwx", network.resize, x)
    tensors = {g.IMAGE: x - network.mean[None, None, None, :]}
    for node in network.nodes:
        tensors[node.name] = OPERATIONS[type(node)](node, *(tensors[name] for name in node.inputs))
    return tensors[network.nodes[-1].name]


def _convolution(node: g.Convolution, x: jax.Array) -> jax.Array:
    y = lax.conv_general_dilated(
        x,
        jnp.asarray(node.kernel),
        (node.stride, node.stride),
        node.padding,
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        feature_group_count=node.groups,
    )
    return y + node.bias[None, None, None, :]


def _rectify(node: g.Rectify, x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0, node.ceiling)


def _max_pool(node: g.MaxPool, x: jax.Array) -> jax.Array:
    window, strides = (1, node.size, node.size, 1), (1, node.stride, node.stride, 1)
    edges = (node.padding, node.padding)
    return lax.reduce_window(x, np.float32(-np.inf), lax.max, window, strides, ((0, 0), edges, edges, (0, 0)))


def _resample(node: g.Resample, x: jax.Array) -> jax.Array:
    return jnp.einsum("wc,bhcx->bhwx", node.columns, jnp.einsum("hr,brcx->bhcx", node.rows, x))


def _mean(node: g.Mean, x: jax.Array) -> jax.Array:
    return x.mean((1, 2))


def _add(node: g.Add, x: jax.Array, y: jax.Array) -> jax.Array:
    return x + y


def _hard_sigmoid(node: g.HardSigmoid, x: jax.Array) -> jax.Array:
    return jnp.clip(x / 6 + 0.5, 0, 1)


def _hard_swish(node: g.HardSwish, x: jax.Array) -> jax.Array:
    return x * jnp.clip(x / 6 + 0.5, 0, 1)


def _scale(node: g.Scale, x: jax.Array, gate: jax.Array) -> jax.Array:
    return x * gate[:, None, None, :]


def _dense(node: g.Dense, x: jax.Array) -> jax.Array:
    product = jnp.einsum("bhwc,ochw->bo", x, node.kernel) if node.kernel.ndim == 4 else x @ node.kernel.T
    return product + node.bias[None, :]


OPERATIONS: dict[type, Callable[..., jax.Array]] = {
    g.Convolution: _convolution,
    g.Rectify: _rectify,
    g.MaxPool: _max_pool,
    g.Resample: _resample,
    g.Mean: _mean,
    g.Add: _add,
    g.HardSigmoid: _hard_sigmoid,
    g.HardSwish: _hard_swish,
    g.Scale: _scale,
    g.Dense: _dense,
}
