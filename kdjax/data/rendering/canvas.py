"""A canvas for scenes seen from above: pose, light, brushes for what lies on the ground, and a photograph of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from kdjax.data.rendering.palette import (
    ASPHALT,
    BANDS,
    CARS,
    CONCRETE,
    CROWN,
    DRY,
    GRASS,
    MEADOW,
    ROOFS,
    SHADE,
    SOIL,
    VISIBLE,
    WATERS,
    Color,
    gain,
    lighter,
)

ZOOM = 3  # scenes are drawn this many times larger than stored

Points = np.ndarray  # (n, 2) in scene coordinates: the view is -0.5..0.5 before rotation and scaling


class Canvas:
    """A canvas with a random pose. Lengths are fractions of the view's side; colors are 0..255.

    With infrared, everything is drawn twice: on a layer of colors and on one of infrared. Random effects in infrared
    alone use a separate generator, so that the colors are the same with and without it.
    """

    def __init__(self, rng: np.random.Generator, size: int, infrared: bool = False):
        self.rng = rng
        (self._infrared_rng,) = rng.spawn(1)
        self.side = size * ZOOM
        self.angle = rng.uniform(0, 2 * np.pi)
        self.scale = float(np.exp(rng.uniform(np.log(0.95), np.log(1.35))))
        self.shift = rng.uniform(-0.1, 0.1, 2)
        c, s = np.cos(self.angle), np.sin(self.angle)
        self.turn = np.array([[c, s], [-s, c]]) * self.scale * self.side
        self._floats = self.turn.tolist()
        self.origin = ((self.shift + 0.5) * self.side).tolist()
        # The sun: all shadows in a scene fall the same way.
        sun = rng.uniform(0, 2 * np.pi)
        self.shadow = np.array([np.cos(sun), np.sin(sun)]) * rng.uniform(0.3, 1.2)
        self._shadow = self.shadow.tolist()
        self.channels = len(BANDS) if infrared else VISIBLE
        self._layers = [Image.new("RGB", (self.side, self.side)) for _ in range(0, self.channels, VISIBLE)]
        self._brushes = [ImageDraw.Draw(layer) for layer in self._layers]

    # Chance and colors ------------------------------------------------------------------------------------------

    def chance(self, p: float) -> bool:
        """True with probability p."""
        return bool(self.rng.random() < p)

    def between(self, low: float, high: float) -> float:
        """A uniform random number."""
        return float(self.rng.uniform(low, high))

    def tint(self, color: Color, spread: float = 10) -> Color:
        """The color, randomly lighter or darker and slightly changed in hue."""
        light, *hue = self.rng.normal(0, spread, 4).tolist()
        visible = (min(250.0, max(5.0, c + light + 0.35 * h)) for c, h in zip(color[:VISIBLE], hue, strict=True))
        infrared = self._infrared_rng.normal(0, 0.7 * spread, len(color) - VISIBLE).tolist()  # moisture, vigor
        return (*visible, *(c * gain(light + h) for c, h in zip(color[VISIBLE:], infrared, strict=True)))

    def pick(self, colors: tuple[Color, ...], spread: float = 9) -> Color:
        """One of the colors, tinted."""
        return self.tint(colors[self.rng.integers(len(colors))], spread)

    def noise(self, cells: float) -> np.ndarray:
        """Smooth noise float32 (side, side), about -1..1, with `cells` bumps across the view."""
        n = max(2, int(round(cells)) + 2)
        field = Image.fromarray(self.rng.normal(0, 0.6, (n, n)).astype(np.float32))
        return np.asarray(field.resize((self.side, self.side), Image.Resampling.BICUBIC))

    # Ground ------------------------------------------------------------------------------------------------------

    def fill(self, color: Color, second: Color | None = None, patches: float = 3) -> None:
        """Covers the view with mottled ground, with soft-edged patches of the second color if there is one."""
        base = self._levels(color)
        ground = np.broadcast_to(base, (self.side, self.side, self.channels)).copy()
        if second is not None:
            weight = np.clip(self.noise(patches) * 3 + self.rng.normal(0, 0.7), 0, 1)[..., None]
            ground += weight * (self._levels(second) - base)
        texture = 6 * self.noise(5) + 6 * self.noise(14) + 5 * self.noise(self.side / 5)
        self._cover(ground, texture[..., None] * self.between(0.5, 1.3))

    def country(self) -> None:
        """Open land of a random kind."""
        kinds = (GRASS, MEADOW, DRY, GRASS)
        self.fill(self.pick(kinds), self.pick(kinds))

    def ground_photo(self, mask: Image.Image, color: Color, rough: float = 1.0) -> None:
        """Covers the masked part with one mottled color."""
        texture = rough * (5 * self.noise(6) + 4 * self.noise(self.side / 6))
        ground = np.broadcast_to(self._levels(color), (self.side, self.side, self.channels)).copy()
        self._cover(ground, texture[..., None], mask)

    def _levels(self, color: Color) -> np.ndarray:
        return np.array(color[: self.channels], np.float32)

    def _cover(self, ground: np.ndarray, light: np.ndarray, mask: Image.Image | None = None) -> None:
        """Lays ground (side, side, channels) on the layers, brighter by `light` (side, side, 1), see `palette`."""
        ground[..., :VISIBLE] += light
        ground[..., VISIBLE:] *= gain(light)
        levels = np.clip(ground, 0, 255).astype(np.uint8)
        for layer, layer_levels in zip(self._layers, np.split(levels, len(self._layers), axis=-1), strict=True):
            layer.paste(Image.fromarray(np.ascontiguousarray(layer_levels)), mask=mask)

    # Shapes ------------------------------------------------------------------------------------------------------

    def pixels(self, points: Points) -> list[float]:
        """Scene coordinates -> canvas pixels x, y, x, y, ... with the scene's rotation, scale and shift."""
        return (np.asarray(points) @ self.turn + self.origin).ravel().tolist()

    def polygon(self, points: Points, color: Color) -> None:
        """A filled polygon."""
        self._fill(self.pixels(points), color)

    def line(self, points: Points, color: Color) -> None:
        """A thin line along the points."""
        for k, brush in enumerate(self._brushes):
            brush.line(self.pixels(points), fill=_ink(color, k), width=ZOOM - 1)

    def _fill(self, corners: Sequence[float], color: Color) -> None:
        """A polygon of canvas pixels x, y, x, y, ..."""
        for k, brush in enumerate(self._brushes):
            brush.polygon(corners, fill=_ink(color, k))

    def shadowed(self, points: Points, color: Color, height: float) -> None:
        """A polygon with its shadow on the ground; `height` is the shadow's length."""
        self.polygon(np.asarray(points) + self.shadow * height, (38, 40, 44, *SHADE))
        self.polygon(points, color)

    def block(self, x: float, y: float, w: float, h: float, angle: float, color: Color, height: float = 0.0) -> None:
        """A rotated rectangle of length w and width h around (x, y), with the shadow of an object `height` high."""
        # Plain floats, because a parking lot has hundreds of blocks, and NumPy is slow for four points.
        (a, b), (c, d) = self._floats
        u, v = x * a + y * c + self.origin[0], x * b + y * d + self.origin[1]
        reach = (w + h) * self.scale * self.side
        if not (-reach < u < self.side + reach and -reach < v < self.side + reach):
            return
        if height:
            dx, dy = self._shadow
            self.block(x + dx * height, y + dy * height, w, h, angle, (44, 44, 48, *SHADE))
        cos, sin = math.cos(angle) / 2, math.sin(angle) / 2
        lx, ly, sx, sy = w * cos, w * sin, -h * sin, h * cos
        lu, lv, su, sv = lx * a + ly * c, lx * b + ly * d, sx * a + sy * c, sx * b + sy * d
        self._fill(
            (u - lu - su, v - lv - sv, u + lu - su, v + lv - sv, u + lu + su, v + lv + sv, u - lu + su, v - lv + sv),
            color,
        )

    def mask(self, points: Points) -> Image.Image:
        """255 within a polygon, 0 elsewhere, in canvas pixels."""
        mask = Image.new("L", (self.side, self.side))
        ImageDraw.Draw(mask).polygon(self.pixels(points), fill=255)
        return mask

    def disc(self, x: float, y: float, radius: float, color: Color) -> None:
        """A filled circle around (x, y)."""
        (a, b), (c, d) = self._floats
        u, v, r = x * a + y * c + self.origin[0], x * b + y * d + self.origin[1], radius * self.scale * self.side
        if -r < u < self.side + r and -r < v < self.side + r:
            for k, brush in enumerate(self._brushes):
                brush.ellipse((u - r, v - r, u + r, v + r), fill=_ink(color, k))

    def band(self, path: Points, width: float | np.ndarray, color: Color) -> None:
        """A strip of the given width along a path (n, 2)."""
        self.polygon(outline(path, width), color)

    def dashes(self, path: Points, width: float, dash: float, gap: float, color: Color) -> None:
        """Paint marks along a path."""
        steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        for start in np.arange(self.between(0, dash), steps[-1], dash + gap):
            at = np.linspace(start, min(start + dash, steps[-1]), 3)
            self.band(np.stack([np.interp(at, steps, path[:, 0]), np.interp(at, steps, path[:, 1])], 1), width, color)

    # Things ------------------------------------------------------------------------------------------------------

    def tree(self, x: float, y: float, radius: float) -> None:
        """A crown: its shadow, its body, its lit side."""
        green = self.tint((62, 88, 46, *CROWN), 12)
        dx, dy = self._shadow[0] * radius, self._shadow[1] * radius
        self.disc(x + dx * 0.7, y + dy * 0.7, radius, (30, 36, 30, *SHADE))
        self.disc(x, y, radius, green)
        self.disc(x - dx * 0.3, y - dy * 0.3, radius * 0.55, lighter(green, 1.22))

    def trees(self, count: int, within: float = 0.7) -> None:
        """Trees in random places, at most `within` from the middle in x and y."""
        for x, y in self.rng.uniform(-within, within, (count, 2)):
            self.tree(x, y, self.between(0.012, 0.03))

    def trees_few(self) -> None:
        """A few trees in random places."""
        self.trees(int(self.rng.integers(3, 14)))

    def copse(self) -> None:
        """A clump of trees away from the middle."""
        a = self.between(0, 2 * np.pi)
        cx, cy = 0.45 * np.cos(a), 0.45 * np.sin(a)
        spread = self.between(0.05, 0.14)
        for x, y in self.rng.normal(0, spread, (self.rng.integers(8, 30), 2)):
            self.tree(cx + x, cy + y, self.between(0.015, 0.035))

    def house(self, x: float, y: float, w: float, h: float, angle: float) -> None:
        """A pitched roof: one half lit, one in shade."""
        roof = self.pick(ROOFS, 10)
        self.block(x, y, w, h, angle, lighter(roof, 0.88), 0.018)
        if self.chance(0.75):
            self.block(x - h / 4 * math.sin(angle), y + h / 4 * math.cos(angle), w, h / 2, angle, lighter(roof, 1.12))

    def hamlet(self) -> None:
        """A few houses near an edge."""
        a = self.between(0, 2 * np.pi)
        cx, cy, turn = 0.42 * np.cos(a), 0.42 * np.sin(a), self.between(0, np.pi)
        for _ in range(self.rng.integers(2, 6)):
            dx, dy = self.rng.normal(0, 0.09, 2)
            self.house(cx + dx, cy + dy, self.between(0.04, 0.08), self.between(0.03, 0.05), turn)

    def lane(self) -> None:
        """A narrow road or track somewhere."""
        a = self.between(0, np.pi)
        off = self.between(-0.35, 0.35)
        u, v = np.array([np.cos(a), np.sin(a)]), np.array([-np.sin(a), np.cos(a)])
        t = np.linspace(-1.2, 1.2, 24)
        bend = off + self.between(-0.12, 0.12) * np.sin(t * self.between(1, 4) + self.between(0, 6))
        path = t[:, None] * u + bend[:, None] * v
        self.band(path, self.between(0.018, 0.04), self.pick((ASPHALT, CONCRETE, DRY)))

    def pond(self) -> None:
        """A pond away from the middle."""
        a = self.between(0, 2 * np.pi)
        shore = blob(self.rng, 0.42 * np.cos(a), 0.42 * np.sin(a), self.between(0.05, 0.13))
        self.polygon(shore, self.pick(WATERS))

    def plot(self) -> None:
        """A neighboring field, with furrows or without."""
        a = self.between(0, 2 * np.pi)
        field = box(0.6 * np.cos(a), 0.6 * np.sin(a), self.between(0.3, 0.6), self.between(0.3, 0.6), a)
        color = self.pick((GRASS, DRY, SOIL, MEADOW))
        self.polygon(field, color)
        if self.chance(0.5):
            for t in np.linspace(0.05, 0.95, 9):
                furrow = np.stack([field[0] + t * (field[3] - field[0]), field[1] + t * (field[2] - field[1])])
                self.band(furrow, 0.014, lighter(color, 0.86))

    def car(self, x: float, y: float, angle: float, length: float = 0.034) -> None:
        """A car of any color with its shadow."""
        self.block(x, y, length, length * 0.46, angle, self.pick(CARS, 8), 0.008)

    def clutter(self, things: str, most: int = 2) -> None:
        """Draws up to `most` of the named things ('lane pond ...'), any of which may be typical of another class."""
        names = things.split()
        for name in self.rng.permutation(names)[: self.rng.integers(0, most + 1)]:
            getattr(self, name)()

    # The picture -------------------------------------------------------------------------------------------------

    def photograph(self) -> np.ndarray:
        """Photographs the canvas, with light, haze, optics and noise, as uint8 (size, size, channels)."""
        size, infrared_bands = self.side // ZOOM, self.channels - VISIBLE
        blur = abs(self.rng.normal(0, 0.2)) * ZOOM * size / 48
        small = np.concatenate([self._reduced(layer, blur) for layer in self._layers], axis=-1)
        if self.chance(0.12):  # the shadow of a cloud, or thin cloud
            veil = np.clip(np.asarray(Image.fromarray(self.noise(2)).resize((size, size))) * 2, 0, 1)[..., None]
            small = small * (1 - 0.45 * veil) if self.chance(0.6) else small + 0.3 * veil * (0.95 - small)
        small = np.maximum(small, 0) ** self.between(0.9, 1.15) * self.between(0.85, 1.15)
        gains = self.rng.normal(1, 0.03, VISIBLE), self._infrared_rng.normal(1, 0.03, infrared_bands)
        small = small * np.concatenate(gains)
        visible, infrared = small[..., :VISIBLE], small[..., VISIBLE:]
        gray = visible.mean(-1, keepdims=True)
        visible = gray + (visible - gray) * self.between(0.8, 1.2)
        haze = self.between(0, 0.15) * self.rng.random()
        visible = visible * (1 - haze) + haze * np.array([0.78, 0.82, 0.88])  # infrared penetrates haze
        noise = self.between(0.004, 0.018)
        visible = visible + self.rng.normal(0, noise, visible.shape)
        infrared = infrared + self._infrared_rng.normal(0, noise, infrared.shape)
        return np.rint(np.clip(np.concatenate([visible, infrared], axis=-1), 0, 1) * 255).astype(np.uint8)

    @staticmethod
    def _reduced(layer: Image.Image, blur: float) -> np.ndarray:
        """A layer as the sensor samples it: float32 (size, size, 3) in 0..1."""
        image = layer.filter(ImageFilter.GaussianBlur(blur)) if blur > 0.3 else layer
        return np.asarray(image.reduce(ZOOM), np.float32) / 255


def _ink(color: Color, layer: int) -> tuple[int, ...]:
    """The levels of a color on a layer."""
    levels = color[VISIBLE * layer : VISIBLE * (layer + 1)]
    return tuple(min(255, max(0, round(float(level)))) for level in levels)


def ring(x: float, y: float, radius: float, corners: int) -> Points:
    """A regular polygon, nearly a circle, (corners, 2)."""
    a = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + radius * np.cos(a), y + radius * np.sin(a)], 1)


def box(x: float, y: float, w: float, h: float, angle: float) -> Points:
    """Corners of a rotated rectangle around (x, y); the first two corners span a side of length w."""
    c, s = np.cos(angle), np.sin(angle)
    corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    return corners @ np.array([[c, s], [-s, c]]) + (x, y)


def blob(rng: np.random.Generator, x: float, y: float, radius: float, stretch: float = 1.0) -> Points:
    """A closed, wobbly outline."""
    a = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    r = np.ones_like(a)
    for k in (1, 2, 3, 4):
        r += rng.normal(0, 0.16 / k) * np.cos(k * a + rng.uniform(0, 6.3))
    turn = rng.uniform(0, np.pi)
    u, v = radius * r * np.cos(a) * stretch, radius * r * np.sin(a)
    return np.stack([x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)], 1)


def outline(path: Points, width: float | np.ndarray) -> Points:
    """The polygon around a path (n, 2), with one width or (n,) widths."""
    path = np.asarray(path, float)
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    side = np.stack([-tangent[:, 1], tangent[:, 0]], 1) * (np.broadcast_to(width, len(path))[:, None] / 2)
    return np.concatenate([path + side, (path - side)[::-1]])


def along(bend: np.ndarray | float = 0.0, count: int = 49) -> Points:
    """A path across the view along x, displaced by `bend` (count,) in y."""
    t = np.linspace(-1.3, 1.3, count)
    return np.stack([t, np.broadcast_to(bend, t.shape)], 1)


def meander(rng: np.random.Generator, strength: float, count: int = 49) -> np.ndarray:
    """Smooth random displacements (count,) along the view, 0 in the middle."""
    t = np.linspace(-1.3, 1.3, count)
    waves = [rng.normal(0, 1) / k * np.sin(k * t * 1.9 + rng.uniform(0, 6.3)) for k in (1, 2, 3)]
    y = sum(waves, np.zeros(count))
    return strength * (y - np.interp(0, t, y))
