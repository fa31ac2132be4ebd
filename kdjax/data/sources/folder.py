"""Class folders, in a directory or a zip archive, as land-use data sets are distributed; see `layout`."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdjax.data import layout
from kdjax.data.dataset import UNLABELED, Context, Pool
from kdjax.data.decode_all import Encoded, Raw
from kdjax.data.image_files import no_images, notes_on, open_files
from kdjax.data.ingest import Ingested, ingest
from kdjax.data.meaning import Meaning
from kdjax.data.pixels import DecodeError
from kdjax.errors import InputError


def load(section: Mapping[str, Any], context: Context) -> Pool:
    """Reads class folders with their own split where they have one.

    Args:
        section: reads `path`, and what `ingest` reads.
        context: seed, cache and log.

    Returns:
        All examples.

    Raises:
        InputError: missing or not a zip; no images; one class only; unreadable images unless skipped; unclear splits.
    """
    field, path = "dataset.path", section["path"]
    if not path:
        raise InputError(f"{field}: source 'folder' needs the path of a directory or zip of class folders")
    with open_files(path, field) as files:
        if not files.paths:
            raise no_images(path, field)
        found = layout.find(files, f"{field}: {path}")

        def read(k: int) -> Raw:
            return Raw(found.names[k], found.labels[k], files.read(found.file_indices[k]))

        taken = ingest(
            Encoded(
                field,
                found.names,
                [files.stamps[i] for i in found.file_indices],
                read,
                identity=[files.identity, found.classes],
            ),
            section,
            context,
        )
        notes = (*notes_on(files), *found.notes)
    empty = set(range(len(found.classes))) - set(taken.labels.tolist())
    if empty:
        raise InputError(f"{field}: class {found.classes[min(empty)]!r} has no readable image")
    place = pathlib.Path(os.path.expanduser(path)).resolve()
    name = place.name if place.is_dir() else place.stem
    pool = taken.pool(name, found.classes, sides=[found.sides[row] for row in taken.rows], notes=notes)
    return dataclasses.replace(pool, skipped=frozenset(found.names) - set(taken.names))


def load_unlabeled(section: Mapping[str, Any], context: Context, like: Meaning) -> Ingested:
    """Reads all images below a directory or zip, whatever its folders are called; names start with 'unlabeled:'.

    Args:
        section: reads `unlabeled_dir`, and what `ingest` reads.
        context: seed, cache and log.
        like: what the labeled tiles are.

    Raises:
        InputError: missing or not a zip; no images; unreadable images unless skipped.
    """
    field, path = "dataset.unlabeled_dir", section["unlabeled_dir"]
    with open_files(path, field) as files:
        if not files.paths:
            raise no_images(path, field)
        layout.check_names(files.paths, field)
        names = [f"unlabeled:{name}" for name in files.paths]
        taken = ingest(
            Encoded(
                field,
                names,
                files.stamps,
                lambda k: Raw(names[k], UNLABELED, files.read(k)),
                identity=[files.identity, "unlabeled"],
                like=like,
            ),
            section,
            context,
        )
        return dataclasses.replace(taken, notes=(*notes_on(files), *taken.notes))


def read_named(path: str, names: Sequence[str]) -> Iterator[bytes]:
    """The encoded bytes of examples of `load`, by their names, one after the other.

    Raises:
        InputError: as `open_files`, or a file is not there any more or cannot be read.
    """
    field = "dataset.path"
    with open_files(path, field) as files:
        index = {name: i for i, name in enumerate(layout.names_of(files.paths))}
        for name in names:
            if name not in index:
                raise InputError(f"{field}: {path} no longer holds {name}")
            try:
                content = files.read(index[name])
            except DecodeError as error:
                raise InputError(f"{field}: {path}/{name} can no longer be read ({error}): put it back") from error
            yield content
