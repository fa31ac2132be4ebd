"""The maps of several rasters in a folder. What is finished stays; what cannot be mapped does not stop the rest."""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kdjax.deploy.classifier import Classifier
from kdjax.deploy.landuse_map import inputs, mapping, outputs, workers
from kdjax.deploy.landuse_map.areas import Areas
from kdjax.deploy.landuse_map.mapping import Options
from kdjax.deploy.landuse_map.raster import check_name
from kdjax.errors import InputError, reason
from kdjax.results.text import printable
from kdjax.runtime import files, host, temporary
from kdjax.runtime.command import say

ALL_AREAS = "areas.csv"
"""In the folder: the sums over the maps of a call."""

_LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Job:
    """A raster to map.

    Attributes:
        text: the input; see `inputs`.
        out: its map.
    """

    text: str
    out: Path


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        resumed: whether the map was there already.
        error: why there is none; None = there is one.
    """

    resumed: bool = False
    error: str | None = None


_DIED = Outcome(error="its worker process was killed; if memory was short, give fewer --workers or a smaller --batch")


def plan(texts: Sequence[str], folder: Path) -> list[Job]:
    """The rasters to map and where to; nothing is opened yet.

    Args:
        texts: inputs, folders among them.
        folder: for the maps.

    Raises:
        InputError: two maps would have a file of the same name, `folder` is none, or a raster to map lies in it.
    """
    check_name(folder, "--output")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder} is a file; give a folder for the maps, a file OUT is for a single raster")
    if not folder.parent.is_dir():
        raise InputError(f"--output {folder}: there is no folder {folder.parent}")
    jobs: list[Job] = []
    owners: dict[str, str] = {}
    for text in inputs.expand(texts):
        if not inputs.is_remote(text) and os.path.isfile(text) and Path(text).resolve().parent == folder.resolve():
            raise InputError(f"--output {folder}: the raster {text} lies in it; choose another folder for the maps")
        jobs.append(Job(text, folder / f"{inputs.stem(text)}.tif"))
        for name in (output.name(jobs[-1].out) for output in outputs.OUTPUTS):
            if name in owners:
                raise InputError(
                    f"INPUT: the maps of {owners[name]} and {text} would both have {folder / name}; "
                    "map them to two folders"
                )
            owners[name] = text
    return jobs


def map_all(classifier: Classifier, jobs: Sequence[Job], options: Options, count: int) -> tuple[Areas, list[str]]:
    """Maps all rasters of a plan, says what came of each, and writes the sums of their areas.

    A worker process maps a whole raster: windows of one raster share sums, rasters share nothing, so that the maps are
    those of a single process bit by bit, and a process that is killed costs one raster.

    Args:
        classifier: what classifies.
        jobs: what to map, all to one folder.
        options: how.
        count: of worker processes; 1 = this one does it.

    Returns:
        The sums, and the inputs that were not mapped.

    Raises:
        InputError: the folder cannot be written, another command writes to it, or its `ALL_AREAS` is of another kind.
    """
    folder = jobs[0].out.parent
    try:
        folder.mkdir(exist_ok=True)
        lock = files.lock(folder / _LOCK)
    except BlockingIOError:
        raise InputError(f"--output {folder}: another command writes maps to it; wait for it") from None
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written ({reason(error)})") from error
    outcomes: dict[Job, Outcome] = {}

    def done(job: Job, outcome: Outcome | None) -> None:
        outcomes[job] = outcome = outcome or _DIED
        if outcome.error is None:
            say(f"{printable(job.text)}: {'already mapped' if outcome.resumed else 'mapped'}")
        else:
            where = "" if job.text in outcome.error else f"{job.text}: "
            older = f"; {job.out} is still the map of an earlier call" if outputs.is_map(job.out) else ""
            print(printable(f"error: {where}{outcome.error}{older}"), file=sys.stderr, flush=True)

    try:
        if (folder / ALL_AREAS).exists() and not outputs.begins(folder / ALL_AREAS, outputs.AREAS.begins):
            raise InputError(
                f"--output {folder}: {ALL_AREAS} exists and does not belong to a kdjax map; choose another folder, or "
                "remove it"
            )
        (folder / ALL_AREAS).unlink(missing_ok=True)  # where this call is ended, no older sums stand beside its maps
        count = min(count, len(jobs))
        if count == 1:
            for job in jobs:
                done(job, _outcome(classifier, options, job))
        else:
            threads = max(1, host.cores() // count)
            workers.share(functools.partial(_begin, str(classifier.path), options, threads), jobs, count, done)
        mapped = [job for job in jobs if outcomes[job].error is None]
        areas = _sums(classifier, mapped, folder / ALL_AREAS)
    finally:
        temporary.sweep(folder)  # what a worker that was killed had begun
        os.close(lock)
    return areas, [job.text for job in jobs if job not in mapped]


def _begin(artifact: str, options: Options, threads: int) -> Callable[[Job], Outcome]:
    return functools.partial(_outcome, mapping.load(artifact, threads), options)


def _outcome(classifier: Classifier, options: Options, job: Job) -> Outcome:
    def note(text: str) -> None:
        print(f"{printable(job.text)}: {text}", file=sys.stderr, flush=True)

    try:
        counts = mapping.map_raster(classifier, job.text, job.out, options, note, resume=True)
    except InputError as error:
        return Outcome(error=str(error))
    except MemoryError:
        return Outcome(error=f"raster {job.text}: not enough memory")
    return Outcome(resumed=counts is None)


def _sums(classifier: Classifier, jobs: Sequence[Job], path: Path) -> Areas:
    """The areas of all maps together, written to `path`."""
    areas = Areas(classifier.classes)
    for job in jobs:
        part = job.out.with_name(outputs.AREAS.name(job.out))
        try:
            areas.add_table(part.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{part} cannot be read ({reason(error)}): remove it, and map again") from error
    if jobs:
        files.write_text(path, areas.table())
    return areas
