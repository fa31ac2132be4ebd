"""Many encoded images -> one uint8 array: decoded in threads, cached, failures collected by name."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.data import cache, decode, meaning, pixels
from kdjax.data.bands import SENSORS, Bands, named
from kdjax.data.dataset import Context, Pool
from kdjax.data.meaning import Meaning
from kdjax.errors import InputError

_PROGRESS_SECONDS = 5.0
_NAMES_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Raw:
    """One example as its source stores it: its name, its label (-1 = none), and a file's bytes or (H, W, n) samples."""

    name: str
    label: int
    data: bytes | np.ndarray


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The examples of a source before they are decoded.

    Attributes:
        field: the config field that named the source, for messages.
        titles: what to call each example in messages.
        stamps: one text per example that changes when its content does (inode, size and times; name and CRC).
        read: example number -> Raw; called from several threads; may raise DecodeError or OSError.
        identity: JSON data that tells this source from others with the same stamps.
        like: what its images must agree with; None = only with each other.
    """

    field: str
    titles: Sequence[str]
    stamps: Sequence[str]
    read: Callable[[int], Raw]
    identity: Any
    like: Meaning | None = None


@dataclasses.dataclass(frozen=True)
class Ingested:
    """The examples that could be decoded, in the order of the source.

    Attributes:
        images: (M, S, S, channels), uint8 or uint16, with a row per example of the source, also for the skipped ones.
        rows: int64 (N,), the row of each example kept.
        labels: int32 (N,).
        names: N names.
        digests: N digests of the pixels before resizing.
        meaning: what their numbers and sizes were.
        notes: facts worth logging.
    """

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    digests: tuple[str, ...]
    meaning: Meaning
    notes: tuple[str, ...]

    def pool(self, name: str, classes: Sequence[str], *, sides: Sequence[str], notes: Sequence[str] = ()) -> Pool:
        """The examples as a source's Pool; `sides` has one for each, `notes` go before those of decoding."""
        return Pool(
            name,
            tuple(classes),
            self.images,
            self.rows,
            self.labels,
            self.names,
            self.digests,
            tuple(sides),
            (*notes, *self.notes),
            self.meaning,
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
    bands = like.bands if like else named(section)
    key = cache.key_of(
        [
            decode.VERSION,
            encoded.identity,
            list(encoded.stamps),
            section["storage_size"],
            asked,
            None if like is None else like.numbers,
            *([bands.metadata()] if bands else []),
        ]
    )
    folder = None if context.cache_dir is None else pathlib.Path(context.cache_dir) / "decoded" / key
    channels = len(bands.names) if bands else 3
    shape = (len(encoded.stamps), section["storage_size"], section["storage_size"], channels)
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 2)))
        if folder is not None and (found := cache.read(folder, threads, context.log)) is not None:
            images, content = found
        else:
            # Without a set to agree with, bytes and any numbers that the range fits may come together.
            numbers = like.numbers if like else () if bands else (meaning.BYTES,)
            expected = Meaning(asked, numbers, bands=bands)
            dtype = _dtype(encoded, bands) if bands and not asked else expected.dtype
            writer = None if folder is None else stack.enter_context(_writer(folder, shape, dtype))
            images = np.zeros(shape, dtype) if writer is None else writer.images
            content, complete = _Decoding(encoded, images, expected, threads, context.log).run()
            # What is refused is not kept, nor what was not read: the disk or the mount may be well next time, and
            # stamps would not show it.
            if folder is not None and writer is not None and complete and content["names"]:
                if section["on_error"] == "skip" or not content["failed"]:
                    with _named(folder):
                        writer.finish(content, threads)
                        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    notes = list(content["notes"])
    if content["failed"]:
        notes.append(_judge(encoded.field, content["failed"], section["on_error"]))
    if not content["names"]:
        raise InputError(f"{encoded.field}: no readable image{': ' + notes[-1] if content['failed'] else ''}")
    return Ingested(
        images,
        np.asarray(content["rows"], np.int64),
        np.asarray(content["labels"], np.int32),
        tuple(content["names"]),
        tuple(content["digests"]),
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


def _writer(folder: pathlib.Path, shape: tuple[int, ...], dtype: np.dtype) -> cache.Writer:
    with _named(folder):
        return cache.Writer(folder, shape, dtype)


@contextlib.contextmanager
def _named(folder: pathlib.Path) -> Iterator[None]:
    """Errors of writing to the cache name its folder."""
    try:
        yield
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"the cache folder {folder.parent} cannot be written: {why}") from error


class _Decoding:
    """One pass, or two where the value range of deep images is to be found first."""

    def __init__(
        self,
        encoded: Encoded,
        images: np.ndarray,
        expected: Meaning,
        threads: concurrent.futures.Executor,
        log: Callable[[str], None],
    ):
        self._encoded, self._images, self._threads, self._log = encoded, images, threads, log
        self._like, self._meaning = encoded.like, expected
        self._facts: collections.Counter[str] = collections.Counter()
        self._failed: dict[int, tuple[str, str]] = {}
        self._not_read: set[int] = set()
        self._raw: dict[int, tuple[str, int]] = {}
        self._digests: dict[int, str] = {}
        self._kinds: dict[int, str] = {}
        self._sizes: dict[int, tuple[float, float | None]] = {}
        self._samples: dict[int, np.ndarray] = {}

    def run(self) -> tuple[dict[str, Any], bool]:
        """Fills the images; returns the content of the cache's index, JSON data, and whether all files were read."""
        notes = []
        with decode.warnings_settled():
            self._all(range(len(self._images)))
            how = "as configured"
            if self._samples:
                how = self._find_range()
                self._all(sorted(self._samples))
        kept = sorted(self._digests.keys() - self._failed.keys())
        kinds = collections.Counter(self._kinds[i] for i in kept)
        deep = sum(count for kind, count in kinds.items() if kind != meaning.BYTES)
        low_high = self._meaning.value_range if deep else ()
        if deep:
            most = np.iinfo(self._images.dtype).max
            notes.append(
                f"{deep} 16-bit or float images: values {low_high[0]:g}..{low_high[1]:g} became 0..{most} ({how})"
            )
        if len(kinds) > 1:
            notes.append(f"kinds of numbers: {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}")
        notes.extend(f"{count} images: {fact}" for fact, count in sorted(self._facts.items()))
        content = {
            "rows": kept,
            "names": [self._raw[i][0] for i in kept],
            "labels": [self._raw[i][1] for i in kept],
            "digests": [self._digests[i] for i in kept],
            "meaning": Meaning(
                low_high,
                tuple(sorted(kinds)),
                **_medians([self._sizes[i] for i in kept]),
                bands=self._meaning.bands,
            ).metadata(),
            "notes": notes,
            "failed": [list(self._failed[i]) for i in sorted(self._failed)],
        }
        return content, not self._not_read

    def _find_range(self) -> str:
        samples = [self._samples[i] for i in sorted(self._samples)]
        try:
            low, high, how = pixels.choose_range(samples)
        except decode.DecodeError as error:
            raise InputError(
                f"{self._encoded.field}: {error}; convert one kind, so that dataset.value_range fits"
            ) from error
        self._meaning = dataclasses.replace(self._meaning, value_range=(low, high))
        return how

    def _all(self, todo: Sequence[int]) -> None:
        started = said = time.monotonic()
        for done, found in enumerate(self._threads.map(self._one, todo), 1):
            self._facts.update(found)
            if (now := time.monotonic()) - said >= _PROGRESS_SECONDS:
                said = now
                rate = done / (now - started)
                self._log(f"decoding {self._encoded.field}: {done}/{len(todo)} images, {rate:.0f} images/s")

    def _one(self, i: int) -> tuple[str, ...]:
        try:
            raw = self._encoded.read(i)
            self._raw[i] = raw.name, raw.label
            with decode.opened(raw.data, self._meaning.bands) as decoded:
                if self._meaning.bands and decoded.deep != (self._images.dtype != np.uint8):
                    raise decode.DecodeError(f"{decoded.pixels.dtype} pixels, others are of another depth: convert it")
                if decoded.deep and not self._meaning.value_range and self._like is None:
                    # Without a range yet: this image is decoded again when all samples are in.
                    self._samples[i] = pixels.sample(decoded)
                    return ()
                image = self._meaning.stored(decoded)
                height, width = image.shape[:2]
                self._kinds[i] = meaning.kind_of(decoded.pixels.dtype, self._meaning.value_range)
                self._sizes[i] = math.sqrt(height * width), decoded.pixel_size_m
                self._digests[i] = decode.digest(image)
                self._images[i] = decode.resize(image, self._images.shape[1])
                return decoded.facts + ("pixels without data made black",) * (decoded.valid is not None)
        except (decode.DecodeError, OSError, MemoryError) as error:
            if not isinstance(error, decode.DecodeError) or isinstance(error, decode.ReadError):
                self._not_read.add(i)
            own_range = isinstance(error, meaning.OutsideError) and self._like is None
            hint = ": dataset.value_range says what is black and white" if own_range else ""
            self._failed[i] = self._encoded.titles[i], f"{error}{hint}"
            return ()


def _medians(sizes: Sequence[tuple[float, float | None]]) -> dict[str, float]:
    """Median sizes of the tiles from their sides in pixels and the ground sizes of a pixel; of the place, where half of
    them say it."""
    if not sizes:
        return {}
    found = {"tile_px": statistics.median(side for side, _ in sizes)}
    placed = [(side, pixel) for side, pixel in sizes if pixel is not None]
    if 2 * len(placed) >= len(sizes):
        found["pixel_size_m"] = statistics.median(pixel for _, pixel in placed)
        found["ground_size_m"] = statistics.median(side * pixel for side, pixel in placed)
    return found
