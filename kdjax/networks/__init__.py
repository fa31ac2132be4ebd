"""The networks, by name: VGG16 as teacher, MobileNetV2 as student."""

import functools
from typing import Any

import flax.linen as nn

from kdjax.errors import InputError
from kdjax.networks.cost import cost, cost_by_head
from kdjax.networks.mobilenet_v2 import MobileNetV2
from kdjax.networks.vgg16 import VGG16

__all__ = ["MobileNetV2", "VGG16", "cost", "cost_by_head", "create"]

MODELS = {"vgg16": VGG16, "vgg16_bn": functools.partial(VGG16, batch_norm=True), "mobilenet_v2": MobileNetV2}
CHOICES = {"head": ("average", "fc"), "depthwise": ("shift", "conv"), "convolution": ("winograd", "conv")}


def create(name: str, num_classes: int, width: float = 1.0, **options: Any) -> nn.Module:
    """The network called `name`: 'vgg16', 'vgg16_bn' or 'mobilenet_v2'.

    Args:
      num_classes: length of the logits, at least 2.
      width: channel multiplier, above 0.
      **options: further fields of the network's class, such as `dropout`, `head` (vgg16) or `depthwise`.

    Raises:
      InputError: unknown name or option, or a value out of range.
    """
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")
    if num_classes < 2:
        raise InputError(f"num_classes is {num_classes}: a classifier needs at least 2 classes")
    if not width > 0:
        raise InputError(f"width of {name} is {width}: give a number above 0")
    if not 0 <= options.get("dropout", 0) < 1:
        raise InputError(f"dropout of {name} is {options['dropout']}: give a fraction in [0, 1)")
    for option, value in options.items():
        if option in CHOICES and value not in CHOICES[option]:
            raise InputError(f"{option} of {name} is {value!r}: choose one of {', '.join(CHOICES[option])}")
    try:
        return MODELS[name](num_classes=num_classes, width=width, **options)
    except TypeError as error:
        raise InputError(f"model {name} does not take these options: {error}") from None
