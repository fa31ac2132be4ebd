"""What a network says about a batch of images."""

import flax.struct
import jax


@flax.struct.dataclass
class Outputs:
    """What every network returns.

    Attributes:
        logits: (b, classes), in at least float32.
        features: (b, F), in at least float32: what the last linear layer reads, before dropout; None where nobody needs
            them.
    """

    logits: jax.Array
    features: jax.Array | None = None
