"""The stage `export`: which student, which files, and what is there when it fails."""

import contextlib
import dataclasses
import json
import signal
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.exported import folded, pixels, student
from helpers.variables import randomized
from safetensors.numpy import load_file

from kdjax import main, networks
from kdjax.config import base
from kdjax.data.dataset import Split
from kdjax.data.meaning import Meaning
from kdjax.deploy import export
from kdjax.deploy.export import __main__ as export_command
from kdjax.deploy.trust import fit
from kdjax.errors import InputError, Preempted
from kdjax.networks.pretrained import load_imagenet, named_tensors
from kdjax.networks.weights_metadata import class_names
from kdjax.run import opening
from kdjax.runtime import watch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from helpers.export_folder import write_export  # noqa: E402  (needs the two above)

from kdjax.deploy.classifier import Classifier  # noqa: E402
from kdjax.deploy.export import candidates, parity, stage, tensors  # noqa: E402

CLASSES = ("field", "forest", "übung", "river", "sea")


@dataclasses.dataclass(frozen=True)
class Plain:
    """Settings of a candidate that has none."""


def test_timm_names_are_those_of_the_same_tensors(tmp_path):
    _, variables = student("mobilenet_v2", 0.25)
    ours = named_tensors("mobilenet_v2", variables)
    tensors.write(tmp_path, "mobilenet_v2", variables, {"classes": json.dumps(CLASSES)})
    names = json.loads((tmp_path / "timm_names.json").read_text())
    theirs = named_tensors("mobilenet_v2", variables, "timm")
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[names[name]], value)
    assert names.keys() == load_file(tmp_path / "student.safetensors").keys()
    assert names["features.2.conv.1.1.num_batches_tracked"] == "blocks.1.0.bn2.num_batches_tracked"
    assert len(set(names.values())) == len(names)


def test_names_alone_do_not_make_the_tensors_those_of_another_eps(tmp_path):
    """timm's MobileNetV3 would compute something else from them, without a word."""
    name = "mobilenet_v3_small"
    tensors.write(
        tmp_path, name, randomized(networks.create(name, 5, width=0.25), 32), {"classes": json.dumps(CLASSES)}
    )
    assert [path.name for path in tmp_path.iterdir()] == ["student.safetensors"]


@pytest.mark.parametrize(("name", "head"), [("vgg16", "average"), ("vgg16_bn", "fc")])
def test_the_tensors_of_any_network_are_read_back(tmp_path, name, head):
    _, variables = student(name, 0.05, head)
    tensors.write(tmp_path, name, variables, {"classes": json.dumps(CLASSES)})
    names = json.loads((tmp_path / "timm_names.json").read_text())
    assert names["features.0.weight"] == "features.0.weight"
    assert names["classifier.6.bias" if head == "fc" else "classifier.bias"] == "head.fc.bias"
    zeros = {"params": jax.tree.map(np.zeros_like, variables["params"]), "batch_stats": variables["batch_stats"]}
    taken = load_imagenet(tmp_path / "student.safetensors", name, zeros, "whole")
    loaded, report = taken.variables, taken.report
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    assert "nothing kept" in report
    assert class_names(tmp_path / "student.safetensors") == list(CLASSES)


def test_the_same_student_gives_the_same_bytes(tmp_path):
    """Were the order of the metadata left to chance, two of eight files would differ in 127 of 128 cases."""
    _, variables = student("vgg16", 0.05, "average")
    written = set()
    for _ in range(8):
        tensors.write(tmp_path, "vgg16", variables, {"classes": json.dumps(CLASSES)})
        written.add((tmp_path / "student.safetensors").read_bytes())
    assert len(written) == 1


@dataclasses.dataclass
class Selected:
    score: list
    nll: list


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((None, None), ("kl", 5)),  # no seed failed, best mean; there the lower NLL among equals
        (("alone", None), ("alone", 7)),
        ((None, 7), ("alone", 7)),
        (("cosine", 5), ("cosine", 5)),
    ],
)
def test_the_student_is_chosen_on_validation(asked, expected):
    best = Selected([[0.7, 0.9, 0.95], [0.92, 0.9, 1.0]], [[1, 0.1, 1], [1, 0.2, 1]])
    usable = np.array([[True, True, True], [True, True, False]])  # what is left of cosine is above the means of others
    chosen = stage.choose(best, usable, ("alone", "kl", "cosine"), (5, 7), *asked)
    assert (chosen.arm, chosen.seed) == expected
    assert (("alone", "kl", "cosine")[chosen.column], (5, 7)[chosen.row]) == expected


@pytest.mark.parametrize(
    ("asked", "said"),
    [(("nobody", None), "alone, kl"), ((None, 9), "5, 7"), (("kl", 7), "kl/7 failed"), (("alone", None), "alone")],
)
def test_students_that_are_not_there_are_refused(asked, said):
    best = Selected([[0.7, 0.9], [0.9, 0.9]], [[1, 1], [1, 1]])
    with pytest.raises(InputError, match=said):
        stage.choose(best, np.array([[False, True], [False, False]]), ("alone", "kl"), (5, 7), *asked)


def test_missing_packages_are_refused(monkeypatch):
    export.check(litert=False)
    monkeypatch.setattr(export, "LITERT_PACKAGES", ("onnx", "no_such_litert"))
    export.check(litert=False)
    with pytest.raises(InputError, match=r"run.litert needs no_such_litert.*kdjax\[litert\]"):
        export.check(litert=True)
    monkeypatch.setattr(export, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(InputError, match=r"no_such_package.*kdjax\[export\]"):
        export.check(litert=False)


@pytest.mark.parametrize("how", ["config", "flag"])
def test_missing_packages_are_refused_before_the_run_is_opened(monkeypatch, tmp_path, how):
    monkeypatch.setattr(export, "LITERT_PACKAGES", ("no_such_litert",))
    monkeypatch.setattr(opening, "open_for_command", lambda *arguments, **options: pytest.fail("its images were read"))
    config = base()
    config.run.litert = how == "config"
    (tmp_path / "config.json").write_text(config.to_json())
    with pytest.raises(InputError, match="run.litert needs no_such_litert"):
        export_command.main([f"--workdir={tmp_path}", *(["--litert"] if how == "flag" else [])])


@pytest.mark.parametrize(("flag", "said"), [
    ("--arm=kl_cosin", "--arm: the run has no arm 'kl_cosin'; it has kl, kl_cosine$"),
    ("--seed=3", "--seed: the run has no seed 3; it has 0, 7$"),
])  # fmt: skip
def test_a_student_that_the_run_has_not_is_refused_before_the_run_is_opened(monkeypatch, tmp_path, flag, said):
    monkeypatch.setattr(opening, "open_for_command", lambda *arguments, **options: pytest.fail("its images were read"))
    (tmp_path / "config.json").write_text(base().to_json())
    (tmp_path / "distill").mkdir()
    (tmp_path / "distill" / "program.json").write_text('{"arms": ["kl", "kl_cosine"], "seeds": [0, 7]}')
    with pytest.raises(InputError, match=said):
        export_command.main([f"--workdir={tmp_path}", flag])


def test_images_that_cannot_be_exported_are_refused_before_anything_is_trained(monkeypatch, tmp_path):
    bands, stages = SimpleNamespace(meaning=SimpleNamespace(bands=object())), []
    monkeypatch.setattr(opening, "open_for_command", lambda config, workdir, **options: SimpleNamespace(dataset=bands))
    monkeypatch.setattr(main, "_stage", lambda name, run: stages.append(name))
    monkeypatch.setattr(watch, "start", lambda *arguments: None)
    command = ["main", f"--workdir={tmp_path}", "--stages=teacher,distill,export"]
    with pytest.raises(InputError, match="run.litert: LiteRT files take red, green and blue"):
        main.main([*command, "--config.run.litert"])
    assert not stages
    main.main(command)
    assert stages == ["teacher", "distill", "export"]


def test_an_old_export_is_replaced_whole_or_not_at_all(tmp_path):
    for generation in ("student.tflite", "student.onnx"):
        with stage.replacing(tmp_path / "export") as place:
            (place / generation).touch()
            assert not (tmp_path / "export" / generation).exists()
    with pytest.raises(OSError), stage.replacing(tmp_path / "export") as place:
        (place / "try.html").touch()
        raise OSError("the disk is full")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "export",
        "export/student.onnx",
    ]


def test_another_export_leaves_what_a_person_put_into_the_folder(tmp_path):
    """Notes and an engine made of the file stay; what only the former export had, and its catalog entry, do not."""
    export = tmp_path / "export"
    write_export(export)
    (export / "ort").mkdir()
    for name in ("student.plan", "ort/ort.wasm.min.mjs", "student.tflite", "stac_item.json"):
        (export / name).write_text("former")
    with stage.replacing(export) as place:
        (place / "student.onnx").write_text("new")
    assert {path.relative_to(export).as_posix(): path.read_text() for path in export.rglob("*") if path.is_file()} == {
        "ort/ort.wasm.min.mjs": "former",
        "student.onnx": "new",
        "student.plan": "former",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_link_to_an_export_elsewhere_is_replaced_and_nothing_there_is_touched(tmp_path):
    """It may lie on another file system."""
    write_export(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "notes.txt").touch()
    before = sorted((tmp_path / "elsewhere").iterdir())
    (tmp_path / "export").symlink_to(tmp_path / "elsewhere")
    with stage.replacing(tmp_path / "export") as place:
        (place / "student.onnx").touch()
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["student.onnx"]
    assert sorted((tmp_path / "elsewhere").iterdir()) == before


def test_a_signal_between_two_exports_leaves_one(tmp_path, monkeypatch):
    """It comes when the former folder has been moved away and the new one is not in its place."""

    def ended(number, frame):
        raise Preempted

    def signaled(path, target, rename=Path.rename):
        rename(path, target)
        if path.name == "export":
            signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, ended)
    monkeypatch.setattr(Path, "rename", signaled)
    try:
        for part in ("first", "second"):
            with contextlib.suppress(Preempted), stage.replacing(tmp_path / "export") as place:
                (place / "student.onnx").write_text(part)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "export" / "student.onnx").read_text() == "second"


def test_what_is_trusted_is_what_the_file_says(tmp_path, monkeypatch):
    """Not what the run said of the same images, which may have computed in bfloat16."""
    monkeypatch.setattr(stage.quantize, "CANDIDATES", stage.quantize.CANDIDATES[:1])
    images, labels = pixels(40, 36), np.arange(40, dtype=np.int32) % len(CLASSES)
    split = Split(images, labels, tuple(map(str, range(40))))
    run = SimpleNamespace(dataset=SimpleNamespace(train=split, validation=split), log=lambda line: None)
    network = folded("mobilenet_v2", 0.25, 36, 32)
    metadata = stage.onnx_graph.metadata(network, CLASSES, Meaning())
    trusts, _ = stage._write_onnx(run, tmp_path, network, metadata)
    for name, trust in trusts.items():
        classifier = Classifier(tmp_path / name)
        assert classifier.trust == trust and classifier.classes == CLASSES
        expected = fit(classifier.logits(images), labels)
        assert trust.temperature == pytest.approx(expected.temperature, rel=1e-4)
        assert trust.limits == pytest.approx(expected.limits, rel=1e-4)
    assert len({trust.temperature for trust in trusts.values()}) == len(trusts) == 2


def test_a_loss_by_8_bits_is_told_where_it_is_more_than_half_a_point():
    labels = np.zeros(1000, np.int32)
    exact = np.tile([1.0, 0.0], (1000, 1))
    for wrong, told in ((0, 0), (5, 0), (6, 1)):
        said = []
        logits = exact.copy()
        logits[:wrong] = [0.0, 1.0]
        model, _, (tried,) = candidates.nearest(
            (Plain(),), lambda one, logits=logits: ("model", logits), exact, labels, said.append
        )
        assert model == "model" and tried["validation_top1_lost"] == pytest.approx(wrong / 1000)
        warnings = [line for line in said if line.startswith("warning: ")]
        assert len(warnings) == told
    assert "8 bits cost 0.60 points of validation top-1 (6 of 1000 images), more than 0.5" in warnings[0]


def test_compared_with_the_reference():
    reference = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0]])
    logits = reference.copy()
    logits[1] = [1.5, 1.0]
    found = parity.compare(logits, reference, np.array([0, 0, 1, 1]))
    assert found == {"top1": 0.75, "agreement": 0.75, "largest_logit_difference": 1.5}
