"""Teachers that are trained networks of kdjax's."""

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
from kdjax.inputs.tiled import to_device_layout
from kdjax.networks import cost
from kdjax.networks.layers import InputBands
from kdjax.objective.outputs import Outputs
from kdjax.runtime import heap
from kdjax.runtime.devices import DeviceMapping
from kdjax.teacher.store import tree_digest
from kdjax.teacher.teacher import Teacher, ViewSettings
from kdjax.training.predictor import batch_per_device, predictor
from kdjax.training.step import frozen_outputs


class Mean(nn.Module):
    """An ensemble of networks of one kind: the mean of their logits, and no features (arXiv 1503.02531).

    Args:
        network: the flax module of every member.
        members: number of networks.

    Parameters: `network`, whose leaves have the leading axis (members,).
    """

    network: nn.Module
    members: int

    @property
    def bands(self) -> InputBands:
        """The input bands of the members."""
        return self.network.bands

    def __call__(self, images: jax.Array, train: bool = False) -> Outputs:
        """Returns the mean logits (b, classes) for images (b, H, W, bands) in [0, 1]."""
        member_logits = nn.vmap(
            lambda network, images: network(images, train).logits,
            in_axes=None,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            axis_size=self.members,
        )
        return Outputs(jnp.mean(member_logits(self.network, images), axis=0))


def view_step(
    variables: Any,
    examples: Examples,
    plan: PlanStep,
    *,
    network: nn.Module,
    view_settings: ViewSettings,
    axis_name: str | None = None,
) -> Outputs:
    """Computes the teacher's outputs for augmented views, from the same views that the students will see.

    Args:
        variables: the teacher's variables, without population axes.
        examples: all images if they are in device memory, and the data seed, which replaces that of `view_settings`.
        plan: this device's share; leaves have the leading axis (batch,).
        network: the teacher.
        view_settings: size and augmentation.
        axis_name: mapped device axis.

    Returns:
        Outputs with leaves (global batch, n) float, the same on every device.
    """
    images = examples.images[plan.examples] if plan.images is None else plan.images
    keys = view_keys(examples.data_seed, plan.examples, plan.views)
    outputs = frozen_outputs(network, variables, render(images, keys, view_settings.size, view_settings.augmentation))
    if axis_name is not None:
        outputs = jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, axis_name, axis=0, tiled=True), outputs)
    return outputs


def compiled_view_step(network: nn.Module, view_settings: ViewSettings, mapping: DeviceMapping) -> Any:
    """Compiles `view_step` for the devices, as a function of (variables, examples, plan)."""
    program = functools.partial(
        view_step, network=network, view_settings=dataclasses.replace(view_settings, data_seed=0)
    )
    return mapping.map(program, ("whole", "whole", "batch"))


def from_network(
    name: str,
    network: nn.Module,
    variables: Any,
    view_settings: ViewSettings,
    *,
    dtype: str,
    on_device: bool,
    mapping: DeviceMapping,
) -> Teacher:
    """Makes a teacher of a trained network.

    Args:
        name: the network's name.
        network: the flax module.
        variables: its variables, without population axes, on the host.
        view_settings: how images are shown to it.
        dtype: compute dtype, part of the fingerprint.
        on_device: whether all images are kept in device memory; if not, they are read from the host batch by batch.
        mapping: the devices.
    """
    step, trim = compiled_view_step(network, view_settings, mapping), heap.Trim()
    # Placed on first use and then kept: most runs find all logits on disk and never need the variables.
    placed_variables = functools.cache(lambda: mapping.place(variables))
    # Keeps the images alive, so that no other array can get their id.
    placed_images: dict[int, tuple[Images, Examples]] = {}
    as_population = jax.tree.map(lambda leaf: leaf[None, None], variables)  # of a single student
    image_bytes = functools.cache(lambda: cost(network, view_settings.size)["activation_bytes"])

    def views(images: Images, examples: np.ndarray, view: int) -> Outputs:
        batch = len(mapping.devices) * batch_per_device(as_population, image_bytes())
        if id(images) not in placed_images:
            heap.hand_back()  # a training before may have left many times what a batch needs, which `trim` would keep
            resident = to_device_layout(np.asarray(images), mapping.local[0]) if on_device else None
            everything = mapping.place(Examples(resident, None, data_seed=np.int32(view_settings.data_seed)))
            placed_images[id(images)] = images, everything
        _, everything = placed_images[id(images)]

        def read(start: int) -> PlanStep:
            # The last batch is padded with its last image; the padding is cut off below.
            chosen = examples[np.minimum(np.arange(start, start + batch), len(examples) - 1)].astype(np.int32)
            share = mapping.split(PlanStep(chosen, np.full_like(chosen, view)))
            return share if on_device else dataclasses.replace(share, images=images[share.examples])

        pieces = []
        for share in read_ahead(range(0, len(examples), batch), read):
            pieces.append(jax.tree.map(np.asarray, step(placed_variables(), everything, share)))
            trim()
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(examples)], *pieces)

    predict = predictor(network, size=view_settings.size, mapping=mapping)

    def clean(images: Images) -> np.ndarray:
        return predict(mapping.place(as_population), images)[0, 0]

    parts: dict[str, Any] = {
        "teacher": tree_digest(variables),
        "model": name,
        "size": view_settings.size,
        "dtype": dtype,
    }
    bands: InputBands | None = getattr(network, "bands", None)
    if bands is not None and bands.chosen:
        parts["bands"] = dataclasses.asdict(bands)
    return Teacher(parts, views, clean, (network, variables))
