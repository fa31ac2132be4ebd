"""Compares two runs that differ only in how their splits were drawn, such as at random and by place.

    python -m kdjax.results.two_splits runs/random runs/by_place

The test images differ, so nothing can be paired. The table shows the mean of every arm on each split and the
difference; for a family of trials, it shows the trial that validation chose on each split. If classes are unequal in
either run, both are measured by macro recall.
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
"""Fields of config.dataset that decide which images are in which split; the two runs may differ in them."""


def table(first: Path, second: Path) -> str:
    """Returns what `main` prints.

    Raises:
        InputError: a run is not evaluated or not final; the images, classes, arms or settings of the two differ; or
            their splits are the same.
    """
    fix = "run --stages=evaluate of that run"
    runs = [document.read_final(folder / "results.json", fix) for folder in (first, second)]
    for folder, results in zip((first, second), runs, strict=True):
        if "dataset" not in results["config"]:
            raise InputError(f"{folder / 'results.json'} lacks config.dataset: {fix}")
    members = [_sides(folder / "splits.json") for folder in (first, second)]
    if members[0] == members[1]:
        raise InputError(f"{first} and {second} have the same split: there is nothing to compare")
    if set().union(*members[0].values()) != set().union(*members[1].values()):
        raise InputError(f"{first} and {second} have different images: give runs of one data set")
    ours, theirs = (_digests(folder / "splits.json") for folder in (first, second))
    if any(theirs.get(name, digest) != digest for name, digest in ours.items()):
        raise InputError(f"{first} and {second} have different images of the same names: give runs of one data set")
    settings = [_settings(results) for results in runs]
    for field in sorted(settings[0].keys() | settings[1].keys()):
        our_value, their_value = (values.get(field) for values in settings)
        if our_value != their_value:
            raise InputError(
                f"{field} is {our_value!r} in {first} and {their_value!r} in {second}: give runs that differ in splits"
            )
    measure = document.judged_by_all(dict(zip((first, second), runs, strict=True)))
    trials = [selected(results) for results in runs]
    if trials[0].keys() != trials[1].keys():
        our_arms, their_arms = map(", ".join, trials)
        raise InputError(
            f"the arms of {first} are {our_arms}, those of {second} {their_arms}: give runs of the same arms"
        )
    failures = []
    rows, teachers = [], [results["teacher"] for results in runs]
    if have_teachers := all(teachers):
        means = [{"mean": teacher["test"].get(measure)} for teacher in teachers]
        rows.append(_row(f"teacher {teachers[0]['model']}", means))
    for family in trials[0]:
        names = [trial_of[family] for trial_of in trials]
        arms = [results["arms"][name] for results, name in zip(runs, names, strict=True)]
        for folder, arm, name in zip((first, second), arms, names, strict=True):
            if failed := failed_seeds(arm):
                failures.append(notes.failure_note(f"{name} in {folder}", notes.seed_list(failed), len(failed)))
        row_name = names[0] if names[0] == names[1] else f"{family} ({' / '.join(names)})"
        rows.append(_row(row_name, [figures(arm, measure) for arm in arms]))
    header = ["", *(f"{title}, %" for title in _titles((first, second), runs)), "points"]
    counts = " and ".join(str(len(sides["test"])) for sides in members)
    seeds = next(iter(runs[0]["arms"].values()))["seeds"]
    teacher = ""
    if have_teachers:
        teacher = " and the same teacher" if document.one_teacher(teachers) else " and a teacher of its own"
    note = (
        f"Test {NAMES[measure]}, mean ± standard deviation over {notes.seed_list(seeds)}, on {counts} test images. "
        f"Each run has one split{teacher}, and part of any difference comes from which images "
        "are tested: to see more splits, set splits."
    )
    return "\n".join([*aligned(header, rows, apart=have_teachers), "", *map(wrapped, (note, *failures))])


def _titles(folders: Sequence[Path], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns how each split was drawn; if that is the same, the names of the runs, or else their paths, are added."""
    descriptions = [split_description(results["config"]["dataset"]) for results in runs]
    if descriptions[0] != descriptions[1]:
        return descriptions
    names = [folder.name for folder in folders]
    names = names if names[0] != names[1] else list(map(str, folders))
    return [f"{description} ({name})" for description, name in zip(descriptions, names, strict=True)]


def split_description(section: Mapping[str, Any]) -> str:
    """Describes in a few words how a split was drawn; `section` is the config.dataset of a run."""
    if section.get("splits"):
        return "split of a file"
    description = "by image"
    if section.get("split_by") == "place":
        description = "by place" if section.get("places") else f"by place, {section['block_km']:g} km"
    if fold := section.get("fold"):
        description += f", fold {fold[0]} of {fold[1]}"
    return f"{description}, near-duplicates together" if section.get("group_near_duplicates") else description


def _settings(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns everything but the split that determines results, by dotted name."""
    sections = {name: value for name, value in results["config"].items() if name not in ("name", "run")}
    dataset = {name: value for name, value in sections["dataset"].items() if name not in DRAWN_BY}
    return _flat({**sections, "dataset": dataset, "dtype": document.dtype(results)})


def _flat(section: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Returns every value of nested sections by its dotted name."""
    values: dict[str, Any] = {}
    for name, value in section.items():
        values |= _flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return values


def _sides(path: Path) -> dict[str, set[str]]:
    """Reads the names of the images of each split from a run's splits.json."""
    splits = files.read_json(path, "restore that file of the run")
    sides = {side: splits.get(side) if isinstance(splits, dict) else None for side in ("train", "validation", "test")}
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in sides.values()):
        raise InputError(f"{path} does not list the images of each side: restore that file of the run")
    return {side: set(names or ()) for side, names in sides.items()}


def _digests(path: Path) -> dict[str, str]:
    """Reads the digests of all images by name from a run's splits.json; {} for earlier versions, which stored none."""
    splits = files.read_json(path, "restore that file of the run")
    digests = splits.get("digests", {})
    sides = ("train", "validation", "test")
    return {name: digest for side in sides for name, digest in zip(splits[side], digests.get(side, ()), strict=False)}


def _row(name: str, pair: Sequence[Mapping[str, Any]]) -> list[str]:
    means = [figures["mean"] for figures in pair]
    comparable = means[0] is not None and means[1] is not None
    cells = [formats.percent_and_spread(figures["mean"], figures.get("std")) for figures in pair]
    return [name, *cells, formats.signed_points(means[1] - means[0]) if comparable else ""]


def main(arguments: list[str]) -> None:
    """Runs the command."""
    if arguments in (["--help"], ["-h"]):
        print((__doc__ or "").strip())
    elif len(arguments) != 2:
        raise InputError("give the directories of two evaluated runs; --help says more")
    else:
        print(table(*map(Path, arguments)))


if __name__ == "__main__":
    run_command(main)
