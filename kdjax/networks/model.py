"""What a network family says of each of its networks, for everything that is done with any network."""

import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn


@dataclasses.dataclass(frozen=True)
class Model:
    """One network of the registry.

    Attributes:
        module: makes the module, from its fields.
        mean, std: of each band in [0, 1], as the published weights were trained with them.
        heads: the values of its field `head`; a network with one head has no such field.
    """

    module: Callable[..., nn.Module]
    mean: Sequence[float]
    std: Sequence[float]
    heads: tuple[str, ...] = ("average",)
