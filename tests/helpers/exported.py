"""Students as they are exported, and images for them."""

import functools

import numpy as np
import onnxruntime
from helpers.variables import randomized, with_statistics_of

from kdjax import networks
from kdjax.deploy.export.fold import fold

CLASSES = ("field", "forest", "sea", "town", "wüste")


@functools.cache
def student(name, width, head="average"):
    """A student of these classes and its variables, which tell one image from another."""
    model = networks.create(name, num_classes=len(CLASSES), width=width, head=head, dropout=0.2)
    return model, with_statistics_of(model, randomized(model, 32), pixels(16, 32, seed=0) / np.float32(255))


@functools.cache
def folded(name, width, storage_size, image_size, head="average"):
    """The graph of that student."""
    return fold(name, student(name, width, head)[1], storage_size=storage_size, image_size=image_size)


def pixels(count, side, seed=1):
    """Images (count, side, side, 3) uint8: a color for each, a slope and noise."""
    rng = np.random.default_rng(seed)
    slope = rng.normal(0, 60, (count, 1, 1, 3)) * np.linspace(-1, 1, side)[:, None, None]
    values = rng.uniform(40, 215, (count, 1, 1, 3)) + slope + rng.normal(0, 30, (count, side, side, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def run_onnx(model, images):
    """Logits by onnxruntime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def assert_close(logits, expected):
    """Equal to rounding, measured by what tells one image from another."""
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.ptp(expected, axis=0).max())
