"""Two runs that differ only in how their splits were drawn, such as at random and by place, side by side.

    python -m kdjax.results.two_splits runs/random runs/by_place

The test images differ, so that nothing can be paired: the table has the mean of every arm on each split and their
difference; of a family of trials it has the one that validation chose on each. Where classes are unequal in one of the
runs, both are told by macro recall.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdjax.errors import InputError
from kdjax.results import document, formats, notes
from kdjax.results.comparison import NAMES, failed_seeds, figures, selected
from kdjax.results.tables import aligned, wrapped
from kdjax.runtime import files
from kdjax.runtime.command import run_command

DRAWN_BY = ("split_by", "places", "block_km", "group_near_duplicates", "fold", "splits")
"""Fields of config.dataset that decide which image is on which side; the runs may differ in these."""


def table(first: Path, second: Path) -> str:
    """What `main` prints.

    Raises:
        InputError: a run is not evaluated, or not final; they have other images, classes, arms or settings; or their
            splits are the same.
    """
    fix = "run --stages=evaluate of that run"
    runs = [document.read_final(folder / "results.json", fix) for folder in (first, second)]
    for folder, one in zip((first, second), runs, strict=True):
        if "dataset" not in one["config"]:
            raise InputError(f"{folder / 'results.json'} lacks config.dataset: {fix}")
    members = [_sides(folder / "splits.json") for folder in (first, second)]
    if members[0] == members[1]:
        raise InputError(f"{first} and {second} have the same split: there is nothing to compare")
    if set().union(*members[0].values()) != set().union(*members[1].values()):
        raise InputError(f"{first} and {second} have different images: give runs of one data set")
    ours, theirs = (_contents(folder / "splits.json") for folder in (first, second))
    if any(theirs.get(name, digest) != digest for name, digest in ours.items()):
        raise InputError(f"{first} and {second} have different images of the same names: give runs of one data set")
    settings = [_settings(one) for one in runs]
    for field in sorted(settings[0].keys() | settings[1].keys()):
        here, there = (one.get(field) for one in settings)
        if here != there:
            raise InputError(
                f"{field} is {here!r} in {first} and {there!r} in {second}: give runs that differ in splits"
            )
    measure = document.judged_by_all(dict(zip((first, second), runs, strict=True)))
    trials = [selected(one) for one in runs]
    if trials[0].keys() != trials[1].keys():
        here, there = (", ".join(one) for one in trials)
        raise InputError(f"the arms of {first} are {here}, those of {second} {there}: give runs of the same arms")
    lost = []
    rows, teachers = [], [one["teacher"] for one in runs]
    if taught := all(teachers):
        rows.append(_row(f"teacher {teachers[0]['model']}", [{"mean": one["test"].get(measure)} for one in teachers]))
    for family in trials[0]:
        names = [one[family] for one in trials]
        found = [figures(one["arms"][name], measure) for one, name in zip(runs, names, strict=True)]
        for folder, one, name in zip((first, second), runs, names, strict=True):
            if failed := failed_seeds(one["arms"][name]):
                lost.append(notes.lost(f"{name} in {folder}", notes.numbered(failed), len(failed)))
        rows.append(_row(names[0] if names[0] == names[1] else f"{family} ({' / '.join(names)})", found))
    header = ["", *(f"{one}, %" for one in _titles((first, second), runs)), "points"]
    tested = " and ".join(str(len(one["test"])) for one in members)
    seeds = next(iter(runs[0]["arms"].values()))["seeds"]
    whose = " and the same teacher" if taught and document.one_teacher(teachers) else " and a teacher of its own"
    note = (
        f"Test {NAMES[measure]}, mean ± standard deviation over {notes.numbered(seeds)}, on {tested} test images. Each "
        f"run has one split{whose if taught else ''}, and part of any difference comes from which images "
        "are tested: to see more splits, set splits."
    )
    return "\n".join([*aligned(header, rows, apart=taught), "", *map(wrapped, (note, *lost))])


def _titles(folders: Sequence[Path], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """How each split was drawn, with the names of the runs, or their paths, where that is the same."""
    drawn = [drawn_by(one["config"]["dataset"]) for one in runs]
    if drawn[0] != drawn[1]:
        return drawn
    names = [folder.name for folder in folders]
    names = names if names[0] != names[1] else list(map(str, folders))
    return [f"{one} ({name})" for one, name in zip(drawn, names, strict=True)]


def drawn_by(section: Mapping[str, Any]) -> str:
    """In a few words, how a split was drawn; `section` is the config.dataset of a run."""
    if section.get("splits"):
        return "split of a file"
    by_place = section.get("split_by") == "place"
    said = f"by place, {section['block_km']:g} km" if by_place and not section.get("places") else "by place"
    said = said if by_place else "by image"
    if fold := section.get("fold"):
        said += f", fold {fold[0]} of {fold[1]}"
    return f"{said}, near-duplicates together" if section.get("group_near_duplicates") else said


def _settings(results: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides a result but the split."""
    kept = {name: value for name, value in results["config"].items() if name not in ("name", "run")}
    dataset = {name: one for name, one in kept["dataset"].items() if name not in DRAWN_BY}
    return _flat({**kept, "dataset": dataset, "dtype": document.dtype(results)})


def _flat(section: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Every value of sections within sections, by its dotted name."""
    found: dict[str, Any] = {}
    for name, value in section.items():
        found |= _flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found


def _sides(path: Path) -> dict[str, set[str]]:
    found = files.read_json(path, "restore that file of the run")
    sides = {side: found.get(side) if isinstance(found, dict) else None for side in ("train", "validation", "test")}
    if not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in sides.values()):
        raise InputError(f"{path} does not list the images of each side: restore that file of the run")
    return {side: set(names or ()) for side, names in sides.items()}


def _contents(path: Path) -> dict[str, str]:
    """Digests of the images of each side by their names; {} of a run of an earlier version, which kept none."""
    found = files.read_json(path, "restore that file of the run")
    digests = found.get("digests", {})
    sides = ("train", "validation", "test")
    return {name: one for side in sides for name, one in zip(found[side], digests.get(side, ()), strict=False)}


def _row(name: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
    means = [one["mean"] for one in found]
    known = means[0] is not None and means[1] is not None
    cells = [formats.percent_and_spread(one["mean"], one.get("std")) for one in found]
    return [name, *cells, formats.signed_points(means[1] - means[0]) if known else ""]


def main(arguments: list[str]) -> None:
    """The command."""
    if arguments in (["--help"], ["-h"]):
        print((__doc__ or "").strip())
    elif len(arguments) != 2:
        raise InputError("give the directories of two evaluated runs; --help says more")
    else:
        print(table(*map(Path, arguments)))


if __name__ == "__main__":
    run_command(main)
