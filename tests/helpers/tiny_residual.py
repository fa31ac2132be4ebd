"""A network that nobody published: three convolutions, one residual sum, an average. A family in one file."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.networks import layers
from kdjax.networks.graph import IMAGE, Builder
from kdjax.networks.model import Model, Place
from kdjax.objective.outputs import Outputs

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


class TinyResidual(nn.Module):
    """A stem of stride 2, a depthwise and a pointwise convolution whose result is added to the stem's."""

    num_classes: int
    width: float = 1.0
    dropout: float = 0.0
    form: str = "examples_first"
    dtype: jnp.dtype | None = None
    axis_name: str | None = None
    bands: layers.InputBands = layers.InputBands(MEAN, STD)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, example_keys: jax.Array | None = None) -> Outputs:
        """Logits (b, num_classes) and the features in front of the head, (b, F), of images (b, H, W, 3)."""
        form, channels = layers.FORMS[self.form], max(8, round(16 * self.width))
        norm = lambda name, ceiling: layers.BatchNorm(self.form, ceiling, self.axis_name, name=name)
        x = form.arrange(layers.normalize(images, self.bands, self.dtype))
        x = norm("stem_bn", 6.0)(layers.Convolution(channels, self.form, stride=2, name="stem")(x), train)
        y = norm("deep_bn", float("inf"))(layers.Depthwise(1, self.form, name="deep")(x), train)
        x = x + norm("wide_bn", None)(layers.Pointwise(channels, self.form, name="wide")(y), train)
        x = features = form.average(x)
        if train and example_keys is not None and self.dropout:
            x = layers.dropout(x, self.dropout, example_keys, 1)
        logits = layers.Linear(self.num_classes, name="head")(x)
        return Outputs(logits=logits, features=features.astype(layers.wide(x.dtype)))


PLACES = {
    "stem": Place("stem.conv"),
    "stem_bn": Place("stem.norm"),
    "deep": Place("block.deep"),
    "deep_bn": Place("block.deep_norm"),
    "wide": Place("block.wide"),
    "wide_bn": Place("block.wide_norm"),
    "head": Place("fc", linear=True),
}


def graph(draw: Builder) -> str:
    """The network in evaluation."""
    x = draw.rectify(draw.convolution(IMAGE, "stem", norm="stem_bn", stride=2), 6.0)
    y = draw.rectify(draw.convolution(x, "deep", norm="deep_bn"))
    x = draw.add(x, draw.convolution(y, "wide", norm="wide_bn"), "block")
    return draw.dense(draw.mean(x), "head")


MODELS = {"tiny_residual": Model(TinyResidual, mean=MEAN, std=STD, names={"own": PLACES}, graph=graph)}
