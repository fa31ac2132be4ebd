"""What a network family says of each of its networks, for everything that is done with any network."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn

from kdjax.networks.graph import Builder


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the tensors of one layer lie in a file of another package.

    Attributes:
        name: prefix of `.weight`, `.bias`, `.running_mean` and `.running_var` there.
        linear: a kernel (I, O) is a linear layer's (O, I) there, else a 1 x 1 convolution's (O, I, 1, 1).
        side: the layer reads a map of side x side cells, flattened: here as (side, side, C), in PyTorch as
            (C, side, side). What is no linear layer there is a convolution of that size.
    """

    name: str
    linear: bool = False
    side: int = 1


@dataclasses.dataclass(frozen=True)
class Model:
    """One network of the registry. Its classifier is the top-level layer `head`, and only that.

    Attributes:
        module: makes the module, from its fields.
        mean, std: of each band in [0, 1], as the published weights were trained with them.
        names: from a naming, such as 'torchvision', to the place of every layer by its path in the parameters
            ('block_1/expand'). An exported student is written in the first naming. Layers of other options (another
            head) may be listed too.
        graph: draws the network in evaluation, from its variables to the logits, whose node it returns.
        heads: the values of its field `head`; a network with one head has no such field.
        classifier: beginnings of the names that published files may have beyond the features.
        eps: of BatchNorm in each naming, where they differ; that of the first is the network's here. `pretrained` turns
            the scales into those that give the same network in evaluation.
        unlike: published files whose tensors have the same names and shapes, but whose network has other padding, eps
            or pixel statistics: from a pattern of their names to the file to give instead.
    """

    module: Callable[..., nn.Module]
    mean: Sequence[float]
    std: Sequence[float]
    names: Mapping[str, Mapping[str, Place]]
    graph: Callable[[Builder], str]
    heads: tuple[str, ...] = ("average",)
    classifier: tuple[str, ...] = ("classifier.", "head.", "fc.")
    eps: Mapping[str, float] = dataclasses.field(default_factory=dict)
    unlike: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def aliases(self) -> tuple[str, ...]:
        """The namings beside the first in which the same numbers, under other names, are the same network."""
        first, *others = self.names
        return tuple(other for other in others if self.eps.get(other) == self.eps.get(first))
