"""How the examples of a step reach the devices.

A data set that fits lies in the memory of every device, and a step gathers from it: only indices travel. One that does
not is read from the host by grain, ahead of the steps. Both follow the same plan and give the same pixels.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np

from kdjax.data.rows import Images
from kdjax.inputs.batch import PlanStep
from kdjax.inputs.plan import Groups, Plan
from kdjax.objective.outputs import Outputs
from kdjax.runtime.devices import DeviceMapping

Feed = Callable[[int, int], PlanStep]
"""From a first step and a number of steps to this process's share of their plan, ready for `step.planned_steps`."""

THREADS, AHEAD = 4, 8
"""Threads that read images from the host, and how many steps they may be ahead."""


def resident(plan: Plan | Groups, mapping: DeviceMapping, longest: int) -> Feed:
    """Indices into images that lie on the devices.

    Args:
        plan: examples and views of every step.
        mapping: the devices.
        longest: the most steps that are asked for at once; all shares have that length; what is too much is not used.
    """

    def feed(first: int, count: int) -> PlanStep:
        steps = [PlanStep(*plan(first + index)) for index in range(count)]
        padded = steps + steps[-1:] * (longest - count)
        return mapping.split(jax.tree.map(lambda *values: np.stack(values), *padded), axis=-1)

    return feed


def streamed(
    plan: Plan | Groups, mapping: DeviceMapping, images: Images, first: int, last: int, stored: Outputs | None = None
) -> Feed:
    """Images, and what the teacher says of them, read from the host, one step at a time, in order.

    Args:
        plan: examples and views of every step.
        mapping: the devices. Each process reads its own share only.
        images: (examples, side, side, bands) uint8 or uint16.
        first, last: the steps that will be asked for, without `last`.
        stored: outputs of the teacher, leaves (views, examples, …), or None. Arms that need no teacher may be shown
            other views; what is read for these, the last view's, is not used.
    """

    def read(number: int) -> PlanStep:
        share = mapping.split(PlanStep(*(values[None] for values in plan(number))), axis=-1)
        said = jax.tree.map(lambda leaf: leaf[np.minimum(share.views, len(leaf) - 1), share.examples], stored)
        share = dataclasses.replace(share, images=images[share.examples], teacher=said)
        if share.partners is None:
            return share
        return dataclasses.replace(share, partner_images=images[share.partners])

    expected, shares = iter(range(first, last)), read_ahead(range(first, last), read)

    def feed(first: int, count: int) -> PlanStep:
        following = next(expected)
        if (first, count) != (following, 1):
            raise ValueError(f"{count} steps from {first} on: images are streamed one step at a time, now {following}")
        return next(shares)

    return feed


def read_ahead(numbers: range, read: Callable[[int], Any]) -> Iterator[Any]:
    """`read` of each number, in order, by grain's threads while the caller works on earlier ones."""
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    return iter(grain.MapDataset.range(numbers.start, numbers.stop, numbers.step).map(read).to_iter_dataset(options))
