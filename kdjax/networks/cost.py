"""The cost of a network: parameters, multiply-adds and memory for activations."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.extend import core

from kdjax.networks.layers import images_for
from kdjax.runtime.keys import key


def cost(model: nn.Module, image_size: int) -> dict[str, int]:
    """Returns parameters, multiply-adds (MACs) and activation memory of evaluating one square image.

    They are counted from the traced program. As is usual, only convolutions and matrix products count, not biases,
    BatchNorm or activations.

    Args:
        model: a network of this package.
        image_size: side of the image in pixels.

    Returns:
        `params`: number of parameters, without BatchNorm's running statistics. `macs`: number of multiply-adds.
        `activation_bytes`: size in float32 of the largest input and output of one convolution or matrix product
        together. Evaluation layer by layer needs that much memory, plus what a residual connection keeps meanwhile.
    """
    if hasattr(model, "form"):
        model = model.clone(form="examples_first")  # the other form computes with operations that are not counted
    image = images_for(model, image_size)
    variables = jax.eval_shape(lambda x: model.init(key(0), x), image)
    program = jax.make_jaxpr(lambda v, x: model.apply(v, x))(variables, image)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    macs, elements = zip(*_products(program.jaxpr), strict=True)
    return {"params": params, "macs": sum(macs), "activation_bytes": 4 * max(elements)}


def feature_count(model: nn.Module, image_size: int) -> int:
    """Returns the length of the features that a network's head reads, for square images of `image_size` px."""
    image = images_for(model, image_size)
    outputs, _ = jax.eval_shape(lambda x: model.init_with_output(key(0), x), image)
    return outputs.features.shape[-1]


def cost_by_head(model: nn.Module, heads: Sequence[str], image_size: int) -> dict[str, dict[str, int]]:
    """Returns `cost` for each head that the network can have, by the head's name; {} if there is no choice."""
    return {head: cost(model.clone(head=head), image_size) for head in heads} if len(heads) > 1 else {}


def _products(jaxpr: Any) -> Iterator[tuple[int, int]]:
    """Yields, for each convolution and matrix product, its multiply-adds and the elements of its input and output."""
    for equation in jaxpr.eqns:
        # The first operand holds the activations, the second the weights.
        out = math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            x = equation.invars[0].aval.shape
            yield out * math.prod(x[axis] for axis in contracted), math.prod(x) + out
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            macs = out * math.prod(kernel) // kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            yield macs, math.prod(equation.invars[0].aval.shape) + out
        for inner in core.jaxprs_in_params(equation.params):
            yield from _products(inner)
