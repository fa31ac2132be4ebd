"""The folder of a run's teacher outputs is another as soon as anything that they depend on is another."""

import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import networks
from kdjax.config import base
from kdjax.data.bands import Bands
from kdjax.data.dataset import Statistics
from kdjax.data.meaning import Meaning
from kdjax.errors import InputError
from kdjax.inputs.augment import Augmentation
from kdjax.run import soft_targets
from kdjax.run.soft_targets import check_files, open_targets
from kdjax.run.teacher_source import GivenTeacher
from kdjax.runtime.devices import DeviceMapping
from kdjax.teacher import store
from kdjax.teacher.teacher import ViewSettings

SIZE = 32
CLASSES = ("field", "forest", "water")


def variables(scale=1.0, model="vgg16"):
    network = networks.create(model, len(CLASSES), width=0.05)
    made = dict(network.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3))))
    return {"batch_stats": {}, **jax.tree.map(lambda leaf: np.asarray(leaf) * np.float32(scale), made)}


def run_of(tmp_path, *, made=None, **changes):
    """A run with a trained teacher; `changes` are of what its logits depend on."""
    facts = {"model": "vgg16", "size": SIZE, "dtype": jnp.float32, "examples": "x", "data_seed": 5}
    facts |= {"augmentation": Augmentation(), "classes": CLASSES, "onnx": None, "onnx_classes": ()}
    facts |= {"onnx_bands": (), "meaning": Meaning(), "statistics": None} | changes
    config = base()
    config.data_seed, config.teacher.model = facts["data_seed"], facts["model"]
    config.teacher.onnx, config.teacher.classes = facts["onnx"], facts["onnx_classes"]
    config.teacher.bands = facts["onnx_bands"]
    if facts["meaning"].bands:
        config.teacher.update(onnx_input="normalized", onnx_mean=(0.5, 0.5, 0.5), onnx_std=(0.2, 0.2, 0.2))
    network = networks.create(facts["model"], len(CLASSES), width=0.05, dtype=facts["dtype"])
    finished = SimpleNamespace(one=lambda row, column: made or variables(model=facts["model"]))
    learner = SimpleNamespace(
        section=config.teacher, network=network, finished=lambda: finished, mapping=DeviceMapping(jax.devices()[:1]),
        folder=tmp_path / "teacher",
    )  # fmt: skip
    for folder in (tmp_path / "run", tmp_path / "cache"):
        folder.mkdir(exist_ok=True)
    return SimpleNamespace(
        config=config, teacher=learner, teacher_size=facts["size"], augmentation=facts["augmentation"],
        dataset=SimpleNamespace(
            fingerprint=facts["examples"], classes=facts["classes"], statistics=facts["statistics"],
            meaning=facts["meaning"], value_range=facts["meaning"].value_range,
            train=SimpleNamespace(images=np.zeros((2, 40, 40, 3), np.uint8)),
        ),
        cache_dir=tmp_path / "cache", workdir=tmp_path / "run", results_dir=tmp_path / "run",
        student=SimpleNamespace(has_ended=False), log=lambda line: None, on_device=lambda images: True,
    )  # fmt: skip


def folder_of(tmp_path, **changes):
    (source,) = open_targets(run_of(tmp_path, **changes)).sources
    return source.folder.folder


CHANGES = {
    "weights": lambda: {"made": variables(1 + 1e-6)},
    "model": lambda: {"model": "vgg16_bn"},
    "size": lambda: {"size": 48},
    "dtype": lambda: {"dtype": jnp.bfloat16},
    "examples": lambda: {"examples": "y"},
    "data seed": lambda: {"data_seed": 6},
    "crops": lambda: {"augmentation": Augmentation(scale=(0.4, 1.0))},
    "ratios": lambda: {"augmentation": Augmentation(ratio=(1.0, 1.0))},
    "brightness": lambda: {"augmentation": Augmentation(brightness=0.1)},
    "contrast": lambda: {"augmentation": Augmentation(contrast=0.1)},
    "saturation": lambda: {"augmentation": Augmentation(saturation=0.1)},
    "symmetries": lambda: {"augmentation": Augmentation(symmetries=4)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_the_logits_depend_on_names_their_folder(tmp_path, change):
    first = folder_of(tmp_path)
    assert folder_of(tmp_path) == first and first.parent == tmp_path / "cache" / "teacher_logits"
    assert folder_of(tmp_path, **CHANGES[change]()) != first


def test_another_version_of_augmentation_or_layout_names_another_folder(tmp_path, monkeypatch):
    first = folder_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("kdjax.inputs.augment.VERSION", 10**6)
        assert folder_of(tmp_path) != first
    with monkeypatch.context() as patch:
        patch.setattr("kdjax.teacher.store.FORMAT", 10**6)
        assert folder_of(tmp_path) != first
    assert folder_of(tmp_path) == first


@pytest.mark.parametrize("process", [0, 1])
def test_of_several_processes_the_first_fits_the_head_of_an_encoder(tmp_path, monkeypatch, process):
    """Heads that machines fitted to unlike last bits would be teachers of their own."""
    said, written = [], []
    fit = SimpleNamespace(kernel=None, bias=None, figures={})
    run = SimpleNamespace(
        workdir=tmp_path, teacher_size=SIZE, dataset=None,
        config=SimpleNamespace(teacher=SimpleNamespace(onnx_gives="embeddings")),
    )  # fmt: skip
    for name, made in {
        "given_teachers": lambda config: [SimpleNamespace(kind="onnx", place="encoder.onnx")],
        "_open_onnx": lambda *given: (None, None),
        "_head_parts": lambda run, file: {"teacher": "a"},
        "_fit_head": lambda run, file: fit,
        "write_head": lambda folder, head: written.append(folder.name),
        "first_process_says": lambda answer: said.append(answer) or answer,
        "barrier": lambda what: said.append(what),
    }.items():
        monkeypatch.setattr(soft_targets, name, made)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    fitted = soft_targets.fit_encoder_heads(run)
    assert said == [True, "the head is stored"]
    assert (fitted, written) == (([("encoder.onnx", fit)], ["a"]) if process == 0 else ([], []))


def test_a_head_belongs_to_its_images_and_class_weights():
    def fitted_to(fingerprint="x", weights=()):
        config = base()
        config.dataset.class_weights = weights
        train = SimpleNamespace(labels=np.array([0, 0, 1], np.int32))
        dataset = SimpleNamespace(fingerprint=fingerprint, classes=("a", "b"), train=train)
        run = SimpleNamespace(config=config, dataset=dataset, selected_by="top1")
        return soft_targets._head_parts(run, SimpleNamespace(parts={"teacher": "t"}))

    assert fitted_to() == fitted_to() != fitted_to("y")
    assert fitted_to() != fitted_to(weights=("balanced",))


def test_a_head_is_fitted_to_labeled_training_images_and_chosen_on_validation(monkeypatch):
    fitted = []
    monkeypatch.setattr(soft_targets, "head_weights", lambda config, dataset: ())
    monkeypatch.setattr(soft_targets, "probe", lambda *pairs, **options: fitted.extend(pairs))
    split = lambda name: SimpleNamespace(images=name, labels=f"{name} labels", labeled=lambda: split(f"labeled {name}"))
    dataset = SimpleNamespace(classes=(), **{name: split(name) for name in ("train", "validation", "test")})
    run = SimpleNamespace(config=None, dataset=dataset, selected_by="top1")
    soft_targets._fit_head(run, SimpleNamespace(plain=lambda images: images))
    assert fitted == [("labeled train", "labeled train labels"), ("validation", "validation labels")]


def test_students_in_training_refuse_a_teacher_of_images_that_are_decoded_differently(tmp_path):
    open_targets(run_of(tmp_path)).pin()
    (tmp_path / "run" / "distill" / "checkpoints" / "3").mkdir(parents=True)
    other = run_of(tmp_path, examples="y")
    with pytest.raises(InputError, match="decoded differently"):
        open_targets(other)
    other.student.has_ended = True
    open_targets(other)


@pytest.mark.parametrize(("place", "members"), [("RUN", [[0, 0], [0, 1], [1, 0]]), ("RUN:dist", [[0, 1]])])
def test_a_mean_of_students_is_of_those_asked_for_that_did_not_fail(monkeypatch, place, members):
    """They see images of the size that they were trained with, not of that of this run's teacher."""
    finished = SimpleNamespace(
        usable=np.array([[True, True], [True, False]]), one=lambda row, column: {"params": np.array([row, column])}
    )
    learner = SimpleNamespace(
        size=48, arm_names=("kl", "dist"), finished=lambda: finished,
        section=SimpleNamespace(model="m"), network=SimpleNamespace(dtype=jnp.float32),
    )  # fmt: skip
    monkeypatch.setattr(soft_targets, "other_networks", lambda run, other: learner)
    monkeypatch.setattr(soft_targets, "Mean", lambda network, count: count)
    monkeypatch.setattr(soft_targets, "from_network", lambda name, network, made, shown, **_: (network, made, shown))
    run = SimpleNamespace(on_device=bool, dataset=SimpleNamespace(train=SimpleNamespace(images=None)))
    given = GivenTeacher("students", place, "teacher.ensemble")
    count, made, shown = soft_targets._teacher_of_other_run(run, given, ViewSettings(SIZE, data_seed=0))
    assert (count, made["params"]["network"].tolist(), shown.size) == (len(members), members, 48)


def colors(path, order, side="side", **facts):
    """An ONNX file that gives the mean of each channel, with class names and more facts in its metadata."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["images", "axes"], ["logits"], keepdims=0)],
        "colors",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", side, side, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array([1, 2]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    facts = {"classes": order, **facts} if order else facts
    helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    onnx.save(model, path)
    return str(path)


def test_of_an_onnx_teacher_size_order_and_bytes_name_the_folder(tmp_path):
    path = colors(tmp_path / "teacher.onnx", CLASSES)
    first = folder_of(tmp_path, onnx=path)
    assert folder_of(tmp_path, onnx=path) == first
    assert folder_of(tmp_path, onnx=path, size=48) != first
    unnamed = colors(tmp_path / "unnamed.onnx", None)
    orders = [folder_of(tmp_path, onnx=unnamed, onnx_classes=order) for order in (CLASSES, CLASSES[::-1])]
    assert orders[0] != orders[1]
    colors(tmp_path / "teacher.onnx", CLASSES, side="other")  # other bytes under the same name
    assert folder_of(tmp_path, onnx=path) != first


def test_one_teacher_under_two_names_is_refused(tmp_path):
    """Its logits would count double: of a file and its copy, or of a run and the folder of its logits."""
    path = colors(tmp_path / "teacher.onnx", CLASSES)
    members = [path, shutil.copy(path, tmp_path / "copy.onnx"), colors(tmp_path / "other.onnx", CLASSES, side="other")]
    run = run_of(tmp_path)

    def ensemble(*texts):
        run.config.teacher.ensemble = texts
        return open_targets(run)

    file, copy, other = (f"onnx={one}" for one in members)
    with pytest.raises(InputError, match=r"ensemble: .*teacher.onnx and .*copy.onnx are one teacher, whose logits"):
        ensemble(file, other, copy)
    stored = ensemble(file, other).sources[0].folder.folder
    with pytest.raises(InputError, match="are one teacher, whose logits would count twice: leave one of them out"):
        ensemble(file, f"logits={stored}")
    parts = json.loads((stored / "parts.json").read_text())
    known = {name: parts[name] for name in store.DATA_PARTS}  # arrays made elsewhere need not say by whom
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "parts.json").write_text(json.dumps(known))
    assert len(ensemble(f"logits={tmp_path / 'a'}", f"logits={tmp_path / 'b'}").sources) == 2


NEAR_INFRARED = {
    "meaning": Meaning((0.0, 10_000.0), bands=Bands(("B02", "B03", "B08"))),
    "statistics": Statistics((0.1, 0.2, 0.4), (0.01, 0.02, 0.04)),
}
DEEP = {"meaning": Meaning((0.0, 4000.0))}


@pytest.mark.parametrize(
    ("told", "here", "said"),
    [
        (
            {"bands": ["B03", "B02", "B08"]},
            NEAR_INFRARED,
            "the bands B03 B02 B08, and is given B02 B03 B08: name",
        ),
        ({"bands": ["B02", "B03", "B08"]}, {}, "and is given red green blue"),
        (
            {"bands": ["B2", "B3", "B8"], "value_range": [0, 3000]},
            NEAR_INFRARED,
            r"made for the values \[0.0, 3000.0\], not \[0.0, 10000.0\]: set dataset.value_range",
        ),
        ({"bands": ["B2", "B3", "B8"], "value_range": []}, NEAR_INFRARED, r"the values \[\], not"),
        ({"value_range": [0, 10_000]}, DEEP, r"the values \[0.0, 10000.0\], not \[0.0, 4000.0\]"),
    ],
)
def test_an_onnx_teacher_of_other_pixels_is_refused(tmp_path, told, here, said):
    path = colors(tmp_path / "teacher.onnx", CLASSES, **told)
    run = run_of(tmp_path, onnx=path, **here)
    with pytest.raises(InputError, match=said):
        check_files(run)
    run.config.teacher.onnx_gives, run.config.teacher.classes = "embeddings", ()
    with pytest.raises(InputError, match=said):
        soft_targets.fit_encoder_heads(run)


@pytest.mark.parametrize(
    ("told", "here"),
    [
        ({"bands": ["B03", "B02", "B08"], "value_range": [0, 10_000]}, {"onnx_bands": ("B03", "B02", "B08")}),
        ({"value_range": "unknown", "bands": 3}, {}),
    ],
)
def test_an_onnx_teacher_of_these_pixels_is_taken(tmp_path, told, here):
    check_files(run_of(tmp_path, onnx=colors(tmp_path / "teacher.onnx", CLASSES, **told), **NEAR_INFRARED, **here))
    # Bytes, of which nothing was said or which were made of other values, may be shown to a file for bytes.
    check_files(run_of(tmp_path, onnx=colors(tmp_path / "bytes.onnx", CLASSES, value_range=[]), **DEEP))
