"""Networks that are not trained: their weights stay as they are, and at most a head is fitted to their features."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data.dataset import Split
from kdjax.errors import InputError
from kdjax.networks.classes import class_places
from kdjax.networks.layers import InputBands, images_for
from kdjax.networks.weights_metadata import class_names
from kdjax.objective.outputs import Outputs
from kdjax.runtime.keys import key
from kdjax.training import initial_weights
from kdjax.training.learner import Learner
from kdjax.training.predictor import population_metrics, predictor
from kdjax.training.probe import Probe, probe
from kdjax.training.state import TrainState, update_best


class Encoder(nn.Module):
    """A network that returns its features in place of its logits.

    Args:
        network: the network; its parameters are under `network`.
    """

    network: nn.Module

    @property
    def bands(self) -> InputBands:
        """The bands of the network."""
        return self.network.bands

    def __call__(self, images: jax.Array, train: bool = False) -> Outputs:
        """The features (b, F) of images (b, H, W, bands) in [0, 1]."""
        outputs: Any = self.network(images, train)
        return Outputs(outputs.features)


def fit_head(
    learner: Learner, train: Split, validation: Split, *, selected_by: str, weights: Sequence[float] = ()
) -> tuple[TrainState, Probe]:
    """Fits the head of a single network to the features of its images, without augmentation.

    Args:
        learner: a single network with a head of one linear layer.
        train: labeled examples.
        validation: chooses the penalty.
        selected_by: see `TrainingData.selected_by`.
        weights: class weights; () weighs all classes alike.

    Returns:
        The state at the end of the schedule, on the host, and the fit.

    Raises:
        InputError: the network's outputs are not finite.
    """
    state: Any = jax.tree.map(np.asarray, initial_weights.initial(learner))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    encoder = learner.mapping.place({kind: {"network": leaves} for kind, leaves in variables.items()}, "rows")
    encode = predictor(Encoder(learner.network), size=learner.size, mapping=learner.mapping)
    features = [(encode(encoder, split.images)[0, 0], split.labels) for split in (train, validation)]
    classes = variables["params"]["head"]["bias"].shape[-1]
    fit = probe(*features, classes=classes, weights=weights, selected_by=selected_by)
    head = {"kernel": fit.kernel[None, None], "bias": fit.bias[None, None]}
    variables["params"] = {**variables["params"], "head": head}
    return _final_state(learner, state, variables, validation, selected_by)[0], fit


def as_trained(
    learner: Learner, classes: Sequence[str], validation: Split, *, selected_by: str
) -> tuple[TrainState, dict[str, Any]]:
    """Loads a single network as it was trained elsewhere, with its head.

    Args:
        learner: a single network. `classes` of its section names the logits of the file in their order; if it is empty,
            the file's metadata do.
        classes: the classes of the data set. The file must have each of them; its other classes are left out.
        validation: the split that the network is measured on.
        selected_by: see `TrainingData.selected_by`.

    Returns:
        The state at the end of the schedule, on the host, and its figures on validation.

    Raises:
        InputError: the file lacks a tensor or a class, does not say which logit is which class, or gives logits that
            are not finite.
    """
    field, source = f"{learner.name}.weights", learner.section.weights
    declared, stored = list(map(str, learner.section.classes)), class_names(source)
    indices = class_places(f"{field} {source}", stored, declared, classes)
    names = declared or stored or ()
    network = learner.network.clone(num_classes=len(names))
    example = images_for(network, learner.size)
    layout: Any = jax.eval_shape(lambda key, images: network.init(key, images, train=False), key(0), example)
    layout = {kind: layout.get(kind, {}) for kind in ("params", "batch_stats")}
    try:
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), layout)
        loaded = initial_weights.load(learner, zeros, "whole")
    except InputError as error:
        raise InputError(
            f"{learner.name}.{error}; {learner.name}.fit='nothing' takes the file as it is, with a head for the "
            f"{len(names)} classes {', '.join(names)}"
        ) from None
    initial_weights.write_record(learner, loaded)
    head = loaded.variables["params"]["head"]
    last = head.get("logits", head)  # a head of several layers names its last one "logits"
    last |= {leaf: value[..., indices] for leaf, value in last.items()}
    state: Any = jax.tree.map(np.asarray, learner.scratch())
    variables = jax.tree.map(lambda leaf: leaf[None, None], loaded.variables)
    return _final_state(learner, state, variables, validation, selected_by)


def _final_state(
    learner: Learner, state: Any, variables: dict[str, Any], validation: Split, selected_by: str
) -> tuple[TrainState, dict[str, Any]]:
    """`state` with these variables at the end of the schedule, and their figures on validation."""
    logits = learner.predictor(learner.mapping.place(variables, "rows"), validation.images)
    metrics = population_metrics(logits, validation.labels)[0][0]
    if metrics["nll"] is None:
        raise InputError(
            f"{learner.name}.weights {learner.section.weights}: the network gives values that are not finite for "
            "validation images: export it again, or take weights of another"
        )
    state = dataclasses.replace(
        state, step=np.int32(learner.total_steps), ema=variables if state.ema else {}, **variables
    )
    score, nll = (jnp.full((1, 1), metrics[name]) for name in (selected_by, "nll"))
    return jax.tree.map(np.asarray, update_best(state, score, nll)), metrics
