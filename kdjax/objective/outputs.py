"""The outputs of a network for a batch of images."""

from typing import Any

import flax.struct

Array = Any
"""A device array, a NumPy array or a tracer, because the same trees are built on the host and traced for a device."""


@flax.struct.dataclass
class Outputs:
    """The outputs that every network returns.

    Attributes:
        logits: (b, classes), in at least float32.
        features: (b, F), in at least float32: the input of the last linear layer, before dropout; None if they are not
            needed.
    """

    logits: Array
    features: Array = None
