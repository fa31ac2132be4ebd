"""What a program says of its matrix products."""

from collections.abc import Iterator

import jax
from jax.extend.core import ClosedJaxpr, jaxprs_in_params


def precisions(program: ClosedJaxpr) -> Iterator[tuple[jax.lax.Precision, ...] | None]:
    """Of the factors of each product; None leaves it to the device."""
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for inner in jaxprs_in_params(equation.params):
            yield from precisions(inner)
