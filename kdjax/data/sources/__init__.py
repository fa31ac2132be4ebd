"""Where images come from: a source is one file here, and one line in `SOURCES`."""

from collections.abc import Callable, Mapping
from typing import Any

from kdjax.data.dataset import Context, Pool
from kdjax.data.sources import demo, folder

Source = Callable[[Mapping[str, Any], Context], Pool]


def _tfds(section: Mapping[str, Any], context: Context) -> Pool:
    # tensorflow_datasets takes seconds to import: only those who use it pay.
    from kdjax.data.sources import tfds

    return tfds.load(section, context)


SOURCES: dict[str, Source] = {"demo": demo.load, "folder": folder.load, "tfds": _tfds}
"""dataset.source -> what reads it, from the fields of config.dataset."""
