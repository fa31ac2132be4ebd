"""Augmentation of aerial and satellite tiles as a pure function of one image and one key.

A view is a handful of numbers (`View`): a crop in fractions of the image, one of the eight symmetries of the square
and three color factors. `draw` makes them from a key, `render` turns an image and a view into pixels at any size. So
the same key at two sizes is the same crop, orientation and color at both: teacher and student see the same picture,
each at its own resolution. These functions take one image; use `vmap` over images and keys for batches.

Resampling is a weighted sum of a few rows and then of a few columns (the triangle filter, widened to the scale when
shrinking). Crops lie inside the image, so the number of taps is known from the two sizes alone. On a CPU this is three
times faster than the same filter as dense matrix products. A TPU gathers slowly and multiplies fast, so there the
filter is computed as matrix products, in full precision.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

VERSION = 1  # Increase it whenever the same key gives other pixels: fingerprints of teacher outputs depend on it.
_Taps = tuple[jax.Array, jax.Array]  # index and weight, see `_taps`
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow and torchvision


class View(NamedTuple):
    """The parameters of one view of an image. All leaves are scalars; under `vmap` they carry the mapped axes.

    top, left, height, width: the crop as fractions of the image's sides, inside [0, 1].
    orientation: int 0..7. Bit 0 flips up-down, bit 1 flips left-right, then bit 2 transposes.
    brightness, contrast, saturation: factors; 1 changes nothing.
    """

    top: ArrayLike = 0.0
    left: ArrayLike = 0.0
    height: ArrayLike = 1.0
    width: ArrayLike = 1.0
    orientation: ArrayLike = 0
    brightness: ArrayLike = 1.0
    contrast: ArrayLike = 1.0
    saturation: ArrayLike = 1.0


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How far views may differ from their image: the fields of `config.dataset.augmentation`, as Python numbers.

    Attributes:
        scale: (low, high), share of the image's area that a crop covers.
        ratio: (low, high), width over height of the crop.
        brightness, contrast, saturation: half-widths in [0, 1]; 0 is off.
        symmetries: the first 1 (none), 2 (up-down), 4 (both flips) or 8 (with rotations) orientations are equally
            likely.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    symmetries: int = 8

    def describe(self) -> dict[str, Any]:
        """Returns all that determines the pixels besides image, key and size, as JSON values, for fingerprints."""
        return {
            "name": "symmetries + random resized crop + colour jitter",  # part of fingerprints, hence never changed
            "version": VERSION,
            "filter": "antialiased triangle",
            **{name: list(map(float, getattr(self, name))) for name in ("scale", "ratio")},
            **{name: float(getattr(self, name)) for name in ("brightness", "contrast", "saturation")},
            "symmetries": self.symmetries,
        }


DEFAULT = Augmentation()


def draw(key: jax.Array, augmentation: Augmentation = DEFAULT) -> View:
    """Draws one view from one key.

    The share of the area that the crop covers is uniform in `scale`. Its width over height (in fractions of the sides,
    which is the aspect ratio for a square image) is log-uniform in the part of `ratio` where the crop fits into the
    image. This replaces the rejection loop of the usual random resized crop (Szegedy et al. 2015, arXiv 1409.4842),
    which a traced program cannot contain. Color factors are uniform in 1 ± their argument.

    Args:
        key: one PRNG key.
        augmentation: how far the view may differ.

    Returns:
        A `View` of float32 scalars and an int32 orientation. They are float32 even under x64, so that a run in float64
        sees the same views.
    """
    u = jax.random.uniform(key, (8,), jnp.float32)
    (low, high), (ratio_low, ratio_high) = (_float32(pair) for pair in (augmentation.scale, augmentation.ratio))
    area = low + u[0] * (high - low)
    # A crop of this area fits into the unit square where area <= width / height <= 1 / area.
    log_low, log_high = (jnp.log(jnp.clip(bound, area, 1 / area)) for bound in (ratio_low, ratio_high))
    root = jnp.exp((log_low + u[1] * (log_high - log_low)) / 2)
    width, height = (jnp.minimum(jnp.sqrt(area) * side, 1.0) for side in (root, 1 / root))
    brightness, contrast, saturation = (
        1 + (2 * u[i] - 1) * jnp.asarray(spread, jnp.float32)
        for i, spread in ((5, augmentation.brightness), (6, augmentation.contrast), (7, augmentation.saturation))
    )
    return View(
        top=u[2] * (1 - height),
        left=u[3] * (1 - width),
        height=height,
        width=width,
        orientation=jnp.floor(u[4] * jnp.asarray(augmentation.symmetries, jnp.float32)).astype(jnp.int32),
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
    )


def render(image: jax.Array, view: View, size: int, *, dtype: DTypeLike | None = None) -> jax.Array:
    """Renders one view: crop and resize, then orientation, brightness, contrast and saturation.

    Each color step is clipped to [0, 1], as in torchvision. Contrast blends with the mean gray of the crop, saturation
    with the gray of each pixel.

    Args:
        image: (H, W, bands), integers or floats in [0, 255], or uint16. Colors change only if there are three bands.
        view: see `View`.
        size: side of the result in pixels.
        dtype: of the arithmetic and the result. None = the image's own if that is a float, but at least float32; for
            integers JAX's default float (float32, or float64 under x64).

    Returns:
        (size, size, bands) in [0, 1].

    Raises:
        ValueError: the image does not have three axes, or the size is below 1.
    """
    pixels = _resample(image, view, size, _dtype(image, dtype))
    return _color(pixels, view) if image.shape[-1] == 3 else pixels


def augment(
    image: jax.Array,
    key: jax.Array,
    size: int,
    augmentation: Augmentation = DEFAULT,
    *,
    dtype: DTypeLike | None = None,
) -> jax.Array:
    """Renders one random view of one image: `render(image, draw(key, augmentation), size)`.

    Args:
        image: (H, W, bands), integers or floats in [0, 255], or uint16. Colors change only if there are three bands.
        key: one PRNG key. The same key at another size gives the same crop, orientation and color.
        size: side of the result in pixels.
        augmentation: how far the view may differ.
        dtype: see `render`.

    Returns:
        (size, size, bands) in [0, 1].

    Raises:
        ValueError: the image does not have three axes, or the size is below 1.
    """
    return render(image, draw(key, augmentation), size, dtype=dtype)


def eval_view(image: jax.Array, size: int, *, dtype: DTypeLike | None = None) -> jax.Array:
    """Returns the whole image at another size (antialiased), or only scaled to [0, 1] if it has that size already.

    Arguments, result and exceptions are those of `render`.
    """
    dtype = _dtype(image, dtype)
    if image.shape[:2] == (size, size):
        return jnp.clip(image.astype(dtype) / _full_scale(image), 0, 1)
    return _resample(image, View(), size, dtype)


def _float32(pair: tuple[float, float]) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(pair[0], jnp.float32), jnp.asarray(pair[1], jnp.float32)


def _dtype(image: jax.Array, dtype: DTypeLike | None) -> jnp.dtype:
    if dtype is not None:
        return jnp.dtype(dtype)
    if jnp.issubdtype(image.dtype, jnp.floating):
        return jnp.promote_types(image.dtype, jnp.float32)
    return jnp.dtype(jnp.result_type(float))


def _taps(
    start: ArrayLike, extent: ArrayLike, flip: ArrayLike, source: int, target: int, dtype: DTypeLike
) -> tuple[jax.Array, jax.Array]:
    """Returns which `source` pixels make each of `target` pixels, (target, K) int32, and their weights, (target, K).

    start, extent: the crop in fractions of the side. The weights of one output pixel sum to 1. They are 0 beyond the
    image's edge, but not beyond the crop's edge, because those are real pixels.
    """
    step = jnp.asarray(extent, dtype) * source / target  # source pixels per target pixel
    reach = jnp.maximum(step, 1.0)
    center = jnp.asarray(start, dtype) * source + (jnp.arange(target, dtype=dtype) + 0.5) * step - 0.5
    center = jnp.where(flip, center[::-1], center)
    # The open interval (center - reach, center + reach) holds at most ceil(2 reach) whole numbers, and step is at most
    # source / target because the crop lies inside the image.
    count = max(-(-2 * source // target), 2)
    index = (jnp.floor(center - reach).astype(jnp.int32) + 1)[:, None] + jnp.arange(count, dtype=jnp.int32)[None, :]
    weight = jnp.maximum(1 - jnp.abs(index.astype(dtype) - center[:, None]) / reach, 0.0)
    weight = jnp.where((index >= 0) & (index < source), weight, 0.0)
    return jnp.clip(index, 0, source - 1), weight / jnp.sum(weight, axis=1, keepdims=True)


def _product(image: jax.Array, rows: _Taps, columns: _Taps) -> jax.Array:
    """Computes `_summed` as two matrix products in full precision, band by band."""

    def dense(taps: _Taps, source: int) -> jax.Array:
        index, weight = taps
        return jnp.sum(jnp.where(index[:, :, None] == jnp.arange(source), weight[:, :, None], 0), axis=1)

    height, width, _ = image.shape
    down, across = dense(rows, height), dense(columns, width)
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    half = product("yh,hwb->byw", down, image.astype(down.dtype))
    return product("xw,byw->bxy", across, half).transpose(1, 2, 0)


def _summed(image: jax.Array, rows: _Taps, columns: _Taps) -> jax.Array:
    """Resamples an image (H, W, bands) at `rows` and `columns`; the result is transposed: (columns, rows, bands)."""
    height, width, bands = image.shape
    size = rows[0].shape[0]
    half = _weighted_rows(image.reshape(height, width * bands), *rows)
    half = half.reshape(size, width, bands).swapaxes(0, 1).reshape(width, size * bands)
    return _weighted_rows(half, *columns).reshape(columns[0].shape[0], size, bands)


def _weighted_rows(rows: jax.Array, index: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the sum over k of weight[:, k] * rows[index[:, k]]: (S, M), (n, K), (n, K) -> (n, M)."""

    def add_tap(partial_sum: jax.Array, tap: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        # Whole rows are contiguous, and gathering them in the image's own dtype (uint8) moves a quarter of the bytes.
        gathered = rows.at[tap[0]].get(mode="promise_in_bounds").astype(weight.dtype)
        return partial_sum + tap[1][:, None] * gathered, None

    # A loop rather than a plain sum: XLA on CPU would fuse the sum into each operation that reads it, of which the
    # transposition and the mean gray have several, and gather everything again for each: two to four times slower.
    start = jnp.zeros((index.shape[0], rows.shape[1]), weight.dtype)
    return jax.lax.scan(add_tap, start, (index.T, weight.T))[0]


def _resample(image: jax.Array, view: View, size: int, dtype: DTypeLike) -> jax.Array:
    """Crops, resizes and orients an image: (H, W, bands) -> (size, size, bands) in [0, 1]."""
    if image.ndim != 3:
        raise ValueError(f"an image must have shape (H, W, bands), got {image.shape}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    height, width, _ = image.shape
    orientation = jnp.asarray(view.orientation, jnp.int32)
    rows = _taps(view.top, view.height, orientation & 1 != 0, height, size, dtype)
    columns = _taps(view.left, view.width, orientation & 2 != 0, width, size, dtype)
    transposed = jax.lax.platform_dependent(image, rows, columns, tpu=_product, default=_summed)
    oriented = jnp.where(orientation & 4 != 0, transposed, transposed.swapaxes(0, 1))
    return jnp.clip(oriented / _full_scale(image), 0, 1)


def _full_scale(image: jax.Array) -> int:
    """Returns the value that becomes 1: 65535 for uint16, else 255."""
    return 65535 if image.dtype == jnp.uint16 else 255


def _color(pixels: jax.Array, view: View) -> jax.Array:
    """Changes brightness, contrast and saturation of (n, n, 3) in [0, 1], and clips to [0, 1] after each."""
    brightness, contrast, saturation = (
        jnp.asarray(factor, pixels.dtype) for factor in (view.brightness, view.contrast, view.saturation)
    )
    pixels = jnp.clip(brightness * pixels, 0, 1)
    # Average over the rows first, as a sum of long vectors: a plain mean of the gray is several times slower on a CPU.
    red, green, blue = jnp.mean(jnp.mean(pixels, axis=0), axis=0)
    pixels = jnp.clip(contrast * pixels + (1 - contrast) * _gray(jnp.stack((red, green, blue))), 0, 1)
    return jnp.clip(saturation * pixels + (1 - saturation) * _gray(pixels)[..., None], 0, 1)


def _gray(pixels: jax.Array) -> jax.Array:
    red, green, blue = (weight * pixels[..., band] for band, weight in enumerate(_LUMA))
    return red + green + blue
