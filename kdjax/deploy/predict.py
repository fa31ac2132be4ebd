"""Classes of images by an exported student: `python -m kdjax.deploy.predict ARTIFACT IMAGES…|FOLDER|ZIP`.

Needs onnxruntime, or ai-edge-litert for LiteRT files, and no JAX. An image is decoded and resized as for training; all
the rest is in the model file.
"""

import csv
import dataclasses
import functools
import io
import itertools
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.data import decode
from kdjax.data.image_files import no_images, notes_on, open_files, read_file
from kdjax.deploy.classifier import Classifier
from kdjax.deploy.input_warnings import Unlike
from kdjax.deploy.trust import LEVELS
from kdjax.errors import InputError
from kdjax.results.text import cell, printable
from kdjax.runtime.command import Parser, positive, run_command, say

NAMES_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a classifier says of an image.

    Attributes:
        name: of the image.
        probabilities: (classes,) float64, calibrated where the file knows how.
        unknown: whether it should not be taken for an answer.
        members: (classes,) bool, the prediction set, where one was asked for.
    """

    name: str
    probabilities: np.ndarray
    unknown: bool = False
    members: np.ndarray | None = None


def classify(
    classifier: Classifier,
    files: Iterable[tuple[str, bytes | decode.DecodeError]],
    batch: int,
    level: float | None = None,
    seen: Unlike | None = None,
) -> tuple[list[Answer], list[str]]:
    """Classifies all images that are readable.

    Args:
        classifier: the model.
        files: name and encoded bytes, or why they could not be read.
        batch: images that go through the network together.
        level: of the prediction sets; None = none.
        seen: is shown the images.

    Returns:
        An answer for every readable image; the others, each with the reason.
    """
    results: list[Answer] = []
    waiting: list[tuple[str, np.ndarray]] = []
    failed: list[str] = []
    look = None if seen is None else seen.see

    def run() -> None:
        if waiting:
            names, images = zip(*waiting, strict=True)
            waiting.clear()
            if seen is not None:
                seen.see_stored(np.stack(images))
            probabilities, unknown = classifier.answers(np.stack(images))
            members: Sequence[np.ndarray | None] = [None] * len(names)
            if classifier.trust is not None:
                unknown = unknown | classifier.trust.doubtful(probabilities)
                if level is not None:
                    members = list(classifier.trust.sets(probabilities, level))
            rows = zip(names, probabilities, unknown.tolist(), members, strict=True)
            results.extend(itertools.starmap(Answer, rows))

    for name, data in files:
        try:
            if isinstance(data, decode.DecodeError):
                raise data
            waiting.append((name, classifier.prepare(data, look and functools.partial(look, name))))
        except decode.DecodeError as error:
            failed.append(f"{printable(name)} ({error})")
        if len(waiting) == batch:
            run()
    run()
    return results, failed


def read_all(paths: Sequence[str]) -> Iterator[tuple[str, bytes | decode.DecodeError]]:
    """Name and bytes of every image that is named, or lies in a directory or zip archive that is named.

    Raises:
        InputError: nothing is there, or a directory or archive without images.
    """
    for path in paths:
        if not path:
            raise InputError("images: '' is not a path")
        place = Path(os.path.expanduser(path))
        try:
            mode = place.stat().st_mode
        except (OSError, ValueError):
            mode = 0  # open_files says what is wrong
        if stat.S_ISDIR(mode) or place.suffix.lower() == ".zip" or not mode:
            with open_files(path, "images") as files:
                if not files.paths:
                    raise no_images(path, "images")
                for note in notes_on(files):
                    print(f"{printable(path)}: {printable(note)}", file=sys.stderr)
                for index, name in enumerate(files.paths):
                    yield f"{path.rstrip('/')}/{name}", _attempt(files.read, index)
        else:
            yield path, _attempt(read_file, place)


def _attempt(read: Callable[[Any], bytes], what: Any) -> bytes | decode.DecodeError:
    try:
        return read(what)
    except decode.DecodeError as error:
        return error


def rendered(answers: Sequence[Answer], classes: Sequence[str], *, form: str, top: int) -> str:
    """The most probable classes of every image as text, without a trailing newline.

    Args:
        answers: one for every image; one at least for a table.
        classes: class names.
        form: 'table', 'csv' (one row for every image and rank) or 'json' (a list with one object for every image).
        top: how many, where an answer has no prediction set; no more than there are classes.
    """
    ranked = [(one.name, one.unknown, _named(one, classes, top)) for one in answers]
    if form == "json":
        document = [
            {
                "image": name.encode("utf-8", "backslashreplace").decode(),  # names of files need not be UTF-8
                "unknown": unknown,
                "classes": [{"class": label, "probability": round(p, 6)} for label, p in best],
            }
            for name, unknown, best in ranked
        ]
        text = json.dumps(document, indent=1, ensure_ascii=False)
        harmless = _unicode() and printable(text, keep="\n") == text
        return text if harmless else json.dumps(document, indent=1)
    if form == "csv":
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("image", "rank", "class", "probability", "unknown"))
        writer.writerows(
            (cell(name), rank, cell(label), f"{p:.6f}", "yes" if unknown else "no")
            for name, unknown, best in ranked
            for rank, (label, p) in enumerate(best, 1)
        )
        return table.getvalue().rstrip("\n")
    wide = max(len(printable(name)) for name, _, _ in ranked)
    wider = max(len(printable(label)) for label in classes)
    mark = "unknown: " if any(unknown for _, unknown, _ in ranked) else ""
    return "\n".join(
        f"{printable(name):{wide}}  {mark if unknown else ' ' * len(mark)}"
        + "  ".join(f"{printable(label):{wider}} {100 * p:5.1f} %" for label, p in best)
        for name, unknown, best in ranked
    )


def _named(answer: Answer, classes: Sequence[str], top: int) -> list[tuple[str, float]]:
    """The classes to name, the most probable first, with their probabilities."""
    order = np.argsort(-answer.probabilities, kind="stable")
    shown = order[:top] if answer.members is None else order[answer.members[order]]
    return [(classes[k], float(answer.probabilities[k])) for k in shown]


def _unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def main(argv: Sequence[str]) -> None:
    """Prints the classes of the images that `argv` names.

    Raises:
        InputError: anything in `argv` or the model file that a person can correct. Nothing was printed then.
        SystemExit: status 1, after all others were printed: images that are not readable.
    """
    parser = Parser(prog="python -m kdjax.deploy.predict", description="Classifies images with an exported student.")
    parser.add_argument("artifact", metavar="ARTIFACT", help="student.onnx, student.int8.onnx or a .tflite")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="image files, directories or zip archives")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    named = parser.add_mutually_exclusive_group()
    named.add_argument("--top", type=positive, default=1, help="classes to name for every image")
    named.add_argument(
        "--set",
        type=float,
        choices=LEVELS,
        help="name the classes of a set that holds the true one for this share of images, instead of --top",
    )
    parser.add_argument("--answer-all", action="store_true", help="call no answer unknown")
    parser.add_argument("--batch", type=positive, default=32, help="images that go through the network together")
    options = parser.parse_args(argv)
    classifier = Classifier(options.artifact)
    if options.set is not None and (classifier.trust is None or options.set not in classifier.trust.limits):
        raise InputError(f"--set: {options.artifact} was exported by an earlier version and has none: export it again")
    seen = Unlike.by(classifier.meaning)
    results, failed = classify(classifier, read_all(options.images), options.batch, options.set, seen)
    if options.answer_all:
        results = [dataclasses.replace(one, unknown=False) for one in results]
    if results or options.format != "table":
        say(rendered(results, classifier.classes, form=options.format, top=options.top))
    rough = classifier.trust and classifier.trust.warning
    for warning in (*seen.warnings(), *([f"{options.artifact}: {rough}"] if rough else [])):
        print(f"warning: {warning}", file=sys.stderr)
    if failed:
        more = f"; and {len(failed) - NAMES_SHOWN} more" if len(failed) > NAMES_SHOWN else ""
        images = f"{len(failed)} unreadable image{'s' * (len(failed) > 1)}"
        print(f"error: {images}: {'; '.join(failed[:NAMES_SHOWN])}{more}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_command(main, less_memory="use a smaller --batch")
