"""The augmentation against NumPy, Pillow and PyTorch, and its promises about keys, sizes and precision."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kdjax.inputs import augment
from kdjax.inputs.augment import Augmentation, View

# Compiled once: op by op each call would compile two dozen little programs.
AUGMENT = jax.jit(augment.augment, static_argnums=(2, 3), static_argnames=("size", "dtype"))
RENDER = jax.jit(augment.render, static_argnums=2)
EVAL = jax.jit(augment.eval_view, static_argnums=1)

OFF = dict(scale=(1.0, 1.0), ratio=(1.0, 1.0), brightness=0.0, contrast=0.0, saturation=0.0)


def picture(side=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def symmetry(pixels, code):
    pixels = pixels[::-1] if code & 1 else pixels
    pixels = pixels[:, ::-1] if code & 2 else pixels
    return pixels.swapaxes(0, 1) if code & 4 else pixels


def test_each_orientation_is_an_exact_numpy_symmetry():
    image = picture()
    seen = set()
    wanted = [np.rot90(side, turns) for side in (image, image[:, ::-1]) for turns in range(4)]
    for code in range(8):
        out = np.asarray(RENDER(jnp.asarray(image), View(orientation=code), 40))
        np.testing.assert_allclose(out, symmetry(image, code) / np.float32(255), rtol=0, atol=1e-7)
        seen.add(next(i for i, w in enumerate(wanted) if np.abs(out - w / 255).max() < 1e-6))
    assert seen == set(range(8))


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_draws_reach_the_allowed_symmetries_about_equally(count):
    view = jax.vmap(lambda k: augment.draw(k, Augmentation(symmetries=count)))(keys(1600))
    found = np.bincount(np.asarray(view.orientation), minlength=8)
    assert (found[count:] == 0).all()
    assert found[:count].min() > 0.7 * 1600 / count


def test_with_everything_off_the_image_comes_back_exactly():
    image = jnp.asarray(picture())
    out = jax.jit(lambda i, k: AUGMENT(i, k, 40, Augmentation(symmetries=1, **OFF)))(image, jax.random.key(3))
    np.testing.assert_array_equal(out, EVAL(image, 40))
    # Compiled, x / 255 is x * (1 / 255): one unit in the last place.
    np.testing.assert_allclose(out, np.asarray(image) / np.float32(255), rtol=0, atol=6e-8)


@pytest.mark.parametrize("source, size", [(40, 24), (40, 17), (64, 16), (24, 40), (33, 64)])
def test_resize_agrees_with_torch_and_pillow(source, size):
    torch = pytest.importorskip("torch")
    image = picture(source)
    out = np.asarray(EVAL(jnp.asarray(image), size))
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    wanted = torch.nn.functional.interpolate(planes, (size, size), mode="bilinear", antialias=True, align_corners=False)
    np.testing.assert_allclose(out, wanted[0].permute(1, 2, 0).numpy() / 255, atol=2e-6)
    pillow = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(out, pillow, atol=1.1 / 255)  # Pillow rounds to bytes after each of the two passes


def test_crop_of_whole_pixels_is_the_slice():
    image = picture(40)
    out = RENDER(jnp.asarray(image), View(top=4 / 40, left=10 / 40, height=24 / 40, width=24 / 40), 24)
    np.testing.assert_allclose(out, image[4:28, 10:34] / 255, atol=2e-5)


def test_crop_agrees_with_dense_triangle_weights_in_float64():
    image, size = picture(37), 20
    view = View(top=0.11, left=0.23, height=0.81, width=0.64)

    def weights(start, extent):
        step = extent * 37 / size
        center = start * 37 + (np.arange(size) + 0.5) * step - 0.5
        dense = np.maximum(0, 1 - np.abs(np.arange(37)[None, :] - center[:, None]) / max(step, 1))
        return dense / dense.sum(1, keepdims=True)

    wanted = np.einsum("yh,xw,hwc->yxc", weights(0.11, 0.81), weights(0.23, 0.64), image / 255)
    with jax.enable_x64(True):
        out = RENDER(jnp.asarray(image), view, size)
        assert out.dtype == jnp.float64
        np.testing.assert_allclose(out, wanted, atol=1e-13)


def test_oblong_images_give_square_views():
    image = np.random.default_rng(1).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    out = EVAL(jnp.asarray(image), 20)
    pillow = np.asarray(Image.fromarray(image).resize((20, 20), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(out, pillow, atol=1.1 / 255)


@pytest.mark.slow
@pytest.mark.parametrize("size, dtype", [(24, np.uint8), (53, np.uint16)])
def test_the_products_of_a_tpu_are_the_sums(size, dtype):
    """The two ways of one function, which this machine's platform never chooses between."""
    image = (np.random.default_rng(0).random((40, 31, 3)) * np.iinfo(dtype).max).astype(dtype)
    view = augment.draw(jax.random.key(3))
    rows = augment._taps(view.top, view.height, True, 40, size, jnp.float32)
    columns = augment._taps(view.left, view.width, False, 31, size, jnp.float32)
    sums, products = (way(jnp.asarray(image), rows, columns) for way in (augment._summed, augment._product))
    np.testing.assert_allclose(products, sums, rtol=2e-6, atol=1e-6 * np.iinfo(dtype).max)


def test_crops_keep_to_scale_and_ratio_and_lie_inside():
    view = jax.vmap(augment.draw)(keys(2000))
    area = np.asarray(view.height * view.width)
    ratio = np.asarray(view.width / view.height)
    assert area.min() >= 0.5 - 1e-6 and area.max() <= 1 + 1e-6
    assert ratio.min() >= 3 / 4 - 1e-5 and ratio.max() <= 4 / 3 + 1e-5
    assert abs(area.mean() - 0.75) < 0.02 and abs(np.log(ratio).mean()) < 0.02
    for start, extent in ((view.top, view.height), (view.left, view.width)):
        assert np.asarray(start).min() >= 0 and np.asarray(start + extent).max() <= 1 + 1e-6
    for factor in (view.brightness, view.contrast, view.saturation):
        assert 0.8 - 1e-6 <= np.asarray(factor).min() < 0.82 and 1.18 < np.asarray(factor).max() <= 1.2 + 1e-6


def test_color_steps_agree_with_numpy():
    image = picture(32).astype(np.float64) / 255
    gray = lambda x: x @ np.array([0.299, 0.587, 0.114])
    wanted = np.clip(1.3 * image, 0, 1)
    wanted = np.clip(0.7 * wanted + 0.3 * gray(wanted).mean(), 0, 1)
    wanted = np.clip(1.4 * wanted - 0.4 * gray(wanted)[..., None], 0, 1)
    view = View(brightness=1.3, contrast=0.7, saturation=1.4)
    np.testing.assert_allclose(RENDER(jnp.asarray(picture(32)), view, 32), wanted, atol=1e-6)


def test_saturation_and_contrast_of_zero_are_gray_and_flat():
    image = jnp.asarray(picture(16))
    gray = np.asarray(RENDER(image, View(saturation=0.0), 16))
    assert np.ptp(gray, axis=-1).max() < 1e-6
    assert np.ptp(np.asarray(RENDER(image, View(contrast=0.0), 16)), axis=(0, 1)).max() < 1e-6


def test_values_stay_in_range_even_for_strong_jitter():
    images = jnp.asarray(np.stack([picture(24), np.full((24, 24, 3), 255, np.uint8), np.zeros((24, 24, 3), np.uint8)]))
    strong = dict(brightness=1.0, contrast=1.0, saturation=1.0)
    out = jax.vmap(lambda k: jax.vmap(lambda i: AUGMENT(i, k, 16, Augmentation(**strong)))(images))(keys(30))
    assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1


def test_a_key_decides_alone_whatever_the_place_in_the_batch():
    images = jnp.asarray(np.stack([picture(24, s) for s in range(4)]))
    run = jax.jit(jax.vmap(lambda i, k: augment.augment(i, k, 16)))
    batch, k = run(images, keys(4)), keys(4)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(run(images[order], k[order]), batch[order])
    np.testing.assert_allclose(AUGMENT(images[1], k[1], 16), batch[1], atol=1e-6)
    assert np.abs(np.asarray(run(images, keys(4, 1)) - batch)).max() > 0.1


def test_the_same_key_at_two_sizes_is_the_same_picture():
    # A smooth picture: shrinking the large view must give the small one.
    y, x = np.mgrid[0:96, 0:96] / 96
    image = np.stack([np.sin(5 * x + 2 * y), np.cos(4 * y), np.sin(3 * x * y + 1)], -1) * 100 + 128
    for key in keys(8):
        large = np.asarray(AUGMENT(jnp.asarray(image), key, 96))
        small = np.asarray(AUGMENT(jnp.asarray(image), key, 48))
        np.testing.assert_allclose(large.reshape(48, 2, 48, 2, 3).mean((1, 3)), small, atol=0.02)


@pytest.mark.slow
def test_nested_vmap_and_pmap_give_the_same_pixels():
    images = jnp.asarray(np.stack([picture(20, s) for s in range(16)]))
    k = keys(16)
    one = lambda i, key: AUGMENT(i, key, 12)
    flat = jax.jit(jax.vmap(one))(images, k)
    nested = jax.jit(jax.vmap(jax.vmap(one)))(images.reshape(2, 8, 20, 20, 3), k.reshape(2, 8))
    np.testing.assert_allclose(nested.reshape(flat.shape), flat, atol=1e-6)
    devices = jax.local_device_count()
    if 16 % devices:
        pytest.skip(f"16 images do not divide over {devices} devices")
    mapped = jax.pmap(jax.vmap(one), axis_name="batch")(images.reshape(devices, -1, 20, 20, 3), k.reshape(devices, -1))
    np.testing.assert_allclose(np.asarray(mapped).reshape(flat.shape), flat, atol=1e-6)


def test_float64_sees_the_views_of_float32():
    image, key = picture(30), jax.random.key(5)
    single = np.asarray(AUGMENT(jnp.asarray(image), key, 20))
    assert single.dtype == np.float32
    with jax.enable_x64(True):
        double = np.asarray(AUGMENT(jnp.asarray(image), jax.random.key(5), 20))
        assert double.dtype == np.float64
        assert AUGMENT(jnp.asarray(image), key, 20, dtype=jnp.float32).dtype == jnp.float32
    np.testing.assert_allclose(single, double, atol=2e-5)


def test_bytes_equal_floats():
    image, key, wide = picture(20), jax.random.key(1), Augmentation(brightness=0.4, scale=(0.3, 1.0))
    wanted = AUGMENT(jnp.asarray(image, jnp.float32), key, 12, wide)
    np.testing.assert_allclose(AUGMENT(jnp.asarray(image), key, 12, wide), wanted, atol=1e-5)


@pytest.mark.parametrize("shape, size", [((8, 8), 4), ((8, 8, 3), 0)])
def test_shapes_are_checked(shape, size):
    with pytest.raises(ValueError):
        AUGMENT(jnp.zeros(shape, jnp.uint8), jax.random.key(0), size)


def test_describe_is_json_with_a_version_and_follows_the_options():
    facts = augment.DEFAULT.describe()
    assert json.loads(json.dumps(facts)) == facts and facts["version"] == augment.VERSION
    for name, value in dict(scale=(0.2, 1), ratio=(1, 1), brightness=0, contrast=1, saturation=0, symmetries=4).items():
        other = Augmentation(**{name: value}).describe()
        assert other[name] == (list(value) if isinstance(value, tuple) else value)
        assert {**other, name: facts[name]} == facts and other != facts


def test_the_views_of_a_version_stay_what_they_are():
    """Stored teacher outputs are named by `VERSION`: whoever changes these numbers raises it, and pins them again."""
    assert augment.VERSION == 1
    other = Augmentation((0.2, 0.4), (1.0, 2.0), brightness=0.5, contrast=0.0, saturation=1.0, symmetries=4)
    pinned = {
        (0, augment.DEFAULT): (0.008511, 0.000266, 0.974387, 0.999432, 4, 0.866201, 0.924078, 1.075792),
        (7, augment.DEFAULT): (0.048203, 0.002000, 0.840833, 0.995495, 5, 1.052372, 0.979420, 0.964592),
        (1, other): (0.247122, 0.155456, 0.445812, 0.645398, 3, 1.058946, 1.0, 1.683982),
    }
    for (seed, options), values in pinned.items():
        np.testing.assert_allclose(augment.draw(jax.random.key(seed), options), values, atol=2e-6)


def test_the_pixels_of_a_version_stay_what_they_are():
    image = (np.arange(12 * 12 * 3) * 7 % 256).astype(np.uint8).reshape(12, 12, 3)
    found = np.asarray(AUGMENT(jnp.asarray(image), jax.random.key(0), 4))
    np.testing.assert_allclose(found[0, 0], (0.253420, 0.196824, 0.137021), atol=2e-5)
    np.testing.assert_allclose(found[2, 3], (0.370467, 0.394105, 0.417743), atol=2e-5)


def test_a_band_is_shown_as_it_would_be_among_colors():
    """Crop and orientation of any number of bands are those of three, and 16 bits are those of 8."""
    image, key = picture(), jax.random.key(4)
    plain = Augmentation(brightness=0.0, contrast=0.0, saturation=0.0)
    expected = np.asarray(AUGMENT(jnp.asarray(image), key, 24, plain))
    bands = np.concatenate([image[..., [2, 0]], image, image[..., :1]], axis=-1)
    shown = np.asarray(AUGMENT(jnp.asarray(bands), key, 24, plain))
    np.testing.assert_allclose(shown, expected[..., [2, 0, 0, 1, 2, 0]], atol=1e-6)
    deep = np.asarray(AUGMENT(jnp.asarray(bands.astype(np.uint16) * 257), key, 24, plain))
    np.testing.assert_allclose(deep, shown, atol=1e-6)
    np.testing.assert_allclose(EVAL(jnp.asarray(bands.astype(np.uint16) * 257), 40), bands / np.float32(255), atol=1e-6)
