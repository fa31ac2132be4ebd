"""Image data sets as uint8 or uint16 arrays with splits."""

from kdjax.data.checks import check
from kdjax.data.dataset import Dataset, Split
from kdjax.data.loading import load

__all__ = ["Dataset", "Split", "check", "load"]
