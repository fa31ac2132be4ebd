"""Classes of images by an exported student: `python -m kdjax.deploy.predict ARTEFACT IMAGES…|FOLDER|ZIP`.

Needs onnxruntime and no JAX. An image is decoded and resized as for training; all the rest is in the model file.
"""

import argparse
import csv
import importlib.util
import io
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from kdjax.data import decode
from kdjax.data.image_files import no_images, open_files, read_file
from kdjax.data.meaning import Meaning
from kdjax.errors import InputError, in_one_line, reason
from kdjax.results.metrics import log_softmax
from kdjax.results.text import cell, printable

NAMES_SHOWN = 10


class Classifier:
    """An exported ONNX file, ready to run on the CPU.

    Attributes:
        classes: class names, in the order of the logits.
        size: side of the images it reads, px.
        meaning: what the training tiles were.
    """

    def __init__(self, path: str | Path):
        """Opens `path`.

        Raises:
            InputError: onnxruntime is missing; no such file, not ONNX, not exported by kdjax, or class names that do
                not fit the logits.
        """
        if importlib.util.find_spec("onnxruntime") is None:
            raise InputError("predict needs onnxruntime: pip install 'kdjax[export]'")
        import onnxruntime

        if not os.path.isfile(path):
            raise InputError(f"artefact: no file {path}")
        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise InputError(f"artefact {path}: not a readable ONNX file ({reason(error)})") from error
        facts = session.get_modelmeta().custom_metadata_map
        try:
            self.classes = _class_names(facts["classes"])
            self.size = int(facts["storage_size"])
            self.meaning = Meaning.from_metadata(facts)
            (given,), (result,) = session.get_inputs(), session.get_outputs()
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"artefact {path}: not exported by kdjax ({type(error).__name__}: {reason(error)} in its metadata)"
            ) from error
        if result.shape[1:] != [len(self.classes)] or given.shape[1:] != [self.size, self.size, 3]:
            raise InputError(
                f"artefact {path}: its metadata name {len(self.classes)} classes and {self.size} px, "
                f"its graph has {result.shape[1:]} logits and images {given.shape[1:]}: export it again"
            )
        self._session, self._input = session, given.name

    def prepare(self, data: bytes) -> np.ndarray:
        """An encoded image file as (size, size, 3) uint8, decoded and resized as for training.

        Raises:
            DecodeError: not an image, or its numbers are of another kind than in training.
        """
        with decode.warnings_settled(), decode.opened(data) as decoded:
            return decode.resize(self.meaning.bytes_of(decoded), self.size)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (n, classes) float32 of images (n, size, size, 3) uint8."""
        return self._session.run(None, {self._input: images})[0]


def _class_names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("classes are no list of names")
    return tuple(names)


def classify(
    classifier: Classifier, files: Iterable[tuple[str, bytes | decode.DecodeError]], batch: int
) -> tuple[list[tuple[str, np.ndarray]], list[str]]:
    """Classifies all images that are readable.

    Args:
        classifier: the model.
        files: name and encoded bytes, or why they could not be read.
        batch: images that go through the network together.

    Returns:
        Name and probabilities (classes,) float64 of every readable image; the others, each with the reason.
    """
    results: list[tuple[str, np.ndarray]] = []
    waiting: list[tuple[str, np.ndarray]] = []
    failed: list[str] = []

    def run() -> None:
        if waiting:
            names, images = zip(*waiting, strict=True)
            waiting.clear()
            logits = classifier.logits(np.stack(images)).astype(np.float64)
            results.extend(zip(names, np.exp(log_softmax(logits)), strict=True))

    for name, data in files:
        try:
            if isinstance(data, decode.DecodeError):
                raise data
            waiting.append((name, classifier.prepare(data)))
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
            raise InputError("images: '' is no path")
        place = Path(os.path.expanduser(path))
        try:
            mode = place.stat().st_mode
        except (OSError, ValueError):
            mode = 0  # open_files says what is wrong
        if stat.S_ISDIR(mode) or place.suffix.lower() == ".zip" or not mode:
            with open_files(path, "images") as files:
                if not files.paths:
                    raise no_images(path, "images")
                for index, name in enumerate(files.paths):
                    yield f"{path.rstrip('/')}/{name}", _attempt(files.read, index)
        else:
            yield path, _attempt(read_file, place)


def _attempt(read: Callable[[Any], bytes], what: Any) -> bytes | decode.DecodeError:
    try:
        return read(what)
    except decode.DecodeError as error:
        return error


def rendered(results: Sequence[tuple[str, np.ndarray]], classes: Sequence[str], *, form: str, top: int) -> str:
    """The `top` most probable classes of every image as text, without a trailing newline.

    Args:
        results: name and probabilities (classes,) of every image; one at least.
        classes: class names.
        form: 'table', 'csv' (one row for every image and rank) or 'json' (a list with one object for every image).
        top: how many; no more than there are classes.
    """
    ranked = [
        (name, [(classes[k], float(probabilities[k])) for k in np.argsort(-probabilities, kind="stable")[:top]])
        for name, probabilities in results
    ]
    if form == "json":
        document = [
            {
                "image": name.encode("utf-8", "backslashreplace").decode(),  # names of files need not be UTF-8
                "classes": [{"class": label, "probability": round(p, 6)} for label, p in best],
            }
            for name, best in ranked
        ]
        text = json.dumps(document, indent=1, ensure_ascii=False)
        harmless = _unicode() and printable(text, keep="\n") == text
        return text if harmless else json.dumps(document, indent=1)
    if form == "csv":
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("image", "rank", "class", "probability"))
        writer.writerows(
            (cell(name), rank, cell(label), f"{p:.6f}")
            for name, best in ranked
            for rank, (label, p) in enumerate(best, 1)
        )
        return table.getvalue().rstrip("\n")
    ranked = [(printable(name), [(printable(label), p) for label, p in best]) for name, best in ranked]
    wide, wider = max(len(name) for name, _ in ranked), max(len(printable(label)) for label in classes)
    return "\n".join(
        f"{name:{wide}}  " + "  ".join(f"{label:{wider}} {100 * p:5.1f} %" for label, p in best)
        for name, best in ranked
    )


def _unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def say(text: str) -> None:
    """Prints `text`; what the terminal's encoding does not know is written as an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:  # a reader such as `head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Parser(argparse.ArgumentParser):
    """Mistakes in the command end as all bad input does."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def positive(text: str) -> int:
    """A whole number of at least 1 from the command line."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def main(argv: Sequence[str]) -> None:
    """Prints the classes of the images that `argv` names.

    Raises:
        InputError: anything in `argv` or the model file that a person can correct. Nothing was printed then.
        SystemExit: status 1, after all others were printed: images that are not readable.
    """
    parser = Parser(prog="python -m kdjax.deploy.predict", description="Classes of images by an exported student.")
    parser.add_argument("artefact", metavar="ARTEFACT", help="student.onnx or student.int8.onnx")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="image files, directories or zip archives")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument("--top", type=positive, default=1, help="classes to name for every image")
    parser.add_argument("--batch", type=positive, default=32, help="images that go through the network together")
    options = parser.parse_args(argv)
    classifier = Classifier(options.artefact)
    results, failed = classify(classifier, read_all(options.images), options.batch)
    if results:
        say(rendered(results, classifier.classes, form=options.format, top=options.top))
    if failed:
        more = f"; and {len(failed) - NAMES_SHOWN} more" if len(failed) > NAMES_SHOWN else ""
        images = f"{len(failed)} unreadable image{'s' * (len(failed) > 1)}"
        print(f"error: {images}: {'; '.join(failed[:NAMES_SHOWN])}{more}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    in_one_line(main)
