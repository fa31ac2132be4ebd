"""kdjax: knowledge distillation for land-use image classification in JAX."""

__version__ = "0.1.0"
