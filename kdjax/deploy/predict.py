"""Classifies images with an exported student: `python -m kdjax.deploy.predict ARTIFACT IMAGES…|FOLDER|ZIP`.

Needs onnxruntime, or ai-edge-litert for LiteRT files, but not JAX. Images are decoded and resized as for training;
everything else is in the model file.
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
from kdjax.deploy.input_warnings import InputCheck
from kdjax.deploy.trust import LEVELS
from kdjax.errors import InputError
from kdjax.results.text import cell, printable
from kdjax.runtime.command import Parser, positive, run_command, say

NAMES_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Answer:
    """A classifier's answer for one image.

    Attributes:
        name: of the image.
        probabilities: (classes,) float64, calibrated if the file has a calibration.
        unknown: whether the answer is too uncertain to be used.
        members: (classes,) bool, the prediction set; None = none was requested.
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
    input_check: InputCheck | None = None,
) -> tuple[list[Answer], list[str]]:
    """Classifies all readable images.

    Args:
        classifier: the model.
        files: the name of each image with its encoded bytes, or with the error that reading it raised.
        batch: number of images that go through the network together.
        level: share of images whose true class a prediction set should contain; None = no prediction sets.
        input_check: inspects the images on the way.

    Returns:
        An answer for every readable image; and a line for every other one, with its name and the reason.
    """
    answers: list[Answer] = []
    pending: list[tuple[str, np.ndarray]] = []
    unreadable: list[str] = []
    inspect = None if input_check is None else input_check.inspect

    def run_batch() -> None:
        if pending:
            names, images = zip(*pending, strict=True)
            pending.clear()
            if input_check is not None:
                input_check.inspect_stored(np.stack(images))
            probabilities, unknown = classifier.answers(np.stack(images))
            members: Sequence[np.ndarray | None] = [None] * len(names)
            if classifier.trust is not None:
                unknown = unknown | classifier.trust.doubtful(probabilities)
                if level is not None:
                    members = list(classifier.trust.sets(probabilities, level))
            rows = zip(names, probabilities, unknown.tolist(), members, strict=True)
            answers.extend(itertools.starmap(Answer, rows))

    for name, data in files:
        try:
            if isinstance(data, decode.DecodeError):
                raise data
            pending.append((name, classifier.prepare(data, inspect and functools.partial(inspect, name))))
        except decode.DecodeError as error:
            unreadable.append(f"{printable(name)} ({error})")
        if len(pending) == batch:
            run_batch()
    run_batch()
    return answers, unreadable


def read_all(paths: Sequence[str]) -> Iterator[tuple[str, bytes | decode.DecodeError]]:
    """Yields the name and the bytes of each image, or the error that reading it raised.

    Args:
        paths: image files, directories and zip archives.

    Raises:
        InputError: a path does not exist, or a directory or archive holds no images.
    """
    for path in paths:
        if not path:
            raise InputError("images: '' is not a path")
        expanded = Path(os.path.expanduser(path))
        try:
            mode = expanded.stat().st_mode
        except (OSError, ValueError):
            mode = 0  # open_files raises an error that names the cause
        if stat.S_ISDIR(mode) or expanded.suffix.lower() == ".zip" or not mode:
            with open_files(path, "images") as files:
                if not files.paths:
                    raise no_images(path, "images")
                for note in notes_on(files):
                    print(f"{printable(path)}: {printable(note)}", file=sys.stderr)
                for index, name in enumerate(files.paths):
                    yield f"{path.rstrip('/')}/{name}", _read_or_error(files.read, index)
        else:
            yield path, _read_or_error(read_file, expanded)


def _read_or_error(read: Callable[[Any], bytes], source: Any) -> bytes | decode.DecodeError:
    try:
        return read(source)
    except decode.DecodeError as error:
        return error


def render(answers: Sequence[Answer], classes: Sequence[str], *, form: str, top: int) -> str:
    """Formats the most probable classes of every image as text, without a trailing newline.

    Args:
        answers: one per image; at least one if `form` is 'table'.
        classes: class names, in the order of the probabilities.
        form: 'table', 'csv' (a row for each image and rank) or 'json' (a list with an object for each image).
        top: number of classes to list for an answer without a prediction set; all classes if there are fewer.
    """
    ranked = [(answer.name, answer.unknown, _best_classes(answer, classes, top)) for answer in answers]
    if form == "json":
        document = [
            {
                "image": name.encode("utf-8", "backslashreplace").decode(),  # a file name need not be valid UTF-8
                "unknown": unknown,
                "classes": [{"class": label, "probability": round(p, 6)} for label, p in best],
            }
            for name, unknown, best in ranked
        ]
        text = json.dumps(document, indent=1, ensure_ascii=False)
        is_safe = _stdout_is_unicode() and printable(text, keep="\n") == text
        return text if is_safe else json.dumps(document, indent=1)
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(("image", "rank", "class", "probability", "unknown"))
        writer.writerows(
            (cell(name), rank, cell(label), f"{p:.6f}", "yes" if unknown else "no")
            for name, unknown, best in ranked
            for rank, (label, p) in enumerate(best, 1)
        )
        return buffer.getvalue().rstrip("\n")
    name_width = max(len(printable(name)) for name, _, _ in ranked)
    label_width = max(len(printable(label)) for label in classes)
    mark = "unknown: " if any(unknown for _, unknown, _ in ranked) else ""
    return "\n".join(
        f"{printable(name):{name_width}}  {mark if unknown else ' ' * len(mark)}"
        + "  ".join(f"{printable(label):{label_width}} {100 * p:5.1f} %" for label, p in best)
        for name, unknown, best in ranked
    )


def _best_classes(answer: Answer, classes: Sequence[str], top: int) -> list[tuple[str, float]]:
    """The classes to list, the most probable first, with their probabilities."""
    order = np.argsort(-answer.probabilities, kind="stable")
    best = order[:top] if answer.members is None else order[answer.members[order]]
    return [(classes[k], float(answer.probabilities[k])) for k in best]


def _stdout_is_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def main(argv: Sequence[str]) -> None:
    """Prints the classes of the images that `argv` names.

    Raises:
        InputError: the user can correct `argv` or the model file. Nothing is printed in that case.
        SystemExit: with status 1, after all answers were printed: some images are not readable.
    """
    parser = Parser(prog="python -m kdjax.deploy.predict", description="Classifies images with an exported student.")
    parser.add_argument("artifact", metavar="ARTIFACT", help="student.onnx, student.int8.onnx or a .tflite")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="image files, directories or zip archives")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    selection = parser.add_mutually_exclusive_group()
    selection.add_argument("--top", type=positive, default=1, help="classes to name for every image")
    selection.add_argument(
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
    input_check = InputCheck.for_model(classifier.meaning)
    answers, unreadable = classify(classifier, read_all(options.images), options.batch, options.set, input_check)
    if options.answer_all:
        answers = [dataclasses.replace(answer, unknown=False) for answer in answers]
    if answers or options.format != "table":
        say(render(answers, classifier.classes, form=options.format, top=options.top))
    trust_warning = classifier.trust and classifier.trust.warning
    for warning in (*input_check.warnings(), *([f"{options.artifact}: {trust_warning}"] if trust_warning else [])):
        print(f"warning: {warning}", file=sys.stderr)
    if unreadable:
        rest = f"; and {len(unreadable) - NAMES_SHOWN} more" if len(unreadable) > NAMES_SHOWN else ""
        images = f"{len(unreadable)} unreadable image{'s' * (len(unreadable) > 1)}"
        print(f"error: {images}: {'; '.join(unreadable[:NAMES_SHOWN])}{rest}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_command(main, less_memory="use a smaller --batch")
