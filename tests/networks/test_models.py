"""The networks against plain PyTorch with the same weights, and their two forms against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import networks
from kdjax.networks import mobilenet_v2
from kdjax.networks.pretrained import named_tensors

CLASSES = 7


def randomised(model, size):
    """Variables with statistics and scales as far from their initial values as a trained network's."""
    variables = jax.tree.map(np.asarray, dict(jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))))
    rng = np.random.default_rng(0)

    def spread(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        if name in ("bias", "mean"):
            return rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype)
        return leaf * 10 if "head" in [key.key for key in path] else leaf

    return jax.tree_util.tree_map_with_path(spread, variables)


CASES = {
    "mobilenet_v2": ("mobilenet_v2", {"width": 0.5, "dropout": 0.0}, "MobileNetV2", {"width": 0.5, "dropout": 0.0}),
    "mobilenet_v2 conv": (
        "mobilenet_v2",
        {"width": 0.5, "dropout": 0.0, "depthwise": "conv"},
        "MobileNetV2",
        {"width": 0.5, "dropout": 0.0},
    ),
    "vgg16": ("vgg16", {"width": 0.25}, "VGG16", {"width": 0.25}),
    "vgg16 fc": ("vgg16", {"width": 0.125, "head": "fc"}, "VGG16", {"width": 0.125, "head": "fc"}),
    "vgg16_bn": ("vgg16_bn", {"width": 0.25}, "VGG16", {"width": 0.25, "batch_norm": True}),
}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_pytorch(case, train):
    torch = pytest.importorskip("torch")
    import torch_reference

    name, options, reference, reference_options = CASES[case]
    size = 44  # odd sides on the way down
    model = networks.create(name, num_classes=CLASSES, **options)
    variables = randomised(model, size)
    theirs = getattr(torch_reference, reference)(CLASSES, **reference_options)
    state = {key: torch.tensor(value) for key, value in named_tensors(name, variables).items()}
    kept = {key: value for key, value in theirs.state_dict().items() if key.endswith("num_batches_tracked")}
    theirs.load_state_dict({**state, **kept}, strict=True)
    images = np.random.default_rng(1).random((6, size, size, 3), np.float32)
    theirs.train(train)
    with torch.no_grad():
        expected = theirs(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    logits, mutated = jax.jit(lambda v, x: model.apply(v, x, train=train, mutable=["batch_stats"]))(variables, images)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    if train and "batch_stats" in variables:
        after = {key: value.numpy() for key, value in theirs.state_dict().items() if "running" in key}
        ours = named_tensors(name, {"params": variables["params"], **mutated})
        for key, value in after.items():
            np.testing.assert_allclose(ours[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "width", "field", "forms"),
    [
        ("mobilenet_v2", 0.5, "depthwise", ("shift", "conv")),
        ("vgg16", 0.05, "convolution", ("winograd", "conv")),
        ("vgg16_bn", 0.05, "convolution", ("winograd", "conv")),
    ],
)
def test_forms_have_equal_gradients(monkeypatch, name, width, field, forms):
    monkeypatch.setattr(mobilenet_v2, "STAGES", ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2)))
    with jax.enable_x64(True):
        images = jnp.array(np.random.default_rng(1).random((4, 37, 37, 3)))
        target = jnp.array(np.random.default_rng(2).normal(size=(4, CLASSES)))
        gradients = []
        for form in forms:
            model = networks.create(name, num_classes=CLASSES, width=width, dropout=0.0, **{field: form})
            variables = jax.tree.map(lambda leaf: jnp.float64(leaf), randomised(model, 37))

            def loss(params, images, model=model, variables=variables):
                logits, mutated = model.apply(
                    {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
                )
                return jnp.sum(target * logits), mutated

            gradients.append(jax.jit(jax.grad(loss, (0, 1), has_aux=True))(variables["params"], images))
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradients[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11 * largest), *gradients)


def test_dropout_belongs_to_the_example():
    model = networks.create("vgg16", num_classes=CLASSES, width=0.05, dropout=0.5)
    variables = randomised(model, 32)
    images = jnp.array(np.random.default_rng(1).random((4, 32, 32, 3), np.float32))
    keys = jax.random.split(jax.random.key(3), 4)
    apply = jax.jit(lambda images, keys: model.apply(variables, images, train=True, example_keys=keys))
    together = apply(images, keys)
    np.testing.assert_allclose(apply(images[2:], keys[2:]), together[2:], rtol=1e-5, atol=1e-6)
    assert np.any(np.abs(together - apply(images, None)) > 1e-3)


def test_costs_are_the_published_ones():
    """MobileNetV2: 300 M multiply-adds, 3.5 M parameters (arXiv 1801.04381, table 4); VGG16: 15.5 G and 138 M."""
    student = networks.cost(networks.create("mobilenet_v2", num_classes=1000), 224)
    teacher = networks.cost(networks.create("vgg16", num_classes=1000, head="fc"), 224)
    assert (student["params"], student["macs"]) == (3_504_872, 300_774_272)
    assert (teacher["params"], teacher["macs"]) == (138_357_544, 15_470_264_320)
    # The largest layers: 96 channels from 112 to 56 px in the second block; 64 to 64 channels at 224 px.
    assert student["activation_bytes"] == 4 * 96 * (112**2 + 56**2)
    assert teacher["activation_bytes"] == 4 * 64 * 2 * 224**2


def test_the_cost_of_each_head():
    heads = networks.cost_by_head(networks.create("vgg16", num_classes=21), 64)
    assert heads["fc"]["params"] - heads["average"]["params"] == (
        (25088 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 21 - (512 + 1) * 21
    )
    assert networks.cost_by_head(networks.create("mobilenet_v2", num_classes=21), 64) == {}
