"""What a network says about a batch of images."""

from typing import Any

import flax.struct

Array = Any
"""An array of a device, of NumPy, or traced: the same trees are built on the host and traced for a device."""


@flax.struct.dataclass
class Outputs:
    """What every network returns.

    Attributes:
        logits: (b, classes), in at least float32.
        features: (b, F), in at least float32: what the last linear layer reads, before dropout; None where nobody needs
            them.
    """

    logits: Array
    features: Array = None
