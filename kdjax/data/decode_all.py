"""Decodes encoded images into the rows of an image buffer, in threads; collects failures and can be resumed."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax.data import decode, meaning, pixels
from kdjax.data.bands import MissingBandsError, OrderError
from kdjax.data.cache import ImageBuffer
from kdjax.data.meaning import Meaning
from kdjax.errors import InputError

_PROGRESS_SECONDS = 5.0
_IMAGES_AT_ONCE = 1024  # images that are queued for the threads at a time
_CONFIGURED, _OF_LABELED = "as configured", "as of the labeled tiles"
_LIKE_BYTES = "no value is above 255, as of bytes in a wider type"


@dataclasses.dataclass(frozen=True)
class Raw:
    """One example as its source stores it: its name, its label (-1 = none), and a file's bytes or samples (H, W, n)."""

    name: str
    label: int
    data: bytes | np.ndarray


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The examples of a source before they are decoded.

    Attributes:
        field: the config field that names the source, for messages.
        titles: a title of each example, for messages.
        stamps: one string per example that changes when its content does (inode, size and times; name and CRC).
        read: index of an example -> Raw; called from several threads; may raise DecodeError or OSError.
        identity: JSON data that distinguishes this source from others with the same stamps.
        like: the properties with which its images must agree; None = they must only agree with each other.
    """

    field: str
    titles: Sequence[str]
    stamps: Sequence[str]
    read: Callable[[int], Raw]
    identity: Any
    like: Meaning | None = None


class _ImageNote(NamedTuple):
    """Metadata of a decoded image, in types that JSON has."""

    name: str
    label: int
    digest: str
    kind: str
    side: float
    pixel_size_m: float | None
    facts: Sequence[str]
    order: Sequence[str]


class Decoding:
    """Decodes examples into the rows of an image buffer.

    This takes a second pass over some images if the value range of deep images or the order of their bands has to be
    found first.

    Args:
        encoded: the examples, one for each row.
        buffer: the rows to fill; those that already have notes are not decoded again.
        expected: the properties that the images must have.
        configured: whether the user gave the value range. Only one that was inferred may clip most of an image.
        threads: executor that decodes.
        log: receives progress messages.

    Attributes:
        complete: whether all files could be read, whether or not they are images.
    """

    def __init__(
        self,
        encoded: Encoded,
        buffer: ImageBuffer,
        expected: Meaning,
        configured: bool,
        threads: concurrent.futures.Executor,
        log: Callable[[str], None],
    ):
        self._encoded, self._buffer, self._threads, self._log = encoded, buffer, threads, log
        self._like, self._meaning = encoded.like, expected
        self._range_source = _CONFIGURED if configured else _OF_LABELED
        self._failed: dict[int, tuple[str, str]] = {}
        self._samples: dict[int, np.ndarray] = {}
        self._without_order: list[int] = []
        self._outside_range: list[int] = []
        self._present_bands: dict[int, tuple[str, ...]] = {}
        self._clips = encoded.like is None and not configured
        self.complete = True

    def run(self) -> None:
        """Decodes the rows that are missing.

        Raises:
            InputError: no value range or band order fits all images, the configured range fits none of them, or all
                lack the same bands.
        """
        count, done = len(self._encoded.stamps), self._buffer.notes
        if done:
            self._log(f"decoding {self._encoded.field}: {len(done)} of {count} images were decoded before")
        if self._buffer.settled is not None:
            self._set_range(*self._buffer.settled)
        with decode.decoding_warnings():
            self._decode_rows([i for i in range(count) if i not in done])
            if self._samples:
                self._buffer.settle(self._find_range())
                self._set_range(*self._buffer.settled)
                self._decode_rows(sorted(self._samples))
            self._set_order()
            if self._meaning.bands and self._meaning.bands.order:
                self._decode_rows(sorted(self._without_order))
            # Images outside the range are clipped, unless they are the majority: then they are of another kind.
            if self._range_source == _OF_LABELED and len(self._outside_range) <= len(self._buffer.notes):
                self._clips = True
                self._decode_rows(sorted(self._outside_range))
        self._check_range()
        self._check_bands()

    def content(self) -> dict[str, Any]:
        """JSON data on the images: names, meaning and notes; titles and reasons of those that failed."""
        notes, image_notes = [], self._notes()
        kinds = collections.Counter(note.kind for note in image_notes)
        deep = sum(count for kind, count in kinds.items() if kind != meaning.BYTES)
        value_range = self._meaning.value_range if deep else ()
        if deep:
            highest = np.iinfo(self._buffer.images.dtype).max
            notes.append(
                f"{deep} 16-bit or float images: values {value_range[0]:g}..{value_range[1]:g} became 0..{highest} "
                f"({self._range_source})"
            )
        if len(kinds) > 1:
            notes.append(f"kinds of numbers: {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}")
        fact_counts = collections.Counter(fact for note in image_notes for fact in note.facts)
        notes.extend(f"{count} images: {fact}" for fact, count in sorted(fact_counts.items()))
        return {
            "names": [note.name for note in image_notes],
            "meaning": Meaning(
                value_range,
                tuple(sorted(kinds)),
                **_medians([(note.side, note.pixel_size_m) for note in image_notes]),
                bands=self._meaning.bands,
            ).metadata(),
            "notes": notes,
            "failed": [list(self._failed[i]) for i in sorted(self._failed)],
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays on the decoded images: rows int64 (N,), labels int32 (N,) and digests uint8 (N, 32)."""
        image_notes = self._notes()
        digests = b"".join(bytes.fromhex(note.digest) for note in image_notes)
        return {
            "rows": np.array(sorted(self._buffer.notes), np.int64),
            "labels": np.array([note.label for note in image_notes], np.int32),
            "digests": np.frombuffer(digests, np.uint8).reshape(-1, 32),
        }

    def _notes(self) -> list[_ImageNote]:
        return [_ImageNote(*self._buffer.notes[row]) for row in sorted(self._buffer.notes)]

    def _find_range(self) -> tuple[float, float, str]:
        samples = [self._samples[i] for i in sorted(self._samples)]
        try:
            return pixels.choose_range(samples)
        except decode.DecodeError as error:
            raise InputError(
                f"{self._encoded.field}: {error}; convert one kind, so that dataset.value_range fits"
            ) from error

    def _set_range(self, low: float, high: float, how: str) -> None:
        self._meaning, self._range_source = dataclasses.replace(self._meaning, value_range=(low, high)), how

    def _check_range(self) -> None:
        """Refuses a configured value range that fits none of the images."""
        image_notes = self._notes()
        if (
            self._range_source != _CONFIGURED
            or not self._meaning.value_range
            or self._like is not None
            or not image_notes
        ):
            return
        prefix = "dataset.value_range is ({:g}, {:g}), but".format(*self._meaning.value_range)
        deep = [note for note in image_notes if note.kind != meaning.BYTES]
        if not deep:
            raise InputError(f"{prefix} all images are 8-bit, which are taken as they are: leave it out")
        if all(_LIKE_BYTES in note.facts for note in deep):
            raise InputError(f"{prefix} of all 16-bit and float images {_LIKE_BYTES}: set it to (0.0, 255.0)")

    def _check_bands(self) -> None:
        """Refuses images that all have the same ones of the requested bands, but not all of those."""
        if self._like is None and self._failed.keys() == self._present_bands.keys() and not self._buffer.notes:
            sets = set(self._present_bands.values())
            if len(sets) == 1 and (present := sets.pop()):
                listed = ",".join(map(repr, present))
                raise InputError(
                    f"{self._encoded.field}: all images lack the same bands ({self._failed[0][1]}): set "
                    f'dataset.bands="({listed}{"," * (len(present) == 1)})", the bands that they have'
                )

    def _set_order(self) -> None:
        """Applies the band order that some images show to the whole data set: images of dark water do not show it.

        Raises:
            InputError: images show different orders.
        """
        bands = self._meaning.bands
        if bands is None or bands.order or len(bands.orders) < 2:
            return
        title_by_order: dict[tuple[str, ...], str] = {}
        for row in sorted(self._buffer.notes):
            if order := tuple(_ImageNote(*self._buffer.notes[row]).order):
                title_by_order.setdefault(order, self._encoded.titles[row])
        if len(title_by_order) > 1:
            (first_order, first), (second_order, second) = list(title_by_order.items())[:2]
            raise InputError(
                f"{self._encoded.field}: by their values the bands of {first} are in the order "
                f"{' '.join(first_order)}, but those of {second} in {' '.join(second_order)}: give all files one "
                "order, and say it in dataset.file_bands"
            )
        for order in title_by_order:
            self._meaning = dataclasses.replace(self._meaning, bands=dataclasses.replace(bands, order=order))

    def _decode_rows(self, rows: Sequence[int]) -> None:
        """Decodes rows in threads, and logs progress."""
        started = reported = time.monotonic()
        done = 0
        for start in range(0, len(rows), _IMAGES_AT_ONCE):
            for _ in self._threads.map(self._decode_row, rows[start : start + _IMAGES_AT_ONCE]):
                done += 1
                if (now := time.monotonic()) - reported >= _PROGRESS_SECONDS:
                    reported = now
                    rate = done / (now - started)
                    seconds_left = (len(rows) - done) / rate
                    self._log(
                        f"decoding {self._encoded.field}: {done}/{len(rows)} images  {rate:.0f} images/s  "
                        f"{seconds_left // 60:.0f}:{seconds_left % 60:02.0f} left"
                    )

    def _decode_row(self, i: int) -> None:
        """Decodes one row, or records why it has to wait or why it failed."""
        try:
            raw = self._encoded.read(i)
            with decode.open_image(raw.data, self._meaning.bands) as decoded:
                images = self._buffer.images
                if self._meaning.bands and decoded.deep != (images.dtype != np.uint8):
                    complaint = "others are of another depth: convert it"
                    if self._meaning.value_range and self._like is None and self._range_source == _CONFIGURED:
                        complaint = (
                            "and the value range of dataset.value_range or dataset.sensor is of deeper ones: leave it "
                            "out if all are like this, else convert it"
                        )
                    raise decode.DecodeError(f"{decoded.pixels.dtype} pixels, {complaint}")
                if decoded.deep and not self._meaning.value_range and self._like is None:
                    # The range is chosen from the samples of all images; then this image is decoded again.
                    self._samples[i] = pixels.sample(decoded)
                    return
                image, facts = self._stored(decoded)
                if decoded.deep and self._meaning.are_bytes(float(pixels.sample(decoded).max(initial=0))):
                    facts += (_LIKE_BYTES,)
                height, width = image.shape[:2]
                note = _ImageNote(
                    raw.name,
                    raw.label,
                    # Deep images are digested before clipping makes different values equal. The digest of 8-bit images
                    # is of the pixels as stored, as it has always been.
                    decode.digest(decoded.pixels, decoded.valid) if decoded.deep else decode.digest(image),
                    meaning.kind_of(decoded.pixels.dtype, self._meaning.value_range),
                    math.sqrt(height * width),
                    decoded.pixel_size_m,
                    facts + ("pixels without data made black",) * (decoded.valid is not None),
                    decoded.order,
                )
                self._failed.pop(i, None)
                self._buffer.add(i, decode.resize(image, images.shape[1]), note)
        except (decode.DecodeError, OSError, MemoryError) as error:
            if isinstance(error, OrderError):  # other images may show the order
                self._without_order.append(i)
            if isinstance(error, MissingBandsError):
                self._present_bands[i] = error.present
            if not isinstance(error, decode.DecodeError) or isinstance(error, decode.ReadError):
                self.complete = False
            hint = ""
            if isinstance(error, meaning.OutsideError):
                self._outside_range.append(i)
                if self._like is None or self._range_source == _OF_LABELED:
                    hint = ": dataset.value_range says what is black and white"
            self._failed[i] = self._encoded.titles[i], f"{error}{hint}"

    def _stored(self, decoded: decode.Decoded) -> tuple[np.ndarray, tuple[str, ...]]:
        """An image in the form in which it is stored, and facts about it."""
        try:
            return self._meaning.to_stored(decoded), decoded.facts
        except meaning.OutsideError:
            if not self._clips:
                raise
            return self._meaning.to_stored(decoded, outside=True), (
                *decoded.facts,
                "most values lie outside of that range",
            )


def _medians(sizes: Sequence[tuple[float, float | None]]) -> dict[str, float]:
    """Median sizes of the tiles, as fields of `Meaning`.

    `sizes` holds for each tile its side in px and the side of a pixel on the ground in m, or None. The sizes on the
    ground are included if at least half of the tiles have one.
    """
    if not sizes:
        return {}
    medians = {"tile_px": statistics.median(side for side, _ in sizes)}
    georeferenced = [(side, pixel_size) for side, pixel_size in sizes if pixel_size is not None]
    if 2 * len(georeferenced) >= len(sizes):
        medians["pixel_size_m"] = statistics.median(pixel_size for _, pixel_size in georeferenced)
        medians["ground_size_m"] = statistics.median(side * pixel_size for side, pixel_size in georeferenced)
    return medians
