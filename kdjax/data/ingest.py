"""Many encoded images -> rows of one array: taken from the cache, or decoded into it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.data import cache, decode, meaning
from kdjax.data.bands import SENSORS, Bands, named
from kdjax.data.dataset import Context, Pool
from kdjax.data.decode_all import Decoding, Encoded
from kdjax.data.meaning import Meaning
from kdjax.data.rows import Rows
from kdjax.errors import InputError
from kdjax.runtime import host

_NAMES_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Ingested:
    """The examples that could be decoded, in the order of the source.

    Attributes:
        images: (N, S, S, channels), uint8 or uint16.
        rows: int64 (N,), the number of each example in the source, which also counts the skipped ones.
        labels: int32 (N,).
        names: N names.
        digests: N digests of the pixels before resizing.
        hashes: uint8 (N, 32) of the images, see `row_hashes`.
        meaning: what their numbers and sizes were.
        notes: facts worth logging.
    """

    images: Rows
    rows: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    digests: tuple[str, ...]
    hashes: np.ndarray
    meaning: Meaning
    notes: tuple[str, ...]

    def pool(self, name: str, classes: Sequence[str], *, sides: Sequence[str], notes: Sequence[str] = ()) -> Pool:
        """The examples as a source's Pool; `sides` has one for each, `notes` go before those of decoding."""
        return Pool(
            name,
            tuple(classes),
            self.images,
            self.labels,
            self.names,
            self.digests,
            tuple(sides),
            (*notes, *self.notes),
            self.meaning,
            hashes=self.hashes,
        )


def ingest(encoded: Encoded, section: Mapping[str, Any], context: Context) -> Ingested:
    """Reads, decodes and resizes all examples of a source, or takes them from the cache.

    Args:
        encoded: the examples.
        section: reads `storage_size`, `value_range` ((low, high) for deep images, () to infer one) and `on_error`.
        context: its cache and log.

    Raises:
        InputError: unreadable images with on_error='refuse', or no readable image at all.
    """
    like = encoded.like
    sensor = SENSORS[section["sensor"]].value_range if section["sensor"] else ()
    asked = tuple(float(value) for value in (like and like.value_range) or section["value_range"] or sensor)
    configured = bool(section["value_range"] or sensor)
    bands = like.bands if like else named(section)
    key = cache.key_of(
        [
            decode.VERSION,
            encoded.identity,
            list(encoded.stamps),
            section["storage_size"],
            asked,
            None if like is None else [like.numbers, configured],
            *([bands.metadata()] if bands else []),
        ]
    )
    folder = None if context.cache_dir is None else pathlib.Path(context.cache_dir) / "decoded" / key
    channels = len(bands.names) if bands else 3
    shape = (len(encoded.stamps), section["storage_size"], section["storage_size"], channels)
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor(max(2, host.cores())))
        stored = None if folder is None else cache.read(folder, threads, context.log)
        if stored is None and folder is not None:
            with _named(folder):
                waited = stack.enter_context(cache.writer_lock(folder, context.log))
            stored = cache.read(folder, threads, context.log) if waited else None
        if stored is None:
            # Without a set to agree with, bytes and any numbers that the range fits may come together.
            numbers = like.numbers if like else () if bands else (meaning.BYTES,)
            expected = Meaning(asked, numbers, bands=bands)
            dtype = _dtype(encoded, bands) if bands and not asked and not like else expected.dtype
            filling = cache.ImageBuffer(np.zeros(shape, dtype))
            if folder is not None:
                with _named(folder):
                    filling = stack.enter_context(cache.Writer(folder, shape, dtype, threads))
            decoding = Decoding(encoded, filling, expected, configured, threads, context.log)
            decoding.run()
            stored = cache.CachedImages(filling.images, filling.hashes, decoding.content(), decoding.arrays())
            # What is refused is not kept, nor what was not read: the disk or the mount may be well next time, and
            # stamps would not show it.
            keep = decoding.complete and stored.content["names"]
            if folder is not None and keep and (section["on_error"] == "skip" or not stored.content["failed"]):
                with _named(folder):
                    stored = filling.finish(stored.content, stored.arrays)
    content, arrays = stored.content, stored.arrays
    notes = list(content["notes"])
    if content["failed"]:
        notes.append(_judge(encoded.field, content["failed"], section["on_error"]))
    if not content["names"]:
        raise InputError(f"{encoded.field}: no readable image{': ' + notes[-1] if content['failed'] else ''}")
    return Ingested(
        Rows((stored.images,), arrays["rows"]),
        arrays["rows"],
        arrays["labels"],
        tuple(content["names"]),
        tuple(digest.tobytes().hex() for digest in arrays["digests"]),
        stored.hashes[arrays["rows"]],
        Meaning.from_metadata(content["meaning"]),
        tuple(notes),
    )


def _judge(field: str, failed: Sequence[Sequence[str]], on_error: str) -> str:
    """A note on images that are skipped.

    Raises:
        InputError: they are to be refused.
    """
    listed = "; ".join(f"{name} ({reason})" for name, reason in failed[:_NAMES_SHOWN])
    more = len(failed) - _NAMES_SHOWN
    listed += f"; and {more} more" if more > 0 else ""
    images = f"{len(failed)} unreadable image{'s' * (len(failed) > 1)}"
    if on_error == "refuse":
        raise InputError(f"{field}: {images}: {listed}. Repair or remove them, or set dataset.on_error='skip'")
    return f"{images} skipped: {listed}"


def _dtype(encoded: Encoded, bands: Bands) -> np.dtype:
    """In which to store images whose range is not known yet: that of bytes, if the first readable image has them."""
    with decode.warnings_settled():
        for i in range(len(encoded.stamps)):
            with contextlib.suppress(decode.DecodeError, OSError, MemoryError):
                return np.dtype(np.uint16 if decode.decode(encoded.read(i).data, bands).deep else np.uint8)
    return np.dtype(np.uint8)


@contextlib.contextmanager
def _named(folder: pathlib.Path) -> Iterator[None]:
    """Errors of writing to the cache name its folder."""
    try:
        yield
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"the cache folder {folder.parent} cannot be written: {why}") from error
