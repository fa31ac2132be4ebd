"""A folded network as a portable StableHLO program, to be reloaded with `jax.export.deserialize` and without kdjax."""

import jax
import jax.export  # not imported by jax itself
import jax.numpy as jnp
from jax import lax

from kdjax.deploy.export.fold import CEILING, Convolution, Network

PLATFORMS = ("cpu", "cuda", "tpu")


def serialise(network: Network) -> bytes:
    """The program from images (batch, storage_size, storage_size, 3) uint8 to logits (batch, classes) float32.

    The batch is free; it runs on the CPU, NVIDIA GPUs and TPUs.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, network.storage_size, network.storage_size, 3), jnp.uint8)
    # Accelerators would else multiply in fewer bits: these are the products whose results were measured.
    with jax.default_matmul_precision("highest"):
        exported = jax.export.export(jax.jit(lambda x: logits(network, x)), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def logits(network: Network, images: jax.Array) -> jax.Array:
    """Logits (b, classes) float32 of images (b, storage_size, storage_size, 3) uint8, in plain convolutions."""
    x = images.astype(jnp.float32)
    if network.resize is not None:
        x = jnp.einsum("hr,brcx->bhcx", network.resize, x)
        x = jnp.einsum("wc,bhcx->bhwx", network.resize, x)
    x = _convolution(x - network.mean[None, None, None, :], network.stem)
    for block in network.blocks:
        y = x
        for layer in block.convolutions:
            y = _convolution(y, layer)
        x = x + y if block.residual else y
    features = _convolution(x, network.last).mean((1, 2))
    return features @ network.weight.T + network.bias[None, :]


def _convolution(x: jax.Array, layer: Convolution) -> jax.Array:
    pad = layer.kernel.shape[-1] // 2
    y = lax.conv_general_dilated(
        x,
        layer.kernel,
        (layer.stride, layer.stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        feature_group_count=layer.groups,
    )
    y = y + layer.bias[None, None, None, :]
    return jnp.clip(y, 0, CEILING) if layer.rectified else y
