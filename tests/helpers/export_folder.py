"""A folder as the stage `export` writes it, with a network of three colors; made in no time."""

import hashlib
import json

from helpers.color_model import write_model

from kdjax.data.meaning import Meaning
from kdjax.deploy.browser import page
from kdjax.deploy.export.card_head import head
from kdjax.deploy.trust import Trust

SIDE = 8
CLASSES = ("bare soil", "forest (mixed)", "Wüste")
TRUST = Trust(1.5, {0.9: 0.8, 0.95: 0.9}, 0.4, -1.25)
FIGURES = {"count": 40, "top1": 0.925, "macro_f1": 0.91, "nll": 0.3, "ece": 0.04}
WORDS = {"input": "uint8, RGB", "resize": "Lanczos", "output": "logits"}


def write_export(folder, meaning=None, **data):
    """Writes the folder; `data` goes into what parity.json says of the data set. Returns the content of parity.json."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {**WORDS, **(meaning or Meaning()).metadata(), **TRUST.metadata()}
    for name in ("student.onnx", "student.int8.onnx"):
        write_model(folder / name, SIDE, list(CLASSES), **facts)
    (folder / "student.safetensors").write_bytes(b"tensors")
    digest = hashlib.sha256((folder / "student.onnx").read_bytes()).hexdigest()
    text = page.document("A page", CLASSES, SIDE, meaning or Meaning(), TRUST, digest)
    (folder / "try.html").write_text(text, encoding="utf-8")
    document = {
        "student": {
            "run": "UC Merced: 64 px", "arm": "kl_cosine", "seed": 3, "step": 120, "validation": FIGURES,
            "test": {**FIGURES, "top1": 0.875},
        },
        "network": {"model": "mobilenet_v2", "params": 2_250_000, "weights": None},
        "data": {"name": "tiles: «a»", "source": "folder", "bounds": [], **data},
        "artifacts": {
            "student.safetensors": {"top1": 0.875}, "student.onnx": {"top1": 0.875},
            "student.int8.onnx": {"top1": 0.85},
        },
    }  # fmt: skip
    (folder / "parity.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "labels.json").write_text(json.dumps(CLASSES), encoding="utf-8")
    card = head(document, distilled=True) + "\n# A card\n\nWhat a person has written: 100 % --- good.\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    return document
