"""A network that was trained elsewhere is taken with its head, whose classes are matched by name."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_run import learner
from helpers.variables import randomized
from safetensors.numpy import save_file

from kdjax import networks
from kdjax.data.dataset import Split
from kdjax.errors import InputError
from kdjax.networks.pretrained import named_tensors
from kdjax.runtime.devices import DeviceMapping
from kdjax.training.frozen import as_trained

THEIRS = ("water", "other", "field", "forest")
OURS = ("field", "forest", "water")
PLACES = [2, 3, 0]
RNG = np.random.default_rng(0)
VALIDATION = Split(
    RNG.integers(0, 256, (9, 40, 40, 3), np.uint8), np.arange(9, dtype=np.int32) % 3, tuple(map(str, range(9)))
)


def network(classes, head):
    return networks.create("vgg16", classes, width=0.05, head=head)


def teacher(tmp_path, head, classes, metadata=None, ema=0.0, scale=1.0):
    """Their network in a file, and a learner of ours that takes it."""
    theirs = network(len(THEIRS), head)
    variables = jax.tree.map(lambda leaf: leaf * scale, randomized(theirs, 32))
    save_file(named_tensors("vgg16", variables, "torchvision"), tmp_path / "theirs.safetensors", metadata)
    section = SimpleNamespace(
        weights=str(tmp_path / "theirs.safetensors"), weights_pixels="network", model="vgg16", head=head,
        classes=classes, clip=1.0, head_factor=1.0, ema=ema,
    )  # fmt: skip
    lines = []
    made = learner(tmp_path, DeviceMapping(jax.devices()[:1]), until=1)
    fields = dict(network=network(len(OURS), head), size=32, seeds=(0,), arm_names=("teacher",), log=lines.append)
    made = type(made)(**{**vars(made), **fields, "name": "teacher", "section": section})
    logits = theirs.apply(variables, jnp.zeros((2, 32, 32, 3)) + jnp.array([0.2, 0.7])[:, None, None, None]).logits
    return made, np.asarray(logits), lines


@pytest.mark.slow
@pytest.mark.parametrize("head", ["average", "fc"])
@pytest.mark.parametrize("declared", ["fields", "metadata"])
def test_logits_are_those_of_the_file_in_the_order_of_our_classes(tmp_path, head, declared):
    metadata = {"classes": json.dumps(THEIRS)} if declared == "metadata" else None
    made, expected, lines = teacher(tmp_path, head, () if metadata else THEIRS, metadata, ema=0.9)
    state, measured = as_trained(made, OURS, VALIDATION, selected_by="top1")
    images = jnp.zeros((2, 32, 32, 3)) + jnp.array([0.2, 0.7])[:, None, None, None]
    for variables in (state.variables, state.ema, state.best.variables):
        one = jax.tree.map(lambda leaf: leaf[0, 0], dict(variables))
        found = network(3, head).apply(one, images).logits
        np.testing.assert_allclose(found, expected[:, PLACES], rtol=1e-5, atol=1e-6)
    said = made.predictor(state.variables, VALIDATION.images)[0, 0]
    assert state.best.score[0, 0] == measured["top1"] == pytest.approx((said.argmax(1) == VALIDATION.labels).mean())
    assert int(state.step) == int(state.best.step[0, 0]) == 1 and "nothing kept" in lines[0]
    assert json.loads((tmp_path / "weights.json").read_text())["file"] == "theirs.safetensors"


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ((), "does not say which logit is which class: give teacher.classes"),
        (("water", "field", "other", "sea"), "teacher.classes lacks forest"),
        (("water", "field", "forest", "water"), "teacher.classes names water twice"),
        (
            OURS,
            r"teacher.weights .*misshapen: classifier.bias \(4,\) instead of \(3,.*a head for the 3 classes field, ",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, classes, said):
    made, _, _ = teacher(tmp_path, "average", classes)
    with pytest.raises(InputError, match=said):
        as_trained(made, OURS, VALIDATION, selected_by="top1")


def test_a_file_without_a_head_is_refused(tmp_path):
    made, _, _ = teacher(tmp_path, "average", THEIRS)
    tensors = named_tensors("vgg16", randomized(network(4, "average"), 32), "torchvision")
    save_file({name: x for name, x in tensors.items() if "classifier" not in name}, tmp_path / "theirs.safetensors")
    with pytest.raises(InputError, match="missing: classifier.weight, classifier.bias|missing: classifier.bias"):
        as_trained(made, OURS, VALIDATION, selected_by="top1")


def test_a_file_that_says_otherwise_than_the_user_is_refused(tmp_path):
    made, _, _ = teacher(tmp_path, "average", THEIRS[::-1], {"classes": json.dumps(THEIRS)})
    with pytest.raises(InputError, match="itself says that its classes are water, other, field, forest: leave"):
        as_trained(made, OURS, VALIDATION, selected_by="top1")


def test_classes_that_are_numbers_are_named_in_errors(tmp_path):
    made, _, _ = teacher(tmp_path, "average", (1, 2, 3))
    with pytest.raises(InputError, match="a head for the 3 classes 1, 2, 3"):
        as_trained(made, ("1", "2", "3"), VALIDATION, selected_by="top1")


def test_a_file_whose_logits_are_not_finite_is_refused(tmp_path):
    """Each weight is finite, and their products are not."""
    made, logits, _ = teacher(tmp_path, "average", THEIRS, scale=1e6)
    assert not np.isfinite(logits).all()
    with pytest.raises(InputError, match=r"teacher.weights .*theirs.* not finite for validation images"):
        as_trained(made, OURS, VALIDATION, selected_by="top1")
