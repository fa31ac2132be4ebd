"""The sources of images; each is one file in this package and one line in `SOURCES`."""

from collections.abc import Callable, Mapping
from typing import Any

from kdjax.data.dataset import Context, Pool
from kdjax.data.sources import demo, folder

Source = Callable[[Mapping[str, Any], Context], Pool]


def _tfds(section: Mapping[str, Any], context: Context) -> Pool:
    # tensorflow_datasets takes seconds to import, so it is imported only when it is used.
    from kdjax.data.sources import tfds

    return tfds.load(section, context)


SOURCES: dict[str, Source] = {"demo": demo.load, "folder": folder.load, "tfds": _tfds}
"""dataset.source -> the function that reads it, given config.dataset."""
