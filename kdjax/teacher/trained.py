"""A network of kdjax's as teacher."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data.rows import Images
from kdjax.inputs.batch import Examples, PlanStep, render, view_keys
from kdjax.inputs.feed import read_ahead
from kdjax.inputs.tiled import held
from kdjax.networks import cost
from kdjax.networks.layers import InputBands
from kdjax.objective.outputs import Outputs
from kdjax.runtime import heap
from kdjax.runtime.devices import DeviceMapping
from kdjax.teacher.store import tree_digest
from kdjax.teacher.teacher import Shown, Teacher
from kdjax.training.predictor import batch_per_device, predictor
from kdjax.training.step import frozen_outputs


class Mean(nn.Module):
    """Several networks of one kind as one, which gives the mean of their logits and no features (arXiv 1503.02531).

    Args:
        network: the flax module of each.
        members: how many there are.

    Parameters: `network`, whose leaves lead with the members.
    """

    network: nn.Module
    members: int

    @property
    def bands(self) -> InputBands:
        """Those of the network."""
        return self.network.bands

    def __call__(self, images: jax.Array, train: bool = False) -> Outputs:
        """The mean logits (b, classes) of images (b, H, W, bands) in [0, 1]."""
        each = nn.vmap(
            lambda network, images: network(images, train).logits,
            in_axes=None,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            axis_size=self.members,
        )
        return Outputs(jnp.mean(each(self.network, images), axis=0))


def view_step(
    variables: Any,
    examples: Examples,
    plan: PlanStep,
    *,
    network: nn.Module,
    shown: Shown,
    axis_name: str | None = None,
) -> Outputs:
    """Teacher outputs of augmented views, on the pixels that the students will see.

    Args:
        variables: the teacher's, without population axes.
        examples: all images, where they are in device memory, and the data seed (which counts, not that of `shown`).
        plan: this device's share, leaves lead with (batch,).
        network: the teacher.
        shown: size and augmentation.
        axis_name: mapped device axis.

    Returns:
        Outputs with leaves (global batch, n) float, the same on every device.
    """
    images = examples.images[plan.examples] if plan.images is None else plan.images
    keys = view_keys(examples.data_seed, plan.examples, plan.views)
    outputs = frozen_outputs(network, variables, render(images, keys, shown.size, shown.augmentation))
    if axis_name is not None:
        outputs = jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, axis_name, axis=0, tiled=True), outputs)
    return outputs


def compiled(network: nn.Module, shown: Shown, mapping: DeviceMapping) -> Any:
    """`view_step` on the devices: of the teacher's variables, examples and a plan."""
    program = functools.partial(view_step, network=network, shown=dataclasses.replace(shown, data_seed=0))
    return mapping.map(program, ("whole", "whole", "batch"))


def from_network(
    name: str, network: nn.Module, variables: Any, shown: Shown, *, dtype: str, on_device: bool, mapping: DeviceMapping
) -> Teacher:
    """A trained network as teacher.

    Args:
        name: of the network.
        network: the flax module.
        variables: its variables, without population axes, on the host.
        shown: size and views.
        dtype: compute dtype, part of the fingerprint.
        on_device: whether all images are held on the devices at once, or read from the host batch by batch.
        mapping: the devices.
    """
    step, trim = compiled(network, shown, mapping), heap.Trim()
    # Placed once, when first used: most runs find all logits on disk.
    placed = functools.cache(lambda: mapping.place(variables))
    placed_images: dict[int, tuple[Images, Examples]] = {}  # with the images, so that no others can take their id
    alone = jax.tree.map(lambda leaf: leaf[None, None], variables)  # as a population of one
    image_bytes = functools.cache(lambda: cost(network, shown.size)["activation_bytes"])

    def views(images: Images, examples: np.ndarray, view: int) -> Outputs:
        batch = len(mapping.devices) * batch_per_device(alone, image_bytes())
        if id(images) not in placed_images:
            resident = held(np.asarray(images), mapping.local[0]) if on_device else None
            everything = mapping.place(Examples(resident, None, data_seed=np.int32(shown.data_seed)))
            placed_images[id(images)] = images, everything
        _, everything = placed_images[id(images)]

        def read(start: int) -> PlanStep:
            # The last batch is filled up with its last image, and cut again.
            chosen = examples[np.minimum(np.arange(start, start + batch), len(examples) - 1)].astype(np.int32)
            share = mapping.split(PlanStep(chosen, np.full_like(chosen, view)))
            return share if on_device else dataclasses.replace(share, images=images[share.examples])

        pieces = []
        for share in read_ahead(range(0, len(examples), batch), read):
            pieces.append(jax.tree.map(np.asarray, step(placed(), everything, share)))
            trim()
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(examples)], *pieces)

    predict = predictor(network, size=shown.size, mapping=mapping)

    def clean(images: Images) -> np.ndarray:
        return predict(mapping.place(alone), images)[0, 0]

    parts: dict[str, Any] = {"teacher": tree_digest(variables), "model": name, "size": shown.size, "dtype": dtype}
    bands: InputBands | None = getattr(network, "bands", None)
    if bands is not None and bands.chosen:
        parts["bands"] = dataclasses.asdict(bands)
    return Teacher(parts, views, clean, (network, variables))
