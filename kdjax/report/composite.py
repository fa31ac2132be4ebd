"""Shows images of any bands as pictures: in true color, and next to it in false color if there is a near infrared."""

import dataclasses

import numpy as np

from kdjax.data.bands import canonical, colors
from kdjax.data.rows import Images

_NEAR_INFRARED = ("b08", "b8a", "nir", "near infrared")
_DARK, _BRIGHT = 2, 98  # percentiles that become black and white
_SPARSE = 5  # along both sides, only every fifth pixel is sampled


@dataclasses.dataclass(frozen=True)
class Composite:
    """How images are shown.

    Attributes:
        pictures: three band indices for each picture; () = the images are plain red, green and blue.
        black, white: the values of each band that become 0 and 255.
        words: a sentence that describes the pictures; '' for plain ones.
    """

    pictures: tuple[tuple[int, int, int], ...] = ()
    black: tuple[float, ...] = ()
    white: tuple[float, ...] = ()
    words: str = ""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Turns images (..., side, side, bands) into (..., side, width, 3) uint8, with their pictures side by side."""
        if not self.pictures:
            return images
        black, white = (np.asarray(levels, np.float32) for levels in (self.black, self.white))
        gray = np.rint(255 * np.clip((images - black) / (white - black), 0, 1)).astype(np.uint8)
        return np.concatenate([gray[..., list(places)] for places in self.pictures], axis=-2)


def composite(names: tuple[str, ...], images: Images) -> Composite:
    """Decides how to show images of these bands.

    True color is shown if red, green and blue are among them, and false color if near infrared, red and green are.
    Otherwise the picture shows the first three bands, or the first band three times.

    Args:
        names: names of the bands.
        images: (N, side, side, bands), from a hundred of which the values of black and white are taken.
    """
    keys = [canonical(name) for name in names]
    red, green, blue = colors(names)
    infrared = next((keys.index(band) for band in _NEAR_INFRARED if band in keys), None)
    pictures, words = [], []
    if red is not None and green is not None and blue is not None:
        pictures.append((red, green, blue))
        words.append("true color")
    if infrared is not None and red is not None and green is not None:
        pictures.append((infrared, red, green))
        words.append("false color (near infrared, red and green)")
    if not pictures:
        first = (0, 1, 2) if len(names) >= 3 else (0, 0, 0)
        pictures.append(first)
        words.append(f"the bands {', '.join(names[place] for place in first)} as red, green and blue")
    indices = np.linspace(0, len(images) - 1, min(len(images), 100)).astype(int)
    sample = images[indices][:, ::_SPARSE, ::_SPARSE].reshape(-1, len(names))
    black, white = np.percentile(sample, (_DARK, _BRIGHT), axis=0)
    return Composite(
        tuple(pictures), tuple(black), tuple(np.maximum(white, black + 1)), f"Pictures are in {' and '.join(words)}."
    )
