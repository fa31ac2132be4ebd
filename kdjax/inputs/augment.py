"""Augmentation of aerial and satellite tiles as a pure function of one image and one key.

A view is a handful of numbers (`View`): a crop in fractions of the image, one of the eight symmetries of the square
and three colour factors. `draw` makes them from a key, `render` turns an image and a view into pixels at any size. So
the same key at two sizes is the same crop, orientation and colour at both: teacher and student see the same picture,
each at its own resolution. Nothing here knows of batches: `vmap` over images and keys.

Resampling is a weighted sum of a few rows and then of a few columns (the triangle filter, widened to the scale when
shrinking). Crops lie inside the image, so the number of taps is known from the two sizes alone. On a CPU this is three
times faster than the same filter as dense matrix products, and it has no matrix product whose precision an accelerator
could lower.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from kdjax.errors import InputError

VERSION = 1  # Raise it whenever the same key gives other pixels: stored teacher logits are named by it.
DEFAULTS: dict[str, Any] = {
    "scale": (0.5, 1.0),
    "ratio": (3 / 4, 4 / 3),
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "symmetries": 8,
}
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow and torchvision


class View(NamedTuple):
    """What is done to one image. All leaves are scalars; under `vmap` they carry the mapped axes.

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


def describe(**options) -> dict[str, Any]:
    """All that decides the pixels besides image, key and size, as plain JSON values, for fingerprints.

    Args:
      **options: those keyword arguments of `augment` that differ from `DEFAULTS`, as Python numbers.
    Raises:
      InputError: an unknown option or a value out of range, naming it.
    """
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise InputError(f"augmentation: unknown option {', '.join(unknown)}; known are {', '.join(DEFAULTS)}")
    values = {**DEFAULTS, **options}
    for name in ("scale", "ratio"):
        try:
            low, high = (float(v) for v in values[name])
        except (TypeError, ValueError):
            raise InputError(f"augmentation: {name} must be two numbers (low, high), got {values[name]!r}") from None
        if not 0 < low <= high < float("inf") or (name == "scale" and high > 1):
            bound = "0 < low <= high <= 1" if name == "scale" else "0 < low <= high"
            raise InputError(f"augmentation: {name} must satisfy {bound}, got ({low:g}, {high:g})")
        values[name] = [low, high]
    for name in ("brightness", "contrast", "saturation"):
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise InputError(f"augmentation: {name} must be a number from 0 (off) to 1, got {value!r}")
        values[name] = float(value)
    if isinstance(values["symmetries"], bool) or values["symmetries"] not in (1, 2, 4, 8):
        raise InputError(
            "augmentation: symmetries must be 1 (none), 2 (up-down), 4 (both flips) or 8 (with rotations), "
            f"got {values['symmetries']!r}"
        )
    return {
        "name": "symmetries + random resized crop + colour jitter",
        "version": VERSION,
        "filter": "antialiased triangle",
        **values,
    }


def draw(
    key: jax.Array,
    *,
    scale: ArrayLike = DEFAULTS["scale"],
    ratio: ArrayLike = DEFAULTS["ratio"],
    brightness: ArrayLike = DEFAULTS["brightness"],
    contrast: ArrayLike = DEFAULTS["contrast"],
    saturation: ArrayLike = DEFAULTS["saturation"],
    symmetries: ArrayLike = DEFAULTS["symmetries"],
) -> View:
    """Draws one view from one key.

    The crop covers a uniform share of the area in `scale`; its width over height (in fractions of the sides, which is
    the aspect ratio for a square image) is log-uniform in that part of `ratio` where the crop fits into the image. That
    replaces the rejection loop of the usual random resized crop (Szegedy et al. 2015, arXiv 1409.4842), which a traced
    program cannot have. Colour factors are uniform in 1 ± their argument.

    Args:
      key: one PRNG key.
      scale, ratio: (low, high).
      brightness, contrast, saturation: half-widths in [0, 1].
      symmetries: the first 1, 2, 4 or all 8 orientations are equally likely.
        All are Python numbers or traced scalars; `describe` checks their ranges.
    Returns:
      A `View` of float32 scalars and an int32 orientation. Always float32, so that a run in float64 sees equal views.
    """
    u = jax.random.uniform(key, (8,), jnp.float32)
    (low, high), (wide_low, wide_high) = (_float32(pair) for pair in (scale, ratio))
    area = low + u[0] * (high - low)
    # A crop of this area fits into the unit square where area <= width / height <= 1 / area.
    log_low, log_high = (jnp.log(jnp.clip(bound, area, 1 / area)) for bound in (wide_low, wide_high))
    root = jnp.exp((log_low + u[1] * (log_high - log_low)) / 2)
    width, height = (jnp.minimum(jnp.sqrt(area) * side, 1.0) for side in (root, 1 / root))
    brightness, contrast, saturation = (
        1 + (2 * u[i] - 1) * jnp.asarray(spread, jnp.float32)
        for i, spread in ((5, brightness), (6, contrast), (7, saturation))
    )
    return View(
        top=u[2] * (1 - height),
        left=u[3] * (1 - width),
        height=height,
        width=width,
        orientation=jnp.floor(u[4] * jnp.asarray(symmetries, jnp.float32)).astype(jnp.int32),
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
    )


def render(image: jax.Array, view: View, size: int, *, dtype: DTypeLike | None = None) -> jax.Array:
    """The pixels of one view: crop and resize, then orientation, brightness, contrast and saturation.

    Each colour step is clipped to [0, 1], as in torchvision. Contrast blends with the mean grey of the crop, saturation
    with the grey of each pixel.

    Args:
      image: (H, W, 3), integers or floats in [0, 255].
      view: see `View`.
      size: side of the result in pixels.
      dtype: of the arithmetic and the result. By default the image's own where that is float32 or wider, else
        JAX's default float (float32, or float64 under x64).
    Returns:
      (size, size, 3) in [0, 1].
    Raises:
      ValueError: an image of another shape, or a size below 1.
    """
    return _colour(_resample(image, view, size, _dtype(image, dtype)), view)


def augment(image: jax.Array, key: jax.Array, size: int, *, dtype: DTypeLike | None = None, **options) -> jax.Array:
    """One random view of one image: `render(image, draw(key, **options), size)`.

    Args:
      image: (H, W, 3), integers or floats in [0, 255].
      key: one PRNG key. The same key at another size gives the same crop, orientation and colour.
      size: side of the result in pixels.
      dtype: see `render`.
      **options: see `draw`.
    Returns:
      (size, size, 3) in [0, 1].
    Raises:
      ValueError: an image of another shape, or a size below 1.
    """
    return render(image, draw(key, **options), size, dtype=dtype)


def eval_view(image: jax.Array, size: int, *, dtype: DTypeLike | None = None) -> jax.Array:
    """The whole image at another size (antialiased); image / 255 unchanged where it has that size already.

    Args, returns, raises: as `render`.
    """
    dtype = _dtype(image, dtype)
    if image.shape == (size, size, 3):
        return jnp.clip(image.astype(dtype) / 255, 0, 1)
    return _resample(image, View(), size, dtype)


def _float32(pair: ArrayLike) -> tuple[jax.Array, jax.Array]:
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
    """Which `source` pixels make each of `target` pixels, and with what weight: (target, K) int32 and (target, K).

    start, extent: the crop in fractions of the side. Weights of one output pixel sum to 1; beyond the image's edge they
    are 0, within it the filter may look past the crop's edge (those are real pixels).
    """
    step = jnp.asarray(extent, dtype) * source / target  # source pixels per target pixel
    reach = jnp.maximum(step, 1.0)
    centre = jnp.asarray(start, dtype) * source + (jnp.arange(target, dtype=dtype) + 0.5) * step - 0.5
    centre = jnp.where(flip, centre[::-1], centre)
    # The open interval (centre - reach, centre + reach) holds at most ceil(2 reach) whole numbers, and step is at most
    # source / target because the crop lies inside the image.
    count = max(-(-2 * source // target), 2)
    index = (jnp.floor(centre - reach).astype(jnp.int32) + 1)[:, None] + jnp.arange(count, dtype=jnp.int32)[None, :]
    weight = jnp.maximum(1 - jnp.abs(index.astype(dtype) - centre[:, None]) / reach, 0.0)
    weight = jnp.where((index >= 0) & (index < source), weight, 0.0)
    return jnp.clip(index, 0, source - 1), weight / jnp.sum(weight, axis=1, keepdims=True)


def _weighted_rows(rows: jax.Array, index: jax.Array, weight: jax.Array) -> jax.Array:
    """Sum over k of weight[:, k] * rows[index[:, k]]: (S, M), (n, K), (n, K) -> (n, M)."""

    def add_tap(total: jax.Array, tap: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        # Whole rows are contiguous, and gathering them in the image's own dtype (uint8) moves a quarter of the bytes.
        picked = rows.at[tap[0]].get(mode="promise_in_bounds").astype(weight.dtype)
        return total + tap[1][:, None] * picked, None

    # A loop and not a plain sum: XLA on CPU would fuse the sum into each later reader and gather everything again for
    # each of them (the transposition and the mean grey have several), two to four times slower in all.
    start = jnp.zeros((index.shape[0], rows.shape[1]), weight.dtype)
    return jax.lax.scan(add_tap, start, (index.T, weight.T))[0]


def _resample(image: jax.Array, view: View, size: int, dtype: DTypeLike) -> jax.Array:
    """Crop, resize, orientation; (H, W, 3) in [0, 255] -> (size, size, 3) in [0, 1]."""
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must have shape (H, W, 3), got {image.shape}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    height, width, _ = image.shape
    turn = jnp.asarray(view.orientation, jnp.int32)
    rows = _taps(view.top, view.height, turn & 1 != 0, height, size, dtype)
    columns = _taps(view.left, view.width, turn & 2 != 0, width, size, dtype)
    half = _weighted_rows(image.reshape(height, width * 3), *rows)
    half = half.reshape(size, width, 3).swapaxes(0, 1).reshape(width, size * 3)
    transposed = _weighted_rows(half, *columns).reshape(size, size, 3)
    out = jnp.where(turn & 4 != 0, transposed, transposed.swapaxes(0, 1))
    return jnp.clip(out / 255, 0, 1)


def _colour(pixels: jax.Array, view: View) -> jax.Array:
    """Brightness, contrast, saturation of (n, n, 3) in [0, 1], each clipped to [0, 1]."""
    brightness, contrast, saturation = (
        jnp.asarray(f, pixels.dtype) for f in (view.brightness, view.contrast, view.saturation)
    )
    pixels = jnp.clip(brightness * pixels, 0, 1)
    # Over the rows first, which is a sum of long vectors: a plain mean of the grey is several times slower on a CPU.
    red, green, blue = jnp.mean(jnp.mean(pixels, axis=0), axis=0)
    pixels = jnp.clip(contrast * pixels + (1 - contrast) * _grey(jnp.stack((red, green, blue))), 0, 1)
    return jnp.clip(saturation * pixels + (1 - saturation) * _grey(pixels)[..., None], 0, 1)


def _grey(pixels: jax.Array) -> jax.Array:
    return sum(weight * pixels[..., c] for c, weight in enumerate(_LUMA))
