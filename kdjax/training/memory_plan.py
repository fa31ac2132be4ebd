"""On how many devices, and with how many arms side by side, a training step fits into memory.

The memory that the compiled step needs decides.
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
from kdjax.runtime.devices import RowMapping, smallest
from kdjax.runtime.memory import free_bytes, program_bytes, tree_bytes
from kdjax.training.population import Population

ROOM = 0.8
"""Share of the memory that a step may take; the rest is for fragmentation and other programs."""

SURE, HOPELESS = 0.2, 1.5
"""Bounds on a step's estimated memory, as shares of the memory that the examples leave. A step below the first fits, a
step above the second does not. Between them the step is compiled, and the compiler's own count decides."""


def planned(populations: Sequence[Population], log: Callable[[str], None]) -> Population:
    """The first population that fits into memory, with as many arms side by side as fit.

    Args:
        populations: the same population on several mappings, the fastest first.
        log: takes a line for each step that is compiled to be measured.

    Raises:
        InputError: a step does not fit even for one student at a time.
    """
    *faster, last = populations
    for population in faster:
        with contextlib.suppress(InputError):
            return population.with_arms_at_once(arms_at_once(population, log, last=False))
    return last.with_arms_at_once(arms_at_once(last, log))


def arms_at_once(population: Population, log: Callable[[str], None], *, last: bool = True) -> int | None:
    """How many arms a step computes side by side, as a value of `Recipe.arms_at_once`.

    Args:
        population: the population; the `arms_at_once` of its own recipe is ignored.
        log: takes a line for each step that is compiled to be measured.
        last: whether no other mapping is tried after this one. Only then is a hopeless step compiled, for the count in
            the error message; each compilation takes up to a minute.

    Raises:
        InputError: a step does not fit even for one student at a time.
    """
    learner = population.learner
    # The least of all processes: they may have different amounts free, and must run the same program.
    measure_budget = lambda: smallest(free_bytes(learner.mapping.local, ROOM))
    budget = measure_budget()
    seeds, arms = learner.mapping.rows_a_device(*learner.rows)
    student, state, examples = _student_bytes(population), 2 * _state_bytes(population), _example_bytes(population)
    candidates, needed = _candidates(seeds, arms), 0.0
    for number in candidates:
        estimate = state + student * (seeds * arms if number is None else number)
        if estimate < SURE * (budget - examples):
            return number
        if estimate > HOPELESS * (budget - examples) and not (last and number == candidates[-1]):
            continue
        needed = program_bytes(population.with_arms_at_once(number).lowered()) or examples + estimate
        budget = measure_budget()  # the compiler leaves threads and pools behind, hundreds of megabytes the first time
        log(f"{learner.folder.name}: a step of {number or arms} of {arms} arms needs {_gb(needed)} of {_gb(budget)} GB")
        if needed <= budget:
            return number
    cause = f"{learner.name}.batch_size is {learner.section.batch_size} at {learner.size} px"
    fix = "use a smaller batch_size or image size"
    if examples > budget / 2:
        cause, fix = f"run.images: the images and the teacher's outputs take {_gb(examples)} GB", "set it to 'host'"
    raise InputError(
        f"{cause}: a step of one network needs {_gb(needed)} GB of memory and {_gb(budget)} GB are free: {fix}"
    )


def _candidates(seeds: int, arms: int) -> list[int | None]:
    """Numbers of arms to compute side by side, the fastest first; None means all students at once."""
    # Side by side, the depthwise convolutions of several students become one over all their channels. For that, a TPU
    # moves twice as much memory as for one student after the other (docs/speed.md), which is what bounds its speed.
    if jax.default_backend() == "tpu" and seeds * arms > 1:
        return [1]
    # One seed after the other: seeds see different images, so side by side their convolution becomes a grouped one,
    # which took a GPU five times as long, and a CPU, whose cache holds one seed, twice as long at 4 x 4 students
    # (docs/speed.md).
    all_at_once: list[int | None] = [None] if seeds == 1 else []
    fewer = [count for count in range(arms, 0, -1) if arms % count == 0 and (seeds > 1 or count < arms)]
    return [*all_at_once, *fewer]


def _student_bytes(population: Population) -> int:
    """Bytes that one student keeps between its forward and its backward pass."""
    learner = population.learner
    mapping, batch = learner.mapping, learner.section.batch_size
    share = batch if isinstance(mapping, RowMapping) else batch // len(mapping.devices)
    return residual_bytes(learner.network, learner.variables, images_for(learner.network, learner.size, share))


def residual_bytes(network: nn.Module, variables: dict[str, Any], images: jax.ShapeDtypeStruct) -> int:
    """Bytes that one student keeps between the forward and the backward pass of a training step.

    The count comes from the traced program, as what the forward pass hands to the backward pass. Nothing is compiled or
    run.

    Args:
        network: the network, without a device axis.
        variables: shapes and dtypes of the network's variables, as `Learner.variables`.
        images: shape of a device's share of a batch, (batch, size, size, bands) float32.
    """

    def residuals(params: Any, rest: Any, images: jax.Array) -> Any:
        apply = lambda params: network.apply({"params": params, **rest}, images, train=True, mutable=["batch_stats"])
        return jax.vjp(apply, params, has_aux=True)[1]

    rest = {name: value for name, value in variables.items() if name != "params"}
    return tree_bytes(jax.eval_shape(residuals, variables["params"], rest, images)) - tree_bytes(variables["params"])


def _example_bytes(population: Population) -> int:
    """Bytes on a device besides the students: images and stored teacher outputs, or an online teacher."""
    online = population.data.online
    return tree_bytes((population.examples(whole=False), online.variables if online else None))


def _state_bytes(population: Population) -> int:
    """Bytes of the training state of one device's students."""
    learner = population.learner
    on_device = np.prod(learner.mapping.rows_a_device(*learner.rows)) / np.prod(learner.rows)
    return int(tree_bytes(learner.layout) * on_device)


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f}" if count < math.inf else "more than all"
