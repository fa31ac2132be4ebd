"""The entry of the registry with which a family describes each of its networks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn

from kdjax.networks.graph import Builder


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the tensors of one layer are in another package's file of weights.

    Attributes:
        name: prefix of `.weight`, `.bias`, `.running_mean` and `.running_var` in the file.
        linear: whether a kernel (I, O) is stored as that of a linear layer, (O, I), or of a convolution, (O, I, 1, 1).
        side: side in cells of the map that a dense layer reads. kdjax flattens it as (side, side, C), PyTorch as
            (C, side, side). If not `linear`, the layer is stored as a convolution of side x side.
    """

    name: str
    linear: bool = False
    side: int = 1


@dataclasses.dataclass(frozen=True)
class Model:
    """One network of the registry. Its classifier is the top-level layer `head`, and only that.

    Attributes:
        module: creates the module from its fields.
        mean, std: of each band in [0, 1], as the published weights were trained with.
        names: maps a naming, such as 'torchvision', to the place of every layer by its path in the parameters
            ('block_1/expand'). An exported student uses the first naming. Layers of other options (another head) may be
            listed too.
        graph: draws the network in evaluation and returns the name of the node of the logits.
        heads: possible values of the module's field `head`; a network with one head has no such field.
        classifier: prefixes of the tensors that published files may have in addition to those of the features.
        eps: BatchNorm's eps in each naming, if they differ; the network uses that of the first. `pretrained` converts
            the scales so that the network computes the same in evaluation.
        unlike: maps a pattern for the names of published files to refuse to the file to use instead. Their tensors have
            the right names and shapes, but belong to a network with other padding, eps or pixel statistics.
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
        """The other namings in which the values of the first describe the same network, because eps is the same."""
        first, *others = self.names
        return tuple(other for other in others if self.eps.get(other) == self.eps.get(first))
