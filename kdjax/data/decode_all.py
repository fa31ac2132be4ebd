"""Encoded images -> rows of a store: decoded in threads, failures collected by name; interrupted, it goes on later."""

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
from kdjax.data.bands import OrderError
from kdjax.data.cache import ImageBuffer
from kdjax.data.meaning import Meaning
from kdjax.errors import InputError

_PROGRESS_SECONDS = 5.0
_AT_ONCE = 1024  # images that are handed to the threads
_CONFIGURED, _OF_LABELED = "as configured", "as of the labeled tiles"
_LIKE_BYTES = "no value is above 255, as of bytes in a wider type"


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


class _Note(NamedTuple):
    """What is known of an image that was decoded, as JSON has it."""

    name: str
    label: int
    digest: str
    kind: str
    side: float
    pixel_size_m: float | None
    facts: Sequence[str]
    order: Sequence[str]


class Decoding:
    """Fills the rows of a store, in one pass, or in two where the value range of deep images or the order of their
    bands is to be found first.

    Args:
        encoded: the examples, one for each row.
        filling: the rows; those with notes are not decoded again.
        expected: what the images are to be.
        configured: whether the user gave the value range. One that was found may clip an image.
        threads: decode.
        log: takes lines of progress.

    Attributes:
        complete: whether all files could be read, be they images or not.
    """

    def __init__(
        self,
        encoded: Encoded,
        filling: ImageBuffer,
        expected: Meaning,
        configured: bool,
        threads: concurrent.futures.Executor,
        log: Callable[[str], None],
    ):
        self._encoded, self._filling, self._threads, self._log = encoded, filling, threads, log
        self._like, self._meaning, self._how = encoded.like, expected, _CONFIGURED if configured else _OF_LABELED
        self._failed: dict[int, tuple[str, str]] = {}
        self._samples: dict[int, np.ndarray] = {}
        self._unordered: list[int] = []
        self._outside: list[int] = []
        self._clips = encoded.like is None and not configured
        self.complete = True

    def run(self) -> None:
        """Decodes what is missing.

        Raises:
            InputError: no value range or no order of bands fits all images, or the given range none of them.
        """
        count, done = len(self._encoded.stamps), self._filling.notes
        if done:
            self._log(f"decoding {self._encoded.field}: {len(done)} of {count} images were decoded before")
        if self._filling.settled is not None:
            self._take_range(*self._filling.settled)
        with decode.warnings_settled():
            self._all([i for i in range(count) if i not in done])
            if self._samples:
                self._filling.settle(self._find_range())
                self._take_range(*self._filling.settled)
                self._all(sorted(self._samples))
            self._take_order()
            if self._meaning.bands and self._meaning.bands.order:
                self._all(sorted(self._unordered))
            # If most lie outside, they are of another kind.
            if self._how == _OF_LABELED and len(self._outside) <= len(self._filling.notes):
                self._clips = True
                self._all(sorted(self._outside))
        self._check_range()

    def content(self) -> dict[str, Any]:
        """What is known of the images, JSON data: names, meaning, notes; titles and reasons of those that failed."""
        notes, kept = [], self._notes()
        kinds = collections.Counter(note.kind for note in kept)
        deep = sum(count for kind, count in kinds.items() if kind != meaning.BYTES)
        low_high = self._meaning.value_range if deep else ()
        if deep:
            most = np.iinfo(self._filling.images.dtype).max
            notes.append(
                f"{deep} 16-bit or float images: values {low_high[0]:g}..{low_high[1]:g} became 0..{most} ({self._how})"
            )
        if len(kinds) > 1:
            notes.append(f"kinds of numbers: {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}")
        facts = collections.Counter(fact for note in kept for fact in note.facts)
        notes.extend(f"{count} images: {fact}" for fact, count in sorted(facts.items()))
        return {
            "names": [note.name for note in kept],
            "meaning": Meaning(
                low_high,
                tuple(sorted(kinds)),
                **_medians([(note.side, note.pixel_size_m) for note in kept]),
                bands=self._meaning.bands,
            ).metadata(),
            "notes": notes,
            "failed": [list(self._failed[i]) for i in sorted(self._failed)],
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Of the images that were decoded: rows int64 (N,), labels int32 (N,) and digests uint8 (N, 32)."""
        kept = self._notes()
        digests = b"".join(bytes.fromhex(note.digest) for note in kept)
        return {
            "rows": np.array(sorted(self._filling.notes), np.int64),
            "labels": np.array([note.label for note in kept], np.int32),
            "digests": np.frombuffer(digests, np.uint8).reshape(-1, 32),
        }

    def _notes(self) -> list[_Note]:
        return [_Note(*self._filling.notes[row]) for row in sorted(self._filling.notes)]

    def _find_range(self) -> tuple[float, float, str]:
        samples = [self._samples[i] for i in sorted(self._samples)]
        try:
            return pixels.choose_range(samples)
        except decode.DecodeError as error:
            raise InputError(
                f"{self._encoded.field}: {error}; convert one kind, so that dataset.value_range fits"
            ) from error

    def _take_range(self, low: float, high: float, how: str) -> None:
        self._meaning, self._how = dataclasses.replace(self._meaning, value_range=(low, high)), how

    def _check_range(self) -> None:
        """Refuses a value range of the configuration that no image is of."""
        kept = self._notes()
        if self._how != _CONFIGURED or not self._meaning.value_range or self._like is not None or not kept:
            return
        given = "dataset.value_range is ({:g}, {:g}), but".format(*self._meaning.value_range)
        deep = [note for note in kept if note.kind != meaning.BYTES]
        if not deep:
            raise InputError(f"{given} all images are 8-bit, which are taken as they are: leave it out")
        if all(_LIKE_BYTES in note.facts for note in deep):
            raise InputError(f"{given} of all 16-bit and float images {_LIKE_BYTES}: set it to (0.0, 255.0)")

    def _take_order(self) -> None:
        """Takes the order that images showed for all of the data set, as dark water does not show it."""
        bands = self._meaning.bands
        if bands is None or bands.order or len(bands.orders) < 2:
            return
        found: dict[tuple[str, ...], str] = {}
        for row in sorted(self._filling.notes):
            if order := tuple(_Note(*self._filling.notes[row]).order):
                found.setdefault(order, self._encoded.titles[row])
        if len(found) > 1:
            (one, first), (other, second) = list(found.items())[:2]
            raise InputError(
                f"{self._encoded.field}: by their values the bands of {first} are in the order {' '.join(one)}, but "
                f"those of {second} in {' '.join(other)}: give all files one order, and say it in dataset.file_bands"
            )
        for order in found:
            self._meaning = dataclasses.replace(self._meaning, bands=dataclasses.replace(bands, order=order))

    def _all(self, todo: Sequence[int]) -> None:
        started = said = time.monotonic()
        done = 0
        for start in range(0, len(todo), _AT_ONCE):
            for _ in self._threads.map(self._one, todo[start : start + _AT_ONCE]):
                done += 1
                if (now := time.monotonic()) - said >= _PROGRESS_SECONDS:
                    said = now
                    rate = done / (now - started)
                    left = (len(todo) - done) / rate
                    self._log(
                        f"decoding {self._encoded.field}: {done}/{len(todo)} images  {rate:.0f} images/s  "
                        f"{left // 60:.0f}:{left % 60:02.0f} left"
                    )

    def _one(self, i: int) -> None:
        try:
            raw = self._encoded.read(i)
            with decode.opened(raw.data, self._meaning.bands) as decoded:
                images = self._filling.images
                if self._meaning.bands and decoded.deep != (images.dtype != np.uint8):
                    others = "others are of another depth: convert it"
                    if self._meaning.value_range and self._like is None and self._how == _CONFIGURED:
                        others = (
                            "and the value range of dataset.value_range or dataset.sensor is of deeper ones: leave it "
                            "out if all are like this, else convert it"
                        )
                    raise decode.DecodeError(f"{decoded.pixels.dtype} pixels, {others}")
                if decoded.deep and not self._meaning.value_range and self._like is None:
                    # Without a range yet: this image is decoded again when all samples are in.
                    self._samples[i] = pixels.sample(decoded)
                    return
                image, facts = self._stored(decoded)
                if decoded.deep and self._meaning.are_bytes(float(pixels.sample(decoded).max(initial=0))):
                    facts += (_LIKE_BYTES,)
                height, width = image.shape[:2]
                note = _Note(
                    raw.name,
                    raw.label,
                    # Of deep images many values may clip to one. Bytes, as they are stored, keep their old digest.
                    decode.digest(decoded.pixels, decoded.valid) if decoded.deep else decode.digest(image),
                    meaning.kind_of(decoded.pixels.dtype, self._meaning.value_range),
                    math.sqrt(height * width),
                    decoded.pixel_size_m,
                    facts + ("pixels without data made black",) * (decoded.valid is not None),
                    decoded.order,
                )
                self._failed.pop(i, None)
                self._filling.add(i, decode.resize(image, images.shape[1]), note)
        except (decode.DecodeError, OSError, MemoryError) as error:
            if isinstance(error, OrderError):  # the others may show it
                self._unordered.append(i)
            if not isinstance(error, decode.DecodeError) or isinstance(error, decode.ReadError):
                self.complete = False
            hint = ""
            if isinstance(error, meaning.OutsideError):
                self._outside.append(i)
                if self._like is None or self._how == _OF_LABELED:
                    hint = ": dataset.value_range says what is black and white"
            self._failed[i] = self._encoded.titles[i], f"{error}{hint}"

    def _stored(self, decoded: decode.Decoded) -> tuple[np.ndarray, tuple[str, ...]]:
        """An image as it is stored, and facts about it."""
        try:
            return self._meaning.stored(decoded), decoded.facts
        except meaning.OutsideError:
            if not self._clips:
                raise
            return self._meaning.stored(decoded, outside=True), (
                *decoded.facts,
                "most values lie outside of that range",
            )


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
