"""A Triton model repository of an exported student: `python -m kdjax.deploy.triton ARTIFACT REPOSITORY`.

REPOSITORY/NAME/config.pbtxt     inputs and outputs as they are in the file, any batch up to --max-batch
REPOSITORY/NAME/labels.txt       class names, one a line: Triton names the best classes to clients that ask for them
REPOSITORY/NAME/1/model.onnx     a copy of the file

A command, and no part of every export: it needs nothing but one file of the export, few students are served by Triton,
and the folder would hold the same network twice. The copy is none of the export's files, so that another export changes
no model that a server has loaded. Needs onnxruntime, and no JAX.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_repository.html
"""

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kdjax.deploy.classifier import Classifier, Signature
from kdjax.errors import InputError, reason
from kdjax.results.text import printable
from kdjax.runtime.command import Parser, positive, run_command, say

TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(uint16)": "TYPE_UINT16", "tensor(float)": "TYPE_FP32"}
"""Names of data types in Triton, by onnxruntime's."""

LABELS = "labels.txt"


def config(signature: Signature, name: str, max_batch: int) -> str:
    """The text of config.pbtxt, a ModelConfig of Triton's model_config.proto.

    Args:
        signature: of the file that is to be served.
        name: of the model, which is that of its folder.
        max_batch: the most images that go through the network together; Triton puts those of several clients together.

    Raises:
        InputError: the file takes a batch of one size only, or a tensor is of a type that no export has.
    """
    given, result = signature.given, signature.result
    if isinstance(given.shape[0], int):
        raise InputError(f"its graph takes {given.shape[0]} images at a time and no other number: export it again")
    for tensor in (given, result):
        if tensor.type not in TYPES:
            raise InputError(f"its tensor {printable(tensor.name)} is a {tensor.type}: export it again")
    return f"""name: {_text(name)}
backend: "onnxruntime"
max_batch_size: {max_batch}
input [
  {{
    name: {_text(given.name)}
    data_type: {TYPES[given.type]}
    dims: {list(given.shape[1:])}
  }}
]
output [
  {{
    name: {_text(result.name)}
    data_type: {TYPES[result.type]}
    dims: {list(result.shape[1:])}
    label_filename: "{LABELS}"
  }}
]
dynamic_batching {{ }}
"""


def _text(value: str) -> str:
    """A string of protobuf's text format, which shares its escapes with JSON as long as all is printable."""
    return json.dumps(printable(value), ensure_ascii=False)


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of letters, digits, '_', '.' and '-'")
    return text


def main(argv: Sequence[str]) -> None:
    """Writes the model that `argv` asks for.

    Raises:
        InputError: anything in `argv` or the model file that a person can correct. Nothing was written then.
    """
    parser = Parser(prog="python -m kdjax.deploy.triton", description="A Triton model repository of a student.")
    parser.add_argument("artifact", metavar="ARTIFACT", type=Path, help="student.onnx or student.int8.onnx")
    parser.add_argument("repository", metavar="REPOSITORY", type=Path, help="folder of Triton's models")
    parser.add_argument("--name", type=_name, default="student", help="of the model, by which clients ask for it")
    parser.add_argument("--max-batch", type=positive, default=32, help="images that go through the network together")
    options = parser.parse_args(argv)
    classifier = Classifier(options.artifact)
    signature = classifier.signature
    try:
        text = config(signature, options.name, options.max_batch)
    except InputError as error:
        raise InputError(f"artifact {options.artifact}: {error}") from error
    repository, place = options.repository, options.repository / options.name
    if not repository.is_dir() and (repository.exists() or not repository.parent.is_dir()):
        raise InputError(f"REPOSITORY {repository}: neither a folder nor the name of a new one")
    if place.exists():
        raise InputError(f"REPOSITORY {repository}: it has a model {options.name}; remove that or give another --name")
    try:
        repository.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{options.name}-", dir=repository) as beside:
            new = Path(beside) / options.name
            (new / "1").mkdir(parents=True)
            (new / "config.pbtxt").write_text(text, encoding="utf-8")
            labels = "".join(f"{printable(label)}\n" for label in classifier.classes)
            (new / LABELS).write_text(labels, encoding="utf-8")
            shutil.copyfile(options.artifact, new / "1" / "model.onnx")
            new.rename(place)
    except OSError as error:
        raise InputError(f"REPOSITORY {repository}: cannot be written ({reason(error)}): give another") from error
    say(f"{place}: {options.artifact.name}, {len(classifier.classes)} classes, batches of up to {options.max_batch}")


if __name__ == "__main__":
    run_command(main)
