"""Turns many encoded images into rows of one array, by reading them from the cache or decoding them into it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.data import cache, decode, meaning
from kdjax.data.bands import SENSORS, Bands, requested_bands
from kdjax.data.dataset import Context, Pool
from kdjax.data.decode_all import Decoding, Encoded
from kdjax.data.meaning import Meaning
from kdjax.data.rows import Rows
from kdjax.errors import InputError
from kdjax.runtime import host

_NAMES_LISTED = 10


@dataclasses.dataclass(frozen=True)
class Ingested:
    """The examples that could be decoded, in the order of the source.

    Attributes:
        images: (N, S, S, channels), uint8 or uint16.
        rows: int64 (N,), the index of each example in the source, where skipped ones count as well.
        labels: int32 (N,).
        names: N names.
        digests: N digests of the pixels before resizing.
        hashes: uint8 (N, 32), the `row_hashes` of the images.
        meaning: kind of numbers, bands and size of the images.
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
        """The examples as a source's Pool, with a side for each; `notes` come before the notes on decoding."""
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
        section: reads `storage_size`, `value_range` ((low, high) for deep images, () to infer one), `on_error`, and
            `sensor`, `file_bands` and `bands`.
        context: cache and log.

    Raises:
        InputError: an image is unreadable and on_error='refuse', or no image is readable.
    """
    like = encoded.like
    sensor = SENSORS[section["sensor"]].value_range if section["sensor"] else ()
    value_range = tuple(float(value) for value in (like and like.value_range) or section["value_range"] or sensor)
    configured = bool(section["value_range"] or sensor)
    bands = like.bands if like else requested_bands(section)
    key = cache.key_of(
        [
            decode.VERSION,
            encoded.identity,
            list(encoded.stamps),
            section["storage_size"],
            value_range,
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
            with _naming_cache_folder(folder):
                waited = stack.enter_context(cache.writer_lock(folder, context.log))
            stored = cache.read(folder, threads, context.log) if waited else None
        if stored is None:
            # Images that need not agree with a data set may mix bytes with any numbers that the range fits.
            numbers = like.numbers if like else () if bands else (meaning.BYTES,)
            expected = Meaning(value_range, numbers, bands=bands)
            dtype = _dtype(encoded, bands) if bands and not value_range and not like else expected.dtype
            buffer = cache.ImageBuffer(np.zeros(shape, dtype))
            if folder is not None:
                with _naming_cache_folder(folder):
                    buffer = stack.enter_context(cache.Writer(folder, shape, dtype, threads))
            decoding = Decoding(encoded, buffer, expected, configured, threads, context.log)
            decoding.run()
            stored = cache.CachedImages(buffer.images, buffer.hashes, decoding.content(), decoding.arrays())
            # Refused data sets are not cached, nor those with files that were not read: the disk or the mount may work
            # again next time, and the stamps would not show it.
            keep = decoding.complete and stored.content["names"]
            if folder is not None and keep and (section["on_error"] == "skip" or not stored.content["failed"]):
                with _naming_cache_folder(folder):
                    stored = buffer.finish(stored.content, stored.arrays)
    content, arrays = stored.content, stored.arrays
    notes = list(content["notes"])
    if content["failed"]:
        notes.append(_skip_note(encoded.field, content["failed"], section["on_error"]))
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


def _skip_note(field: str, failed: Sequence[Sequence[str]], on_error: str) -> str:
    """Makes the note on images that are skipped.

    Raises:
        InputError: on_error='refuse', so unreadable images are not skipped.
    """
    examples = "; ".join(f"{name} ({reason})" for name, reason in failed[:_NAMES_LISTED])
    unlisted = len(failed) - _NAMES_LISTED
    examples += f"; and {unlisted} more" if unlisted > 0 else ""
    images = f"{len(failed)} unreadable image{'s' * (len(failed) > 1)}"
    if on_error == "refuse":
        raise InputError(f"{field}: {images}: {examples}. Repair or remove them, or set dataset.on_error='skip'")
    return f"{images} skipped: {examples}"


def _dtype(encoded: Encoded, bands: Bands) -> np.dtype:
    """The dtype in which to store images whose value range is not known yet; the first readable image decides."""
    with decode.decoding_warnings():
        for i in range(len(encoded.stamps)):
            with contextlib.suppress(decode.DecodeError, OSError, MemoryError):
                return np.dtype(np.uint16 if decode.decode(encoded.read(i).data, bands).deep else np.uint8)
    return np.dtype(np.uint8)


@contextlib.contextmanager
def _naming_cache_folder(folder: pathlib.Path) -> Iterator[None]:
    """Turns errors of writing to the cache into an InputError that names its folder."""
    try:
        yield
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise InputError(f"the cache folder {folder.parent} cannot be written: {cause}") from error
