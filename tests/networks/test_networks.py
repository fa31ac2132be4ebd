"""The networks against plain PyTorch with the same weights, and their two forms against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.variables import randomized

from kdjax import networks
from kdjax.errors import InputError
from kdjax.networks import efficientnet_lite, mobilenet_v2, mobilenet_v3, resnet
from kdjax.networks.pretrained import named_tensors

CLASSES = 7
REPEATS = {"efficientnet_lite": (1, 1, 1, 2, 1, 1, 1), "resnet": (1, 2, 1, 1)}
"""Blocks of the stages in these tests: every kind of block, and no more of them to compile."""
ROWS = {"small": (0, 1, 3, 4), "large": (0, 1, 3, 6, 7)}
"""Of the tables of MobileNetV3, for the same reason."""
ONE_OF_EACH = ("vgg16", "vgg16_bn", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0", "resnet18")

FORMS = ("examples_first", "examples_last")
CASES = {  # options here and of the reference; side of the images: odd sides on the way down
    "mobilenet_v2": ("mobilenet_v2", {"width": 0.35}, ("MobileNetV2", {"width": 0.35, "dropout": 0.0}), 44),
    "mobilenet_v3_small": (
        "mobilenet_v3_small",
        {"width": 0.35},
        ("MobileNetV3", {"size": "small", "width": 0.35, "dropout": 0.0, "kept": ROWS["small"]}),
        45,
    ),
    "mobilenet_v3_large": (
        "mobilenet_v3_large",
        {"width": 0.35},
        ("MobileNetV3", {"size": "large", "width": 0.35, "dropout": 0.0, "kept": ROWS["large"]}),
        64,
    ),
    "vgg16": ("vgg16", {"width": 0.25}, ("VGG16", {"width": 0.25}), 44),
    "vgg16 fc": ("vgg16", {"width": 0.05, "head": "fc"}, ("VGG16", {"width": 0.05, "head": "fc"}), 44),
    "vgg16 fc on 3 x 3 cells": ("vgg16", {"width": 0.05, "head": "fc"}, ("VGG16", {"width": 0.05, "head": "fc"}), 101),
    "vgg16 fc on 8 x 8 cells": ("vgg16", {"width": 0.05, "head": "fc"}, ("VGG16", {"width": 0.05, "head": "fc"}), 256),
    "vgg16_bn": ("vgg16_bn", {"width": 0.25}, ("VGG16", {"width": 0.25, "batch_norm": True}), 44),
    "vgg16_bn fc": (
        "vgg16_bn",
        {"width": 0.05, "head": "fc"},
        ("VGG16", {"width": 0.05, "head": "fc", "batch_norm": True}),
        70,
    ),
    # TensorFlow's padding depends on the parity of the side: 44, 22, 11, 6, 3 px and 50, 25, 13, 7, 4.
    "efficientnet_lite0 of 44 px": (
        "efficientnet_lite0",
        {"width": 0.25},
        ("EfficientNetLite", {"width": 0.25, "dropout": 0.0, "repeats": REPEATS["efficientnet_lite"]}),
        44,
    ),
    "efficientnet_lite0 of 50 px": (
        "efficientnet_lite0",
        {"width": 0.25},
        ("EfficientNetLite", {"width": 0.25, "dropout": 0.0, "repeats": REPEATS["efficientnet_lite"]}),
        50,
    ),
    "resnet18": ("resnet18", {"width": 0.25}, ("ResNet", {"width": 0.25, "repeats": REPEATS["resnet"]}), 75),
    "resnet50": (
        "resnet50",
        {"width": 0.125},
        ("ResNet", {"width": 0.125, "block": "Bottleneck", "repeats": REPEATS["resnet"]}),
        72,
    ),
}
EVALUATED = [case for case in CASES if case != "efficientnet_lite0 of 50 px"]
slow = lambda *values: pytest.param(*values, marks=pytest.mark.slow)
TRAINED = ["mobilenet_v2", "vgg16_bn", "mobilenet_v3_small", "efficientnet_lite0 of 44 px", "resnet18"]
DEEP_TRAINED = ["mobilenet_v3_large", "resnet50"]
GRADIENTS = [  # case, whether in training
    ("vgg16 fc on 3 x 3 cells", False),
    ("vgg16_bn", False),
    ("mobilenet_v2", False),
    slow("mobilenet_v2", True),
    slow("mobilenet_v3_small", False),
    ("mobilenet_v3_small", True),
    ("mobilenet_v3_large", False),
    slow("efficientnet_lite0 of 44 px", False),
    ("efficientnet_lite0 of 50 px", True),
    slow("resnet18", False),
    ("resnet18", True),
    slow("resnet50", False),
    slow("resnet50", True),
]


@pytest.fixture
def few_blocks(monkeypatch):
    """EfficientNet-Lite and ResNet with `REPEATS`, MobileNetV3 with `ROWS`."""
    rows = zip(efficientnet_lite.STAGES, REPEATS["efficientnet_lite"], strict=True)
    monkeypatch.setattr(efficientnet_lite, "STAGES", [(*row[:3], count, row[4]) for row, count in rows])
    for name in resnet.DEPTHS:
        monkeypatch.setitem(resnet.DEPTHS, name, REPEATS["resnet"])
    for size, kept in ROWS.items():
        monkeypatch.setitem(mobilenet_v3.ROWS, size, [mobilenet_v3.ROWS[size][row] for row in kept])
        monkeypatch.setitem(networks.MODELS, f"mobilenet_v3_{size}", mobilenet_v3.model(size))


@pytest.fixture
def small_mobilenet(monkeypatch):
    """MobileNetV2 with one block of each kind."""
    monkeypatch.setattr(mobilenet_v2, "STAGES", ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2)))


def pytorch(name, reference, variables):
    """The reference network with these variables."""
    torch = pytest.importorskip("torch")
    import torch_reference

    kind, options = reference
    theirs = getattr(torch_reference, kind)(CLASSES, **options)
    state = {key: torch.tensor(value) for key, value in named_tensors(name, variables).items()}
    kept = {key: value for key, value in theirs.state_dict().items() if key.endswith("num_batches_tracked")}
    theirs.load_state_dict({**state, **kept}, strict=True)
    return theirs


@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("case", "train"),
    [(case, False) for case in EVALUATED]
    + [(case, True) for case in TRAINED]
    + [slow(case, True) for case in DEEP_TRAINED],
)
def test_logits_equal_pytorch(case, form, train):
    torch = pytest.importorskip("torch")
    name, options, reference, size = CASES[case]
    model = networks.create(name, num_classes=CLASSES, form=form, **options)
    variables = randomized(model, size)
    theirs = pytorch(name, reference, variables)
    images = np.random.default_rng(1).random((6 if size < 100 else 2, size, size, 3), np.float32)
    theirs.train(train)
    with torch.no_grad():
        expected = theirs(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    assert np.ptp(expected, axis=0).max() > 0.03 * np.abs(expected).max()  # the images make a difference
    outputs, mutated = jax.jit(lambda v, x: model.apply(v, x, train=train, mutable=["batch_stats"]))(variables, images)
    np.testing.assert_allclose(outputs.logits, expected, atol=1e-4 * np.abs(expected).max())
    if train and "batch_stats" in variables:
        after = {key: value.numpy() for key, value in theirs.state_dict().items() if "running" in key}
        ours = named_tensors(name, {"params": variables["params"], **mutated})
        for key, value in after.items():
            np.testing.assert_allclose(ours[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("case", "train"), GRADIENTS)
def test_gradients_equal_pytorch(case, train, form):
    torch = pytest.importorskip("torch")
    name, options, reference, size = CASES[case]
    with jax.enable_x64(True):
        model = networks.create(name, num_classes=CLASSES, form=form, **options)
        variables = jax.tree.map(np.float64, randomized(model, size))
        images = np.random.default_rng(1).random((2, size, size, 3))
        target = np.random.default_rng(2).normal(size=(2, CLASSES))
        apply = lambda params: model.apply({**variables, "params": params}, images, train=train, mutable="batch_stats")
        loss = lambda params: jnp.sum(target * apply(params)[0].logits)
        ours = named_tensors(name, {"params": jax.jit(jax.grad(loss))(variables["params"])})
    theirs = pytorch(name, reference, variables).double().train(train)
    torch.sum(torch.tensor(target) * theirs(torch.tensor(images).permute(0, 3, 1, 2))).backward()
    largest = max(float(parameter.grad.abs().max()) for parameter in theirs.parameters())
    for key, parameter in theirs.named_parameters():
        np.testing.assert_allclose(ours.pop(key), parameter.grad.numpy(), rtol=1e-6, atol=1e-9 * largest)
    assert not ours


@pytest.mark.slow
@pytest.mark.usefixtures("small_mobilenet")
@pytest.mark.parametrize(("name", "width"), [("mobilenet_v2", 0.5), ("vgg16", 0.05), ("vgg16_bn", 0.05)])
def test_forms_have_equal_gradients(name, width):
    with jax.enable_x64(True):
        images = jnp.array(np.random.default_rng(1).random((4, 37, 37, 3)))
        target = jnp.array(np.random.default_rng(2).normal(size=(4, CLASSES)))
        gradients = []
        for form in FORMS:
            model = networks.create(name, num_classes=CLASSES, width=width, form=form)
            variables = jax.tree.map(lambda leaf: jnp.float64(leaf), randomized(model, 37))

            def loss(params, images, model=model, variables=variables):
                outputs, mutated = model.apply(
                    {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
                )
                return jnp.sum(target * outputs.logits), mutated

            gradients.append(jax.jit(jax.grad(loss, (0, 1), has_aux=True))(variables["params"], images))
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradients[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11 * largest), *gradients)


@pytest.mark.usefixtures("few_blocks", "small_mobilenet")
@pytest.mark.parametrize(("name", "head"), [(n, h) for n in ONE_OF_EACH for h in networks.MODELS[n].heads])
def test_the_last_layer_reads_the_features(name, head):
    """In bfloat16 too; and dropout comes after them."""
    model = networks.create(name, num_classes=CLASSES, width=0.05, head=head, dropout=0.5, dtype=jnp.bfloat16)
    variables = randomized(model, 32)
    last = variables["params"]["head"]
    last = last.get("logits", last)
    images = jnp.array(np.random.default_rng(1).random((4, 32, 32, 3), np.float32))
    keys = jax.random.split(jax.random.key(3), 4)

    @jax.jit
    def said(images, keys):
        train = lambda keys: model.apply(variables, images, train=True, example_keys=keys, mutable=["batch_stats"])[0]
        return model.apply(variables, images), train(None), train(keys)

    outputs, whole, dropped = said(images, keys)
    for one in (outputs, dropped):
        assert one.logits.dtype == one.features.dtype == np.float32
        assert one.logits.shape == (4, CLASSES) and one.features.shape == (4, len(last["kernel"]))
    kernel = np.asarray(last["kernel"].astype(jnp.bfloat16), np.float32)
    np.testing.assert_allclose(outputs.logits, outputs.features @ kernel + last["bias"], rtol=1e-2, atol=1e-2)
    assert np.abs(whole.logits - dropped.logits).max() > 0.1
    if head == "average":  # the other one drops between its layers too
        np.testing.assert_array_equal(whole.features, dropped.features)


def test_options_that_a_network_does_not_have_are_refused():
    for options, said in (
        ({"name": "mobilenet_v2", "head": "fc"}, "head of mobilenet_v2"),
        ({"name": "vgg16", "head": "wide"}, "average, fc"),
        ({"name": "vgg16", "form": "winograd"}, "examples_first, examples_last"),
        ({"name": "vgg17"}, "vgg16, vgg16_bn, mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small"),
        ({"name": "vgg16", "width": 0}, "width"),
        ({"name": "vgg16", "dropout": 1.0}, "dropout"),
        ({"name": "vgg16", "num_classes": 1}, "2 classes"),
    ):
        with pytest.raises(InputError, match=said) as error:
            networks.create(**{"num_classes": 5, **options})
        assert "\n" not in str(error.value)


@pytest.mark.usefixtures("few_blocks", "small_mobilenet")
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_network_normalizes_by_its_own_statistics(name):
    """An image of the mean color is zero inside: with no bias before it, so is the first layer's output."""
    model = networks.create(name, num_classes=CLASSES, width=0.05)
    spec = networks.MODELS[name]
    assert all(0 < value < 1 for value in (*spec.mean, *spec.std)) and len(spec.mean) == len(spec.std) == 3
    images = jnp.broadcast_to(jnp.array(spec.mean, jnp.float32), (1, 32, 32, 3))
    variables = randomized(model, 32)
    first = "conv_1" if name.startswith("vgg") else "stem"
    if name.startswith("vgg"):
        variables["params"][first]["bias"][:] = 0

    @jax.jit
    def seen(images):
        return model.apply(variables, images, capture_intermediates=lambda module, _: module.name == first)[1]

    np.testing.assert_array_equal(jax.tree.leaves(seen(images))[0], 0)
    assert np.any(jax.tree.leaves(seen(images + 0.1))[0] != 0)


def test_dropout_belongs_to_the_example():
    model = networks.create("vgg16", num_classes=CLASSES, width=0.05, dropout=0.5)
    variables = randomized(model, 32)
    images = jnp.array(np.random.default_rng(1).random((4, 32, 32, 3), np.float32))
    keys = jax.random.split(jax.random.key(3), 4)
    apply = jax.jit(lambda images, keys: model.apply(variables, images, train=True, example_keys=keys).logits)
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


@pytest.mark.slow
def test_costs_are_those_of_the_packages():
    """Parameters, and giga-multiply-adds at 224 px in torchvision's table; parameters in timm."""
    published = {
        "mobilenet_v3_small": (2_542_856, 0.06),
        "mobilenet_v3_large": (5_483_032, 0.22),
        "resnet18": (11_689_512, 1.81),
        "resnet34": (21_797_672, 3.66),
        "resnet50": (25_557_032, 4.09),
        "efficientnet_lite0": (4_652_008, None),
        "efficientnet_lite1": (5_416_680, None),
        "efficientnet_lite2": (6_092_072, None),
        "efficientnet_lite3": (8_197_096, None),
        "efficientnet_lite4": (13_006_568, None),
    }
    for name, (params, macs) in published.items():
        cost = networks.cost(networks.create(name, num_classes=1000), 224)
        assert cost["params"] == params, name
        assert macs in (None, round(cost["macs"] / 1e9, 2)), name


def test_the_cost_of_each_head():
    heads = networks.cost_by_head(networks.create("vgg16", num_classes=21), networks.MODELS["vgg16"].heads, 64)
    assert heads["fc"]["params"] - heads["average"]["params"] == (
        (25088 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 21 - (512 + 1) * 21
    )
    assert networks.cost_by_head(networks.create("mobilenet_v2", num_classes=21), ("average",), 64) == {}
