"""The registry of networks by name. Each family is one file with its `MODELS`, and one line here."""

import flax.linen as nn
import jax.numpy as jnp

from kdjax.errors import InputError
from kdjax.networks import efficientnet_lite, layers, mobilenet_v2, mobilenet_v3, resnet, vgg16
from kdjax.networks.cost import cost, cost_by_head, feature_count
from kdjax.networks.model import Model

__all__ = ["MODELS", "Model", "cost", "cost_by_head", "create", "feature_count"]

MODELS: dict[str, Model] = {
    **vgg16.MODELS,
    **mobilenet_v2.MODELS,
    **mobilenet_v3.MODELS,
    **efficientnet_lite.MODELS,
    **resnet.MODELS,
}


def create(
    name: str,
    num_classes: int,
    *,
    width: float = 1.0,
    head: str = "average",
    dropout: float = 0.0,
    form: str = "examples_first",
    dtype: jnp.dtype | None = None,
    axis_name: str | None = None,
) -> nn.Module:
    """Creates the network called `name`.

    Args:
        name: a key of `MODELS`.
        num_classes: length of the logits, at least 2.
        width: channel multiplier, above 0.
        head: the classifier, one of the network's `heads`.
        dropout: rate in front of the classifier or inside it.
        form: 'examples_first' (accelerators) or 'examples_last' (CPU); results are equal up to rounding.
        dtype: compute dtype; None = the dtype of the images, at least float32.
        axis_name: mapped device axis; BatchNorm takes its statistics over the batches of all devices on it.

    Returns:
        A module from images (b, H, W, 3) in [0, 1] to `Outputs`, for the bands that the published weights were trained
        on. For other bands, clone it with another field `bands`, see `layers.InputBands`.

    Raises:
        InputError: the name is unknown, or a value is out of range.
    """
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")
    heads = MODELS[name].heads
    if num_classes < 2:
        raise InputError(f"num_classes is {num_classes}: a classifier needs at least 2 classes")
    if not width > 0:
        raise InputError(f"width of {name} is {width}: give a number above 0")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout of {name} is {dropout}: give a fraction in [0, 1)")
    if head not in heads:
        raise InputError(f"head of {name} is {head!r}: choose one of {', '.join(heads)}")
    if form not in layers.FORMS:
        raise InputError(f"form of {name} is {form!r}: choose one of {', '.join(layers.FORMS)}")
    options = {"head": head} if len(heads) > 1 else {}
    return MODELS[name].module(
        num_classes=num_classes, width=width, dropout=dropout, form=form, dtype=dtype, axis_name=axis_name, **options
    )
