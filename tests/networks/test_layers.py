"""Operations with written-out derivatives against JAX's own, and against NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.networks import layers
from kdjax.networks.forms import activations, examples_first, examples_last, winograd

rng = np.random.default_rng(0)
same = lambda x: x
last = lambda x: jnp.transpose(x, (3, 1, 2, 0))  # (b, H, W, C) to (C, H, W, b)
first = lambda x: jnp.transpose(x, (3, 1, 2, 0))  # and back


def both(name, x, *arguments, **static):
    """Value and gradients of one operation in the two layouts, with images as (b, H, W, C)."""
    cosines = lambda value: jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape)
    found = []
    for module, turn, back in ((examples_first, same, same), (examples_last, last, first)):
        operation = functools.partial(getattr(module, name), **static)

        @jax.jit  # one program in place of one for each shift
        def value_and_gradients(x, *arguments, operation=operation, turn=turn, back=back):
            value, pull = jax.vjp(operation, turn(x), *arguments)
            if name == "moments":
                dx, *rest = pull(jax.tree.map(cosines, value))
            else:
                value = back(value)
                dx, *rest = pull(turn(cosines(value)))
            return value, back(dx), *rest

        found.append(value_and_gradients(x, *arguments))
    return found


CASES = {  # what an operation takes beside images of c channels; a kernel's side is `size`
    "depthwise": lambda c, size: ((size, size, c),),
    "pointwise": lambda c, size: ((c, 5),),
    "convolution": lambda c, size: ((size, size, c, 5),),
    "affine": lambda c, size: ((c,), (c,)),
    "affine_hard_swish": lambda c, size: ((c,), (c,)),
    "bias_relu": lambda c, size: ((c,),),
    "moments": lambda c, size: ((c,),),
    "max_pool": lambda c, size: (),
}
STRIDES = ({"stride": 1}, {"stride": 2})
KERNELS = (
    {"size": 5, "stride": 1, "padding": ((2, 2), (2, 2))},
    {"size": 5, "stride": 2, "padding": ((2, 2), (1, 2))},
    {"size": 3, "stride": 2, "padding": ((1, 1), (0, 1))},
    {"size": 7, "stride": 2, "padding": ((3, 3), (3, 3))},
    {"size": 4, "stride": 3, "padding": ((1, 2), (3, 0))},
)
STATIC = {
    "depthwise": (*STRIDES, *KERNELS),
    "convolution": (*STRIDES, *KERNELS),
    "affine": ({"ceiling": None}, {"ceiling": 0.5}, {"ceiling": math.inf}),
    "max_pool": ({}, {"size": 3, "stride": 2, "padding": 1}, {"size": 3, "stride": 1, "padding": 0}),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "static"), [(name, static) for name in CASES for static in STATIC.get(name, ({},))], ids=str
)
@pytest.mark.parametrize("shape", [(3, 6, 5, 4), (2, 1, 3, 17), (2, 7, 8, 17)], ids=str)
def test_layouts_agree_in_value_and_gradient(name, static, shape):
    size, options = static.get("size", 3), dict(static)
    if name == "max_pool" and shape[1] + 2 * static.get("padding", 0) < static.get("size", 2):
        pytest.skip("nothing to pool")
    if name != "max_pool":  # theirs is the size of their kernel
        options.pop("size", None)
    with jax.enable_x64(True):
        x = jnp.array(rng.normal(size=shape))
        arguments = [jnp.array(rng.normal(size=each)) for each in CASES[name](shape[-1], size)]
        expected, found = both(name, x, *arguments, **options)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11), expected, found)


@pytest.mark.parametrize("module", [examples_first, examples_last], ids=["first", "last"])
@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ((2, 2, 0), [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]),
        ((3, 2, 1), [[1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]),
    ],
    ids=str,
)
def test_of_equal_values_the_first_takes_the_gradient(module, window, expected):
    """As in PyTorch: the one in the first row, and there in the first column."""
    turn = same if module is examples_first else last
    image = jnp.array([[1.0, 1, 2, 2], [1, 1, 2, 1], [1, 1, 2, 2], [1, 2, 1, 2]]).reshape(1, 4, 4, 1)
    gradient = jax.grad(lambda x: module.max_pool(turn(x), *window).sum())(image)
    np.testing.assert_array_equal(gradient.reshape(4, 4), expected)


@pytest.mark.parametrize("module", [examples_first, examples_last], ids=["first", "last"])
def test_no_gradient_at_the_corners(module):
    turn = same if module is examples_first else last
    corners = jnp.array([-1.0, 0.0, 3.0, 6.0, 7.0]).reshape(5, 1, 1, 1)
    apply = lambda x: module.affine(turn(x), jnp.ones(1), jnp.zeros(1), ceiling=6.0).sum()
    np.testing.assert_array_equal(jax.grad(apply)(corners).reshape(-1), [0, 0, 1, 0, 0])


@pytest.mark.parametrize("name", ["hardswish", "hardsigmoid"])
def test_hard_activations_are_those_of_pytorch(name):
    """Value and derivative, at both corners too."""
    torch = pytest.importorskip("torch")
    ours = {"hardswish": activations.hard_swish, "hardsigmoid": activations.hard_sigmoid}[name]
    x = np.array([-4.0, -3.0, -2.9, -1.5, 0.0, 1.0, 2.9, 3.0, 4.0], np.float32)
    theirs = torch.tensor(x, requires_grad=True)
    expected = getattr(torch.nn.functional, name)(theirs)
    expected.sum().backward()
    value, pull = jax.vjp(ours, jnp.array(x))
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(pull(jnp.ones_like(value))[0], theirs.grad, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("module", [examples_first, examples_last], ids=["first", "last"])
def test_hard_swish_after_an_affine_map_keeps_little(module):
    """The derivative at the corners is PyTorch's here too; and no more than two maps wait for the backward pass."""
    turn = same if module is examples_first else last
    x = jnp.array([-4.0, -3.0, 0.0, 3.0, 4.0]).reshape(5, 1, 1, 1)
    apply = lambda x: module.affine_hard_swish(turn(x), jnp.ones(1), jnp.zeros(1))
    np.testing.assert_array_equal(jax.grad(lambda x: apply(x).sum())(x).reshape(-1), [0, 0, 0.5, 1, 1])
    shape = jax.ShapeDtypeStruct((4, 8, 8, 4), jnp.float32)
    channel = jax.ShapeDtypeStruct((4,), jnp.float32)
    kept = jax.eval_shape(lambda *a: jax.vjp(module.affine_hard_swish, *a)[1], shape, channel, channel)
    assert sum(leaf.size for leaf in jax.tree.leaves(kept)) <= 2 * 4 * 8 * 8 * 4 + 2 * 4


@pytest.mark.parametrize("module", [examples_first, examples_last], ids=["first", "last"])
def test_every_example_has_its_own_gate(module):
    turn, back = (same, same) if module is examples_first else (last, first)
    with jax.enable_x64(True):
        x, gate, g = (jnp.array(rng.normal(size=size)) for size in ((3, 2, 5, 4), (3, 4), (3, 2, 5, 4)))
        value, pull = jax.vjp(lambda x, gate: back(module.scaled(turn(x), gate)), x, gate)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-12)
        close(value, np.einsum("bhwc,bc->bhwc", x, gate))
        close(pull(g)[0], np.einsum("bhwc,bc->bhwc", g, gate))
        close(pull(g)[1], np.einsum("bhwc,bhwc->bc", g, x))


@pytest.mark.parametrize("module", [examples_first, examples_last], ids=["first", "last"])
def test_moments_keep_their_digits_far_from_zero(module):
    """In float32 the variance of values around 1000 would be lost between two squares."""
    x = (1000 + rng.normal(size=(4, 8, 8, 3))).astype(np.float32)
    mean, var = module.moments(jnp.array(x) if module is examples_first else last(x), jnp.full(3, 990.0))
    np.testing.assert_allclose(mean, x.mean((0, 1, 2), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(var, x.var((0, 1, 2), dtype=np.float64), rtol=1e-3)


@pytest.mark.parametrize("form", layers.FORMS)
def test_batch_norm_counts_from_its_running_mean(form):
    x = (1000 + rng.normal(size=(4, 8, 8, 3))).astype(np.float32)
    norm, turn = layers.BatchNorm(form), same if form == "examples_first" else last
    variables = norm.init(jax.random.key(0), turn(jnp.array(x)), True)
    variables["batch_stats"]["mean"] = jnp.full(3, 990.0)
    y, moved = norm.apply(variables, turn(jnp.array(x)), True, mutable=["batch_stats"])
    wanted = 0.9 + 0.1 * x.var((0, 1, 2), dtype=np.float64, ddof=1)
    np.testing.assert_allclose(moved["batch_stats"]["var"], wanted, rtol=1e-4)


def test_a_constant_channel_has_variance_zero():
    for module, turn in ((examples_first, same), (examples_last, last)):
        x, near = jnp.full((2, 3, 3, 2), 0.1), jnp.full(2, 0.1)
        moments = lambda x, module=module, turn=turn, near=near: module.moments(turn(x), near)
        gradient = jax.grad(lambda x, moments=moments: sum(jnp.sum(m) for m in moments(x)))(x)
        np.testing.assert_array_equal(moments(x)[1], 0)
        assert np.isfinite(gradient).all()


# Sides that both tile sizes cut evenly and do not; the second number is what `_tile` picks there.
TILES = [((20, 7, 5, 2), 2), ((16, 16, 16, 8), 4), ((16, 9, 13, 20), 4), ((17, 1, 2, 3), 2)]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "tile"), TILES, ids=str)
def test_winograd_is_the_convolution(shape, tile):
    assert winograd._tile(shape) == tile
    with jax.enable_x64(True):
        x, kernel = jnp.array(rng.normal(size=shape)), jnp.array(rng.normal(size=(3, 3, shape[0], 6)))
        direct = lambda x, kernel: last(examples_first.convolution(first(x), kernel))
        expected, pull = jax.vjp(direct, x, kernel)
        found, pull_found = jax.vjp(winograd.convolution, x, kernel)
        g = jnp.array(rng.normal(size=expected.shape))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)
        for a, b in zip(pull_found(g), pull(g), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_winograd_loses_few_digits_in_float32():
    x = np.maximum(rng.normal(size=(128, 16, 16, 8)), 0).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 128, 16)).astype(np.float32)
    found = jax.jit(winograd.convolution)(x, kernel)
    with jax.enable_x64(True):
        expected = last(examples_first.convolution(jnp.float64(first(x)), jnp.float64(kernel)))
    assert np.abs(np.asarray(found) - np.asarray(expected)).max() < 1e-5 * np.abs(np.asarray(expected)).max()


@pytest.mark.parametrize("form", layers.FORMS)
def test_batch_norm_takes_the_batches_of_all_devices_together(form):
    """Value, gradients and statistics over eight devices are those of the whole batch, and NumPy's."""
    devices = jax.device_count()
    with jax.enable_x64(True):
        x = jnp.array(rng.normal(size=(2 * devices, 3, 4, 5)) * 2 + 1)
        target = jnp.array(rng.normal(size=x.shape))
        turn = last if form == "examples_last" else same
        variables = layers.BatchNorm(form).init(jax.random.key(0), turn(x), True)

        def loss(params, x, target, axis_name=None):
            y, mutated = layers.BatchNorm(form, axis_name=axis_name).apply(
                {**variables, "params": params}, turn(x), True, mutable=["batch_stats"]
            )
            return jnp.sum(turn(target) * jnp.sin(y)), mutated["batch_stats"]

        def step(params, x, target, axis_name=None):
            gradient, stats = jax.grad(loss, (0, 1), has_aux=True)(params, x, target, axis_name)
            if axis_name is not None:
                gradient = jax.lax.psum(gradient[0], axis_name), gradient[1]
            return gradient, stats

        (params, dx), stats = jax.jit(step)(variables["params"], x, target)
        share = lambda x: x.reshape(devices, -1, *x.shape[1:])
        mapped = jax.pmap(
            functools.partial(step, axis_name="devices"),
            axis_name="devices",
            in_axes=(None, 0, 0),
            out_axes=((None, 0), None),
        )
        (params_mapped, dx_mapped), stats_mapped = mapped(variables["params"], share(x), share(target))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
    jax.tree.map(close, (params_mapped, stats_mapped), (params, stats))
    close(np.asarray(dx_mapped).reshape(x.shape), dx)
    x = np.asarray(x)
    close(stats["mean"], 0.1 * x.mean((0, 1, 2)))
    close(stats["var"], 0.9 + 0.1 * x.var((0, 1, 2), ddof=1))


def test_a_population_of_networks_computes_what_each_does_alone():
    """Under two vmaps inside a scan: both forms of the student's block and the teacher's convolution."""
    arms, seeds = 2, 3
    x = jnp.array(rng.normal(size=(seeds, 16, 4, 4, 2)), jnp.float32)  # (C, H, W, b), shared by the arms of a seed
    kernels = {
        "wide": jnp.array(rng.normal(size=(seeds, arms, 3, 3, 16, 16)), jnp.float32),
        "deep": jnp.array(rng.normal(size=(seeds, arms, 3, 3, 16)), jnp.float32),
    }

    def loss(kernels, x):
        y = examples_last.convolution(x, kernels["wide"])
        y = examples_last.bias_relu(examples_last.depthwise(y, kernels["deep"], 2), jnp.ones(16))
        mean, var = examples_last.moments(examples_last.max_pool(y), jnp.zeros(16))
        return jnp.sum(jnp.sin(examples_last.affine(y, mean, var, 6.0)))

    alone = jax.jit(jax.grad(loss))
    population = jax.vmap(jax.vmap(jax.grad(loss), (0, None)))
    together = jax.jit(lambda k, x: jax.lax.scan(lambda carry, _: (carry, population(k, x)), 0, None, length=2)[1])
    found = together(kernels, x)
    for seed in range(seeds):
        for arm in range(arms):
            expected = alone(jax.tree.map(lambda k, at=(seed, arm): k[at], kernels), x[seed])
            row = jax.tree.map(lambda g, at=(1, seed, arm): g[at], found)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max()), row, expected
            )
