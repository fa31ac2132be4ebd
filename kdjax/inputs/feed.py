"""Brings the examples of each step to the devices.

A data set that fits is kept in the memory of every device, and a step gathers its examples there by their indices. One
that does not fit is read from the host by grain, ahead of the steps. Both ways follow the same plan and give the same
pixels.
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
"""Function from a first step and a number of steps to this process's share of their plan, for `step.planned_steps`."""

THREADS, AHEAD = 4, 8
"""Number of threads that read images from the host, and number of steps that they may be ahead."""


def resident_feed(plan: Plan | Groups, mapping: DeviceMapping, longest: int) -> Feed:
    """Returns a feed of indices, for images that are in device memory.

    Args:
        plan: examples and views of every step.
        mapping: the devices.
        longest: largest number of steps requested at once. All shares are padded to this length; padding is not used.
    """

    def feed(first: int, count: int) -> PlanStep:
        steps = [PlanStep(*plan(first + index)) for index in range(count)]
        padded = steps + steps[-1:] * (longest - count)
        return mapping.split(jax.tree.map(lambda *values: np.stack(values), *padded), axis=-1)

    return feed


def streamed_feed(
    plan: Plan | Groups, mapping: DeviceMapping, images: Images, first: int, last: int, stored: Outputs | None = None
) -> Feed:
    """Returns a feed of images and teacher outputs that are read from the host, one step at a time, in order.

    Args:
        plan: examples and views of every step.
        mapping: the devices. Each process reads only its own share.
        images: (examples, side, side, bands) uint8 or uint16.
        first, last: the range of steps that will be requested, without `last`.
        stored: outputs of the teacher, leaves (views, examples, …), or None. Arms that need no teacher may be shown
            more views than these. For such a view, the outputs of the last one are read and not used.
    """

    def read(number: int) -> PlanStep:
        share = mapping.split(PlanStep(*(values[None] for values in plan(number))), axis=-1)
        outputs = jax.tree.map(lambda leaf: leaf[np.minimum(share.views, len(leaf) - 1), share.examples], stored)
        share = dataclasses.replace(share, images=images[share.examples], teacher=outputs)
        if share.partners is None:
            return share
        return dataclasses.replace(share, partner_images=images[share.partners])

    steps, shares = iter(range(first, last)), read_ahead(range(first, last), read)

    def feed(first: int, count: int) -> PlanStep:
        expected = next(steps)
        if (first, count) != (expected, 1):
            raise ValueError(f"{count} steps from {first} on: images are streamed one step at a time, now {expected}")
        return next(shares)

    return feed


def read_ahead(numbers: range, read: Callable[[int], Any]) -> Iterator[Any]:
    """Yields `read(number)` for each number, in order; grain's threads read while the caller works on earlier ones."""
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    return iter(grain.MapDataset.range(numbers.start, numbers.stop, numbers.step).map(read).to_iter_dataset(options))
