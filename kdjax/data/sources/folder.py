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
    """Reads class folders, with their own splits if they have any.

    Args:
        section: reads `path`, and what `ingest` reads.
        context: seed, cache and log.

    Returns:
        All examples.

    Raises:
        InputError: the path is missing or not a zip archive, there are no images or only one class, images are
            unreadable and not skipped, or the splits are ambiguous.
    """
    field, path = "dataset.path", section["path"]
    if not path:
        raise InputError(f"{field}: source 'folder' needs the path of a directory or zip of class folders")
    with open_files(path, field) as files:
        if not files.paths:
            raise no_images(path, field)
        examples = layout.find(files, f"{field}: {path}")

        def read(k: int) -> Raw:
            return Raw(examples.names[k], examples.labels[k], files.read(examples.file_indices[k]))

        ingested = ingest(
            Encoded(
                field,
                examples.names,
                [files.stamps[i] for i in examples.file_indices],
                read,
                identity=[files.identity, examples.classes],
            ),
            section,
            context,
        )
        notes = (*notes_on(files), *examples.notes)
    empty = set(range(len(examples.classes))) - set(ingested.labels.tolist())
    if empty:
        raise InputError(f"{field}: class {examples.classes[min(empty)]!r} has no readable image")
    source = pathlib.Path(os.path.expanduser(path)).resolve()
    name = source.name if source.is_dir() else source.stem
    pool = ingested.pool(name, examples.classes, sides=[examples.sides[row] for row in ingested.rows], notes=notes)
    return dataclasses.replace(pool, skipped=frozenset(examples.names) - set(ingested.names))


def load_unlabeled(section: Mapping[str, Any], context: Context, like: Meaning) -> Ingested:
    """Reads all images below a directory or in a zip archive, whatever its folders; names start with 'unlabeled:'.

    Args:
        section: reads `unlabeled_dir`, and what `ingest` reads.
        context: seed, cache and log.
        like: the properties of the labeled tiles, with which these must agree.

    Raises:
        InputError: the path is missing or not a zip archive, there are no images, or images are unreadable and not
            skipped.
    """
    field, path = "dataset.unlabeled_dir", section["unlabeled_dir"]
    with open_files(path, field) as files:
        if not files.paths:
            raise no_images(path, field)
        layout.check_names(files.paths, field)
        names = [f"unlabeled:{name}" for name in files.paths]
        ingested = ingest(
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
        return dataclasses.replace(ingested, notes=(*notes_on(files), *ingested.notes))


def read_named(path: str, names: Sequence[str]) -> Iterator[bytes]:
    """Yields the encoded bytes of examples of `load`, in the order of `names`.

    Raises:
        InputError: as `open_files`, or a file no longer exists or cannot be read.
    """
    field = "dataset.path"
    with open_files(path, field) as files:
        index = {name: i for i, name in enumerate(layout.names_of(files.paths))}
        for name in names:
            if name not in index:
                raise InputError(f"{field}: {path} no longer holds {name}")
            try:
                data = files.read(index[name])
            except DecodeError as error:
                raise InputError(f"{field}: {path}/{name} can no longer be read ({error}): put it back") from error
            yield data
