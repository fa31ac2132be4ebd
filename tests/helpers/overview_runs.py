"""Runs in folders, as far as the overview reads them."""

import json

from helpers.run_results import TOP1, parts

from kdjax.results import document


def write(folder, *, top1=TOP1, teacher="vgg16_bn", sha="a", student="mobilenet_v2", test=("a/1", "b/1"), val=None):
    """A run in a folder. `val` are validation accuracies of arms in place of 0.5."""
    made = parts(top1)
    made["teacher"] |= {"model": teacher, "sha256": sha}
    made["student"] |= {"model": student, "image_size": 64}
    for arm, value in (val or {}).items():
        made["arms"][arm]["val_top1"] = [value] * 3
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(document.build(**made)))
    splits = {"classes": ["a", "b", "c"], "test": list(test), "train": [], "validation": [], "unlabeled": []}
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


def changed(folder, path, value):
    """The run with another value at a dotted path of its results.json; None leaves it out."""
    results = json.loads((folder / "results.json").read_text())
    *sections, field = path.split(".")
    section = results
    for name in sections:
        section = section.setdefault(name, {})
    section[field] = value
    if value is None:
        del section[field]
    (folder / "results.json").write_text(json.dumps(results))
