"""A learner whose network stays as its weights are: only its head is fitted, in place of training."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data.dataset import Split
from kdjax.objective.outputs import Outputs
from kdjax.training.learner import Learner
from kdjax.training.predictor import population_metrics, predictor
from kdjax.training.probe import Probe, probe
from kdjax.training.state import TrainState, update_best


class Encoder(nn.Module):
    """A network's features in place of its logits.

    Args:
        network: the network, whose parameters are under `network`.
    """

    network: nn.Module

    def __call__(self, images: jax.Array, train: bool = False) -> Outputs:
        """The features (b, F) of images (b, H, W, 3) in [0, 1]."""
        outputs: Any = self.network(images, train)
        return Outputs(outputs.features)


def fit_head(learner: Learner, train: Split, validation: Split) -> tuple[TrainState, Probe]:
    """The state of a single network at the end of its schedule, its head fitted to the features of plain images.

    Args:
        learner: of one network, with a head of one linear layer.
        train: labeled examples.
        validation: chooses the penalty.

    Returns:
        The state on the host, and the fit.
    """
    state = jax.tree.map(np.asarray, learner.initial())
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    placed = learner.mapping.place({kind: {"network": leaves} for kind, leaves in variables.items()}, "rows")
    encode = predictor(Encoder(learner.network), size=learner.size, mapping=learner.mapping)
    pairs = [(encode(placed, split.images)[0, 0], split.labels) for split in (train, validation)]
    fitted = probe(*pairs, classes=variables["params"]["head"]["bias"].shape[-1])
    head = {"kernel": fitted.kernel[None, None], "bias": fitted.bias[None, None]}
    variables["params"] = {**variables["params"], "head": head}
    said = learner.predictor()(learner.mapping.place(variables, "rows"), validation.images)
    metrics = population_metrics(said, validation.labels)[0][0]
    state = dataclasses.replace(
        state, step=np.int32(learner.total_steps), ema=variables if state.ema else {}, **variables
    )
    top1, nll = (jnp.full((1, 1), metrics[name]) for name in ("top1", "nll"))
    return jax.tree.map(np.asarray, update_best(state, top1, nll)), fitted
