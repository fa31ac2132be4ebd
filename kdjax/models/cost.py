"""What a network costs: parameters and multiply-adds."""

import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core


def cost(model: nn.Module, image_size: int) -> dict[str, int]:
    """Parameters and multiply-adds (MACs) of one forward pass over one square image in evaluation mode.

    Counted from the traced program: every convolution and matrix product, biases, BatchNorm and activations left
    out, as is usual. `params` leaves out BatchNorm's running statistics.

    Args:
      model: a network of this package.
      image_size: side of the image in pixels.
    """
    # The other forms of a convolution have other operations to count.
    model = model.clone(**{form: "conv" for form in ("depthwise", "convolution") if hasattr(model, form)})
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    program = jax.make_jaxpr(lambda v, x: model.apply(v, x))(variables, image)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    return {"params": params, "macs": sum(_macs(program.jaxpr))}


def _macs(jaxpr: Any) -> Iterator[int]:
    for equation in jaxpr.eqns:
        out = math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            yield out * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            yield out * math.prod(kernel) // kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        for inner in core.jaxprs_in_params(equation.params):
            yield from _macs(inner)
