"""Many encoded images -> one uint8 array: decoded in threads, cached, failures collected by name."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kdjax.data import cache, decode
from kdjax.errors import InputError

_PROGRESS_SECONDS = 5.0
_NAMES_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Raw:
    """One example as its source stores it: its name, its label (-1 = none) and the encoded bytes."""

    name: str
    label: int
    data: bytes


@dataclasses.dataclass(frozen=True)
class Ingested:
    """The examples that could be decoded, in the order of the source.

    Attributes:
      images: uint8 (M, S, S, 3) with a row per example of the source, also for the skipped ones.
      rows: int64 (N,), the row of each example kept.
      labels: int32 (N,).
      names: N names.
      digests: N digests of the pixels before resizing.
      value_range: (low, high) that deep images were mapped by, () where there were none.
      notes: facts worth logging.
    """

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    digests: tuple[str, ...]
    value_range: tuple[float, ...]
    notes: tuple[str, ...]


def ingest(
    field: str,
    titles: Sequence[str],
    stamps: Sequence[str],
    read: Callable[[int], Raw],
    *,
    identity: Any,
    storage_size: int,
    value_range: Sequence[float],
    on_error: str,
    cache_dir: pathlib.Path | None,
    log: Callable[[str], None],
) -> Ingested:
    """Reads, decodes and resizes all examples of a source, or takes them from the cache.

    Args:
      field: the config field that named the source, for messages.
      titles: what to call each example in messages.
      stamps: one text per example that changes when its content does (name, size and time; name and CRC).
      read: example number -> Raw; called from several threads; may raise DecodeError or OSError.
      identity: JSON data that tells this source from others with the same stamps.
      storage_size: S.
      value_range: (low, high) for deep images, () to infer one.
      on_error: 'refuse' or 'skip'.
      cache_dir: where to keep decoded arrays; None keeps none.
      log: takes lines of progress.

    Raises:
      InputError: unreadable images with on_error='refuse', or no readable image at all.
    """
    asked = [float(value) for value in value_range]
    key = cache.key_of([decode.VERSION, identity, list(stamps), storage_size, asked])
    folder = None if cache_dir is None else pathlib.Path(cache_dir) / "decoded" / key
    shape = (len(stamps), storage_size, storage_size, 3)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 2)))
        if folder is not None and (found := cache.read(folder, pool, log)) is not None:
            images, content = found
        else:
            writer = None if folder is None else stack.enter_context(_writer(folder, shape))
            images = np.zeros(shape, np.uint8) if writer is None else writer.images
            content = _decode_all(field, images, titles, read, asked, pool, log)
            # What is refused is not kept: the user may mend the disk or the mount, and stamps would not show it.
            if writer is not None and (on_error == "skip" or not content["failed"]) and content["names"]:
                writer.finish(content, pool)
                images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    notes = list(content["notes"])
    if content["failed"]:
        listed = "; ".join(f"{name} ({reason})" for name, reason in content["failed"][:_NAMES_SHOWN])
        more = len(content["failed"]) - _NAMES_SHOWN
        listed += f"; and {more} more" if more > 0 else ""
        count = len(content["failed"])
        if on_error == "refuse":
            raise InputError(
                f"{field}: {count} unreadable image{'s' * (count > 1)}: {listed}. "
                "Mend or remove them, or set dataset.on_error='skip'"
            )
        notes.append(f"{count} unreadable image{'s' * (count > 1)} skipped: {listed}")
    if not content["names"]:
        raise InputError(f"{field}: no readable image")
    return Ingested(
        images,
        np.asarray(content["rows"], np.int64),
        np.asarray(content["labels"], np.int32),
        tuple(content["names"]),
        tuple(content["digests"]),
        tuple(content["value_range"]),
        tuple(notes),
    )


def _writer(folder: pathlib.Path, shape: tuple[int, ...]) -> cache.Writer:
    try:
        return cache.Writer(folder, shape)
    except OSError as error:
        raise InputError(f"the cache folder {folder.parent} cannot be written: {error.strerror or error}") from error


def _decode_all(
    field: str,
    images: np.ndarray,
    titles: Sequence[str],
    read: Callable[[int], Raw],
    asked: list[float],
    pool: concurrent.futures.Executor,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Fills `images` and returns the content of the cache's index (JSON data)."""
    size = images.shape[1]
    facts: collections.Counter[str] = collections.Counter()
    failed: dict[int, tuple[str, str]] = {}
    labels: dict[int, int] = {}
    names: dict[int, str] = {}
    digests: dict[int, str] = {}
    samples: dict[int, np.ndarray] = {}
    chosen: list[float] = asked

    def one(i: int) -> tuple[str, ...]:
        try:
            raw = read(i)
            names[i], labels[i] = raw.name, raw.label
            decoded = decode.decode(raw.data)
            pixels = decoded.pixels
            if decoded.deep:
                if not chosen:
                    # Without a range yet: this image is decoded again when all samples are in.
                    samples[i] = decode.sample(pixels)
                    return ()
                pixels = decode.to_uint8(pixels, *chosen)
                samples.setdefault(i, np.empty(0))
            digests[i] = decode.digest(pixels)
            images[i] = decode.resize(pixels, size)
            return decoded.facts
        except (decode.DecodeError, OSError) as error:
            failed[i] = (titles[i], str(error))
            return ()

    def run(todo: Sequence[int]) -> None:
        started = said = time.monotonic()
        for done, found in enumerate(pool.map(one, todo), 1):
            facts.update(found)
            if (now := time.monotonic()) - said >= _PROGRESS_SECONDS:
                said = now
                log(f"decoding {field}: {done}/{len(todo)} images, {done / (now - started):.0f} images/s")

    with decode.warnings_settled():
        run(range(len(images)))
        notes = []
        if samples:
            how = "as configured"
            if not chosen:
                try:
                    low, high, how = decode.choose_range([samples[i] for i in sorted(samples)])
                except decode.DecodeError as error:
                    raise InputError(f"{field}: {error}; convert one kind, so that dataset.value_range fits") from error
                chosen = [low, high]
                run(sorted(samples))
            notes.append(
                f"{len(samples)} 16-bit or float images: values {chosen[0]:g}..{chosen[1]:g} became 0..255 ({how})"
            )
    notes.extend(f"{count} images: {fact}" for fact, count in sorted(facts.items()))
    kept = sorted(digests.keys() - failed.keys())
    return {
        "rows": kept,
        "names": [names[i] for i in kept],
        "labels": [labels[i] for i in kept],
        "digests": [digests[i] for i in kept],
        "value_range": chosen if samples else [],
        "notes": notes,
        "failed": [list(failed[i]) for i in sorted(failed)],
    }
