"""Maps several rasters to a folder. Finished maps are kept, and a raster that cannot be mapped does not stop others."""

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
from kdjax.errors import InputError, one_line
from kdjax.results.text import printable
from kdjax.runtime import files, host, temporary
from kdjax.runtime.command import say

ALL_AREAS = "areas.csv"
"""File in the folder with the sums over all maps of a call."""

_LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Job:
    """A raster to map.

    Attributes:
        text: the input; see `inputs`.
        out: path of its map.
    """

    text: str
    out: Path


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    Attributes:
        resumed: whether a finished map was kept.
        error: why there is no map; None = there is one.
    """

    resumed: bool = False
    error: str | None = None


_DIED = Outcome(error="its worker process was killed; if memory was short, give fewer --workers or a smaller --batch")


def plan(texts: Sequence[str], folder: Path) -> list[Job]:
    """Plans which rasters to map and to which paths, without opening any.

    Args:
        texts: inputs, which may be folders.
        folder: folder for the maps.

    Raises:
        InputError: two maps would have a file of the same name, `folder` cannot be a folder, or a raster to map lies in
            it.
    """
    inputs.check_name(folder, "--output")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder} is a file; give a folder for the maps (a file OUT is for a single raster)")
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
    """Maps all rasters of a plan, prints the outcome of each, and writes the sums of their areas.

    A worker process maps a whole raster. The windows of a raster share sums, but rasters share nothing; so the maps
    equal those of a single process bit for bit, and only one raster is lost if a process is killed.

    Args:
        classifier: classifies the windows.
        jobs: the rasters to map, all to one folder.
        options: how to map them.
        count: number of worker processes; 1 = this process maps all.

    Returns:
        The sums, and the inputs that were not mapped.

    Raises:
        InputError: the folder cannot be written, another command writes to it, or its `ALL_AREAS` is not a table of
            areas.
    """
    folder = jobs[0].out.parent
    try:
        folder.mkdir(exist_ok=True)
        lock = files.lock(folder / _LOCK)
    except BlockingIOError:
        raise InputError(f"--output {folder}: another command writes maps to it; wait for it") from None
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written ({one_line(error)})") from error
    outcomes: dict[Job, Outcome] = {}

    def report(job: Job, outcome: Outcome | None) -> None:
        outcomes[job] = outcome = outcome or _DIED
        if outcome.error is None:
            say(f"{printable(job.text)}: {'already mapped' if outcome.resumed else 'mapped'}")
        else:
            source = "" if job.text in outcome.error else f"{job.text}: "
            older_map = f"; {job.out} is still the map of an earlier call" if outputs.is_map(job.out) else ""
            print(printable(f"error: {source}{outcome.error}{older_map}"), file=sys.stderr, flush=True)

    try:
        if (folder / ALL_AREAS).exists() and not outputs.starts_with(folder / ALL_AREAS, outputs.AREAS.text_start):
            raise InputError(
                f"--output {folder}: {ALL_AREAS} exists and does not belong to a kdjax map; choose another folder, or "
                "remove it"
            )
        # First of all, so that old sums do not stay beside new maps if this call is interrupted.
        (folder / ALL_AREAS).unlink(missing_ok=True)
        count = min(count, len(jobs))
        if count == 1:
            for job in jobs:
                report(job, _map_job(classifier, options, job))
        else:
            threads = max(1, host.cores() // count)
            workers.share(functools.partial(_make_worker, str(classifier.path), options, threads), jobs, count, report)
        mapped = [job for job in jobs if outcomes[job].error is None]
        areas = _sum_areas(classifier, mapped, folder / ALL_AREAS)
    finally:
        temporary.sweep(folder)  # the leftovers of workers that were killed
        os.close(lock)
    return areas, [job.text for job in jobs if job not in mapped]


def _make_worker(artifact: str, options: Options, threads: int) -> Callable[[Job], Outcome]:
    return functools.partial(_map_job, mapping.load(artifact, threads), options)


def _map_job(classifier: Classifier, options: Options, job: Job) -> Outcome:
    def note(text: str) -> None:
        print(f"{printable(job.text)}: {text}", file=sys.stderr, flush=True)

    try:
        counts = mapping.map_raster(classifier, job.text, job.out, options, note, resume=True)
    except InputError as error:
        return Outcome(error=str(error))
    except MemoryError:
        return Outcome(error=f"raster {job.text}: not enough memory")
    return Outcome(resumed=counts is None)


def _sum_areas(classifier: Classifier, jobs: Sequence[Job], path: Path) -> Areas:
    """Sums the areas of all maps and writes them to `path`, if there are maps."""
    areas = Areas(classifier.classes)
    for job in jobs:
        table_path = job.out.with_name(outputs.AREAS.name(job.out))
        try:
            areas.add_table(table_path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{table_path} cannot be read ({one_line(error)}): remove it, and map again") from error
    if jobs:
        files.write_text(path, areas.table())
    return areas
