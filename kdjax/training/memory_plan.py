"""On how many devices a population fits into memory, and how many of its arms side by side.

What the compiled step needs decides.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from kdjax.errors import InputError
from kdjax.networks.layers import images_for
from kdjax.runtime.devices import RowMapping, least
from kdjax.runtime.memory import free, needs, tree_bytes
from kdjax.training.population import Population

ROOM = 0.8
"""Share of the memory that a step may take; the rest is for fragmentation and what else runs."""

SURE, HOPELESS = 0.2, 1.5
"""A step whose estimate is below the first share of the memory that its examples leave fits, one above the second does
not; what lies between is compiled, and the compiler's own count decides."""


def planned(populations: Sequence[Population], log: Callable[[str], None]) -> Population:
    """The first of the same population on several mappings that fits, with so many arms side by side as do.

    Args:
        populations: the fastest first.
        log: takes a line where not all students fit.

    Raises:
        InputError: a step does not fit even for one student at a time.
    """
    *faster, last = populations
    for one in faster:
        with contextlib.suppress(InputError):
            return one.with_arms_at_once(arms_at_once(one, log, last=False))
    return last.with_arms_at_once(arms_at_once(last, log))


def arms_at_once(population: Population, log: Callable[[str], None], *, last: bool = True) -> int | None:
    """How many arms a step computes side by side, as `Recipe.arms_at_once` takes it.

    Args:
        population: its recipe's own number does not count.
        log: takes a line where not all students fit.
        last: whether no other mapping is tried after this one. Else a step that is hopeless is not compiled, which the
            error of the last one needs, because each compilation takes up to a minute.

    Raises:
        InputError: a step does not fit even for one student at a time.
    """
    learner = population.learner
    measured = lambda: least(free(learner.mapping.local, ROOM))  # processes hold unlike amounts, and run one program
    left = measured()
    seeds, arms = learner.mapping.rows_a_device(*learner.rows)
    student, state, held = _student_bytes(population), 2 * _state_bytes(population), _held_bytes(population)
    candidates, needed = _candidates(seeds, arms), 0.0
    for number in candidates:
        estimate = state + student * (seeds * arms if number is None else number)
        if estimate < SURE * (left - held):
            return number
        if estimate > HOPELESS * (left - held) and not (last and number == candidates[-1]):
            continue
        needed = needs(population.with_arms_at_once(number).lowered()) or held + estimate
        left = measured()  # the compiler leaves threads and pools behind, hundreds of megabytes the first time
        log(f"{learner.folder.name}: a step of {number or arms} of {arms} arms needs {_gb(needed)} of {_gb(left)} GB")
        if needed <= left:
            return number
    said = f"{learner.name}.batch_size is {learner.section.batch_size} at {learner.size} px"
    fix = "use a smaller batch_size or image size"
    if held > left / 2:
        said, fix = f"run.images: the images and the teacher's outputs take {_gb(held)} GB", "set it to 'host'"
    raise InputError(
        f"{said}: a step of one network needs {_gb(needed)} GB of memory and {_gb(left)} GB are free: {fix}"
    )


def _candidates(seeds: int, arms: int) -> list[int | None]:
    """Numbers of arms side by side, the fastest first; None is all students at once."""
    # Side by side the depthwise convolutions of several students become one over all their channels, for which a TPU
    # moves twice the memory of one student after the other (docs/speed.md), and memory bounds its speed.
    if jax.default_backend() == "tpu" and seeds * arms > 1:
        return [1]
    # One seed after the other: seeds see images of their own, and side by side a convolution of these is a grouped one.
    # A GPU took five times as long; a CPU, which keeps one seed in cache, twice at 4 x 4 students (docs/speed.md).
    all_at_once: list[int | None] = [None] if seeds == 1 else []
    fewer = [count for count in range(arms, 0, -1) if arms % count == 0 and (seeds > 1 or count < arms)]
    return [*all_at_once, *fewer]


def _student_bytes(population: Population) -> int:
    """What one student keeps between its forward and its backward pass."""
    learner = population.learner
    mapping, batch = learner.mapping, learner.section.batch_size
    share = batch if isinstance(mapping, RowMapping) else batch // len(mapping.devices)
    return residual_bytes(learner.network, learner.variables, images_for(learner.network, learner.size, share))


def residual_bytes(network: nn.Module, variables: dict[str, Any], images: jax.ShapeDtypeStruct) -> int:
    """Bytes that one student keeps between the forward and the backward pass of a training step.

    Counted from the traced program: what the forward pass hands to the backward pass. Nothing is compiled or run.

    Args:
        network: the network, without a device axis.
        variables: their shapes and dtypes, as `Learner.variables`.
        images: shape of a device's share of a batch, (batch, size, size, bands) float32.
    """

    def residuals(params: Any, rest: Any, images: jax.Array) -> Any:
        apply = lambda params: network.apply({"params": params, **rest}, images, train=True, mutable=["batch_stats"])
        return jax.vjp(apply, params, has_aux=True)[1]

    rest = {name: value for name, value in variables.items() if name != "params"}
    return tree_bytes(jax.eval_shape(residuals, variables["params"], rest, images)) - tree_bytes(variables["params"])


def _held_bytes(population: Population) -> int:
    """What lies on a device beside the students: images and outputs of the teacher, or the teacher itself."""
    online = population.data.online
    return tree_bytes((population.examples(whole=False), online.variables if online else None))


def _state_bytes(population: Population) -> int:
    """The state of the students of one device."""
    learner = population.learner
    on_device = np.prod(learner.mapping.rows_a_device(*learner.rows)) / np.prod(learner.rows)
    return int(tree_bytes(learner.layout) * on_device)


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f}" if count < math.inf else "more than all"
