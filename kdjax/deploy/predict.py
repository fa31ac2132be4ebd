"""Classes of images by an exported student: `python -m kdjax.deploy.predict ARTEFACT IMAGES…|FOLDER|ZIP`.

Needs onnxruntime and no JAX. An image is decoded and resized as for training; all the rest is in the model file.
"""

import argparse
import csv
import importlib.util
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.data import decode
from kdjax.data.sources import folder
from kdjax.errors import InputError, in_one_line
from kdjax.results.metrics import log_softmax

NAMES_SHOWN = 10


class Classifier:
    """An exported ONNX file, ready to run on the CPU.

    Attributes:
      classes: class names, in the order of the logits.
      size: side of the images it reads, px.
      value_range: (low, high) that 16-bit and float images are mapped by; () where there were none in training.
    """

    def __init__(self, path: str | Path):
        """Opens `path`.

        Raises:
          InputError: onnxruntime is missing; no such file, not ONNX, not exported by kdjax, or class names that do not
            fit the logits.
        """
        if importlib.util.find_spec("onnxruntime") is None:
            raise InputError("predict needs onnxruntime: pip install 'kdjax[export]'")
        import onnxruntime

        if not Path(path).is_file():
            raise InputError(f"artefact: no file {path}")
        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise InputError(f"artefact {path}: not a readable ONNX file ({_line(error)})") from error
        facts = session.get_modelmeta().custom_metadata_map
        try:
            self.classes = tuple(json.loads(facts["classes"]))
            self.size = int(facts["storage_size"])
            self.value_range = tuple(json.loads(facts["value_range"]))
            (given,), (result,) = session.get_inputs(), session.get_outputs()
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"artefact {path}: not exported by kdjax ({type(error).__name__}: {_line(error)} in its metadata)"
            ) from error
        if result.shape[1:] != [len(self.classes)] or given.shape[1:] != [self.size, self.size, 3]:
            raise InputError(
                f"artefact {path}: its metadata name {len(self.classes)} classes and {self.size} px, "
                f"its graph has {result.shape[1:]} logits and images {given.shape[1:]}: export it anew"
            )
        self._session, self._input = session, given.name

    def prepare(self, data: bytes) -> np.ndarray:
        """An encoded image file as (size, size, 3) uint8, decoded and resized as for training.

        Raises:
          DecodeError: not an image, or a 16-bit or float one where training had none.
        """
        with decode.warnings_settled():
            decoded = decode.decode(data)
        pixels = decoded.pixels
        if decoded.deep:
            if not self.value_range:
                raise decode.DecodeError(f"{pixels.dtype} pixels, and training had only 8-bit images: convert it")
            pixels = decode.to_uint8(pixels, *self.value_range)
        return decode.resize(pixels, self.size)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (n, classes) float32 of images (n, size, size, 3) uint8."""
        return self._session.run(None, {self._input: images})[0]


def classify(
    classifier: Classifier, files: Iterable[tuple[str, bytes | decode.DecodeError]], batch: int
) -> list[tuple[str, np.ndarray]]:
    """Name and probabilities (classes,) float64 of every image.

    Args:
      classifier: the model.
      files: name and encoded bytes, or why they could not be read.
      batch: images that go through the network together.

    Raises:
      InputError: with the names of all images that are not readable.
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
            failed.append(f"{name} ({error})")
        if len(waiting) == batch:
            run()
    run()
    if failed:
        more = f"; and {len(failed) - NAMES_SHOWN} more" if len(failed) > NAMES_SHOWN else ""
        raise InputError(
            f"{len(failed)} unreadable image{'s' * (len(failed) > 1)}: {'; '.join(failed[:NAMES_SHOWN])}{more}"
        )
    return results


def read_all(paths: Sequence[str]) -> Iterator[tuple[str, bytes | decode.DecodeError]]:
    """Name and bytes of every image that is named, or lies in a directory or zip archive that is named.

    Raises:
      InputError: nothing is there, or a directory or archive without images.
    """
    for path in paths:
        place = Path(path).expanduser()
        if place.is_dir() or place.suffix.lower() == ".zip" or not place.exists():
            with folder.open_files(path, "images") as files:
                if not files.paths:
                    raise InputError(f"images: {path} holds no image files ({', '.join(folder.SUFFIXES)})")
                for index, name in enumerate(files.paths):
                    yield f"{path.rstrip('/')}/{name}", _attempt(files.read, index)
        else:
            yield path, _attempt(folder.read_file, place)


def _attempt(read: Any, what: Any) -> bytes | decode.DecodeError:
    try:
        return read(what)
    except decode.DecodeError as error:
        return error


def rendered(results: Sequence[tuple[str, np.ndarray]], classes: Sequence[str], *, form: str, top: int) -> str:
    """The `top` most probable classes of every image as text, without a trailing newline.

    Args:
      results: name and probabilities (classes,) of every image.
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
            {"image": name, "classes": [{"class": label, "probability": round(p, 6)} for label, p in best]}
            for name, best in ranked
        ]
        return json.dumps(document, indent=1, ensure_ascii=False)
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("image", "rank", "class", "probability"))
        writer.writerows(
            (name, rank, label, f"{p:.6f}") for name, best in ranked for rank, (label, p) in enumerate(best, 1)
        )
        return text.getvalue().rstrip("\n")
    wide, wider = max(len(name) for name, _ in ranked), max(map(len, classes))
    return "\n".join(
        f"{name:{wide}}  " + "  ".join(f"{label:{wider}} {100 * p:5.1f} %" for label, p in best)
        for name, best in ranked
    )


class Parser(argparse.ArgumentParser):
    """Mistakes in the command end as all bad input does."""

    def error(self, message: str) -> None:
        raise InputError(message)


def positive(text: str) -> int:
    """A whole number of at least 1 from the command line."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def main(argv: Sequence[str]) -> None:
    """Prints the classes of the images that `argv` names.

    Raises:
      InputError: anything in `argv`, the model file or the images that a person can mend. Nothing was printed then.
    """
    parser = Parser(prog="python -m kdjax.deploy.predict", description="Classes of images by an exported student.")
    parser.add_argument("artefact", metavar="ARTEFACT", help="student.onnx or student.int8.onnx")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="image files, directories or zip archives")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument("--top", type=positive, default=1, help="classes to name for every image")
    parser.add_argument("--batch", type=positive, default=32, help="images that go through the network together")
    options = parser.parse_args(argv)
    classifier = Classifier(options.artefact)
    results = classify(classifier, read_all(options.images), options.batch)
    print(rendered(results, classifier.classes, form=options.format, top=options.top))


if __name__ == "__main__":
    in_one_line(main)
