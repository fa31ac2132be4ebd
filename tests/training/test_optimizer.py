"""The optimizer against PyTorch and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import networks
from kdjax.training import optimizer
from kdjax.training.state import PROJECTION


def run(params, gradients, **options):
    transformation = optimizer.adamw(0.01, 0.1, **options)
    state = transformation.init(params)
    for gradient in gradients:
        updates, state = transformation.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.slow
@pytest.mark.parametrize("small", [optimizer.SMALL, 4], ids=["all leaves together", "the larger two apart"])
def test_equals_torch_adamw_with_clipping_and_a_faster_head(monkeypatch, small):
    monkeypatch.setattr(optimizer, "SMALL", small)
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    shapes = {("body", "kernel"): (3, 4), ("body", "bias"): (4,), ("head", "kernel"): (4, 2), ("head", "scale"): (2,)}
    values = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    gradients = [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(4)]
    nested = lambda flat: {a: {b: jnp.array(flat[a, b]) for c, b in flat if c == a} for a, _ in flat}
    with jax.enable_x64(True):
        ours = run(nested(values), [nested(one) for one in gradients], clip=1.5, head_factor=10.0)
    tensors = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in values.items()}
    groups = [
        {"params": [one], "lr": 0.1 if name[0] == "head" else 0.01,
         "weight_decay": 0.1 if name[1] == "kernel" else 0.0}
        for name, one in tensors.items()
    ]  # fmt: skip
    theirs = torch.optim.AdamW(groups, eps=1e-8)
    for gradient in gradients:
        for name, one in tensors.items():
            one.grad = torch.tensor(gradient[name])
        torch.nn.utils.clip_grad_norm_(tensors.values(), 1.5)
        theirs.step()
    for (a, b), one in tensors.items():
        np.testing.assert_allclose(ours[a][b], one.detach().numpy(), rtol=1e-5, atol=1e-7)


def test_schedule_is_linear_then_half_a_cosine():
    factor = optimizer.schedule(100, 20)
    np.testing.assert_allclose(
        [factor(0), factor(10), factor(20), factor(60), factor(100)], [0, 0.5, 1, 0.5, 0], atol=1e-6
    )


@pytest.mark.slow
def test_of_a_head_of_several_layers_the_one_of_the_classes_is_new():
    """The hidden layers of VGG16's fully connected head come from the file of weights, like the convolutions."""
    model = networks.create("vgg16", 3, width=0.02, head="fc")
    variables = jax.eval_shape(lambda images: model.init(jax.random.key(0), images), jnp.zeros((1, 32, 32, 3)))
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), {**variables["params"], PROJECTION: {"kernel": jnp.ones(2)}})
    moved = jax.tree.map(lambda after, before: after - before, run(ones, [ones], clip=0.0, head_factor=10.0), ones)
    found = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.mean()
             for path, leaf in jax.tree_util.tree_leaves_with_path(moved)}  # fmt: skip
    fast = {name for name, step in found.items() if step < -0.05}
    assert fast == {"head/logits/bias", "head/logits/kernel", f"{PROJECTION}/kernel"}
    np.testing.assert_allclose([found["head/fc_1/bias"], found["conv_1/bias"]], -0.01, rtol=1e-4)
