"""Pictures of images of any bands: in true color, and beside it in false color where there is near infrared."""

import dataclasses

import numpy as np

from kdjax.data.bands import canonical, colors
from kdjax.data.rows import Images

_NEAR_INFRARED = ("b08", "b8a", "nir", "near infrared")
_DARK, _BRIGHT = 2, 98  # percentiles that become black and white
_SPARSE = 5  # every so many pixels along both sides are looked at


@dataclasses.dataclass(frozen=True)
class Composite:
    """How images are shown.

    Attributes:
        pictures: the bands of each picture, three places; () = the images are plain red, green and blue.
        black, white: values of each band that become 0 and 255.
        words: what the pictures are, for people; '' for plain ones.
    """

    pictures: tuple[tuple[int, int, int], ...] = ()
    black: tuple[float, ...] = ()
    white: tuple[float, ...] = ()
    words: str = ""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images (..., side, side, bands) as (..., side, width, 3) uint8, the pictures of each side by side."""
        if not self.pictures:
            return images
        black, white = (np.asarray(one, np.float32) for one in (self.black, self.white))
        gray = np.rint(255 * np.clip((images - black) / (white - black), 0, 1)).astype(np.uint8)
        return np.concatenate([gray[..., list(places)] for places in self.pictures], axis=-2)


def composite(names: tuple[str, ...], images: Images) -> Composite:
    """How to show images of these bands.

    True color where red, green and blue are among them; false color of near infrared, red and green where they are;
    else the first band three times, or the first three bands.

    Args:
        names: of the bands.
        images: (N, side, side, bands), which say what is dark and what is bright; a hundred are looked at.
    """
    keys = [canonical(name) for name in names]
    red, green, blue = colors(names)
    infrared = next((keys.index(one) for one in _NEAR_INFRARED if one in keys), None)
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
    chosen = np.linspace(0, len(images) - 1, min(len(images), 100)).astype(int)
    seen = images[chosen][:, ::_SPARSE, ::_SPARSE].reshape(-1, len(names))
    black, white = np.percentile(seen, (_DARK, _BRIGHT), axis=0)
    return Composite(
        tuple(pictures), tuple(black), tuple(np.maximum(white, black + 1)), f"Pictures are in {' and '.join(words)}."
    )
