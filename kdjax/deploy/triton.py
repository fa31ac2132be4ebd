"""A Triton model repository of an exported student: `python -m kdjax.deploy.triton ARTIFACT REPOSITORY`.

REPOSITORY/NAME/config.pbtxt     inputs and outputs as in the file, batches of up to --max-batch images
REPOSITORY/NAME/labels.txt       class names, one per line: Triton returns the best classes by name on request
REPOSITORY/NAME/1/model.onnx     a copy of the file

This is a command of its own and not part of every export: it needs only one file of the export, few students are served
by Triton, and an export folder would otherwise hold the same network twice. The repository gets a copy of the file, so
that a later export does not change a model that a server has loaded. Needs onnxruntime, but not JAX.

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
from kdjax.errors import InputError, one_line
from kdjax.results.text import printable
from kdjax.runtime.command import Parser, positive, run_command, say

TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(uint16)": "TYPE_UINT16", "tensor(float)": "TYPE_FP32"}
"""onnxruntime's name of a data type -> Triton's."""

LABELS = "labels.txt"


def config(signature: Signature, name: str, max_batch: int) -> str:
    """The text of config.pbtxt, a ModelConfig of Triton's model_config.proto.

    Args:
        signature: of the file to serve.
        name: of the model, which is also the name of its folder.
        max_batch: largest batch; Triton combines the images of several clients up to this size.

    Raises:
        InputError: the file takes batches of one size only, or a tensor has a type that no export has.
    """
    images, logits = signature.input, signature.output
    if isinstance(images.shape[0], int):
        raise InputError(f"its graph takes {images.shape[0]} images at a time and no other number: export it again")
    for tensor in (images, logits):
        if tensor.type not in TYPES:
            raise InputError(f"its tensor {printable(tensor.name)} is a {tensor.type}: export it again")
    return f"""name: {_text(name)}
backend: "onnxruntime"
max_batch_size: {max_batch}
input [
  {{
    name: {_text(images.name)}
    data_type: {TYPES[images.type]}
    dims: {list(images.shape[1:])}
  }}
]
output [
  {{
    name: {_text(logits.name)}
    data_type: {TYPES[logits.type]}
    dims: {list(logits.shape[1:])}
    label_filename: "{LABELS}"
  }}
]
dynamic_batching {{ }}
"""


def _text(value: str) -> str:
    """A quoted string in protobuf's text format, whose escapes equal JSON's as long as all characters are printable."""
    return json.dumps(printable(value), ensure_ascii=False)


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of letters, digits, '_', '.' and '-'")
    return text


def main(argv: Sequence[str]) -> None:
    """Writes the model repository that `argv` describes.

    Raises:
        InputError: the user can correct `argv` or the model file. Nothing is written in that case.
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
    repository, model_dir = options.repository, options.repository / options.name
    if not repository.is_dir() and (repository.exists() or not repository.parent.is_dir()):
        raise InputError(f"REPOSITORY {repository}: neither a folder nor the name of a new one")
    if model_dir.exists():
        raise InputError(f"REPOSITORY {repository}: it has a model {options.name}; remove that or give another --name")
    try:
        repository.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{options.name}-", dir=repository) as temporary:
            new = Path(temporary) / options.name
            (new / "1").mkdir(parents=True)
            (new / "config.pbtxt").write_text(text, encoding="utf-8")
            labels = "".join(f"{printable(label)}\n" for label in classifier.classes)
            (new / LABELS).write_text(labels, encoding="utf-8")
            shutil.copyfile(options.artifact, new / "1" / "model.onnx")
            new.rename(model_dir)
    except OSError as error:
        raise InputError(f"REPOSITORY {repository}: cannot be written ({one_line(error)}): give another") from error
    say(
        f"{model_dir}: {options.artifact.name}, {len(classifier.classes)} classes, batches of up to {options.max_batch}"
    )


if __name__ == "__main__":
    run_command(main)
