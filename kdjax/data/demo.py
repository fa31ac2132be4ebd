"""Rendered land-use scenes: a data set that needs no download.

Each scene is drawn from above, three times larger than stored, and averaged down. Orientation, scale, season, light,
haze, blur, sensor noise and clutter vary; things of other classes appear as clutter (a road through fields, a pond, a
few houses, trees), so that neither colour nor one texture gives a class away. These are drawings, not data: they show
that a run works and what distillation does to it, not how well a network does on real images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from kdjax.data.dataset import Pool
from kdjax.data.decode import digest
from kdjax.errors import InputError

_ZOOM = 3  # drawn this many times larger than stored

Colour = tuple[float, float, float]
Points = np.ndarray  # (n, 2) in scene coordinates: the view is -0.5..0.5 before rotation and scaling

# Ground colours: the middle of a range, see `_Scene.tint`.
_GRASS = (104, 126, 70)
_MEADOW = (130, 146, 84)
_DRY = (166, 150, 108)
_SOIL = (134, 106, 80)
_WOOD = (56, 80, 48)
_SAND = (212, 194, 154)
_CONCRETE = (160, 157, 150)
_ASPHALT = (92, 92, 95)
_WATERS = ((46, 78, 104), (62, 92, 84), (34, 60, 72), (84, 116, 128))
_CARS = ((225, 225, 225), (40, 42, 46), (150, 30, 30), (40, 60, 120), (130, 132, 136), (200, 196, 180))
_ROOFS = ((158, 88, 66), (128, 78, 62), (120, 116, 112), (170, 160, 146), (92, 84, 80), (188, 120, 88))


class _Scene:
    """A canvas with a random pose. Lengths are fractions of the view's side; colours are 0..255."""

    def __init__(self, rng: np.random.Generator, size: int):
        self.rng = rng
        self.side = size * _ZOOM
        self.angle = rng.uniform(0, 2 * np.pi)
        self.scale = float(np.exp(rng.uniform(np.log(0.95), np.log(1.35))))
        self.shift = rng.uniform(-0.1, 0.1, 2)
        c, s = np.cos(self.angle), np.sin(self.angle)
        self.turn = np.array([[c, s], [-s, c]]) * self.scale * self.side
        self._floats = self.turn.tolist()
        self.origin = ((self.shift + 0.5) * self.side).tolist()
        # The sun: shadows fall one way in a scene.
        sun = rng.uniform(0, 2 * np.pi)
        self.shadow = np.array([np.cos(sun), np.sin(sun)]) * rng.uniform(0.3, 1.2)
        self._shadow = self.shadow.tolist()
        self.image = Image.new("RGB", (self.side, self.side))
        self.draw = ImageDraw.Draw(self.image)

    # Chance and colours ------------------------------------------------------------------------------------------

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def tint(self, colour: Colour, spread: float = 10) -> Colour:
        """The colour, lighter or darker, and a little off in hue."""
        light, *hue = self.rng.normal(0, spread, 4).tolist()
        return tuple(min(250.0, max(5.0, c + light + 0.35 * h)) for c, h in zip(colour, hue, strict=True))

    def pick(self, colours: tuple[Colour, ...], spread: float = 9) -> Colour:
        return self.tint(colours[self.rng.integers(len(colours))], spread)

    def noise(self, cells: float) -> np.ndarray:
        """Smooth noise float32 (side, side), about -1..1, with `cells` bumps across the view."""
        n = max(2, int(round(cells)) + 2)
        field = Image.fromarray(self.rng.normal(0, 0.6, (n, n)).astype(np.float32))
        return np.asarray(field.resize((self.side, self.side), Image.Resampling.BICUBIC))

    # Ground ------------------------------------------------------------------------------------------------------

    def fill(self, colour: Colour, second: Colour | None = None, patches: float = 3) -> None:
        """Covers the view with mottled ground; with a second colour in soft-edged patches."""
        base = np.array(colour, np.float32)
        ground = np.broadcast_to(base, (self.side, self.side, 3)).copy()
        if second is not None:
            weight = np.clip(self.noise(patches) * 3 + self.rng.normal(0, 0.7), 0, 1)[..., None]
            ground += weight * (np.array(second, np.float32) - base)
        texture = 6 * self.noise(5) + 6 * self.noise(14) + 5 * self.noise(self.side / 5)
        ground += texture[..., None] * self.between(0.5, 1.3)
        self.image.paste(Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)))

    def country(self) -> None:
        """Open land of a random kind."""
        kinds = (_GRASS, _MEADOW, _DRY, _GRASS)
        self.fill(self.pick(kinds), self.pick(kinds))

    def ground_photo(self, mask: Image.Image, colour: Colour, rough: float = 1.0) -> None:
        """Covers the masked part with one mottled colour."""
        texture = rough * (5 * self.noise(6) + 4 * self.noise(self.side / 6))
        layer = np.clip(np.array(colour, np.float32) + texture[..., None], 0, 255).astype(np.uint8)
        self.image.paste(Image.fromarray(layer), mask=mask)

    # Shapes ------------------------------------------------------------------------------------------------------

    def pixels(self, points: Points) -> list[float]:
        """Scene coordinates -> canvas pixels x, y, x, y, ... with the scene's rotation, scale and shift."""
        return (np.asarray(points) @ self.turn + self.origin).ravel().tolist()

    def polygon(self, points: Points, colour: Colour) -> None:
        self.draw.polygon(self.pixels(points), fill=_rgb(colour))

    def shadowed(self, points: Points, colour: Colour, height: float) -> None:
        """A polygon with its shadow on the ground; `height` is the shadow's length."""
        self.draw.polygon(self.pixels(np.asarray(points) + self.shadow * height), fill=(38, 40, 44))
        self.polygon(points, colour)

    def block(self, x: float, y: float, w: float, h: float, angle: float, colour: Colour, height: float = 0.0) -> None:
        """A turned rectangle of length w and breadth h around (x, y), with the shadow of something `height` high."""
        # Plain floats: a car park has hundreds of these, and NumPy is slow on four points.
        (a, b), (c, d) = self._floats
        u, v = x * a + y * c + self.origin[0], x * b + y * d + self.origin[1]
        reach = (w + h) * self.scale * self.side
        if not (-reach < u < self.side + reach and -reach < v < self.side + reach):
            return
        if height:
            dx, dy = self._shadow
            self.block(x + dx * height, y + dy * height, w, h, angle, (44, 44, 48))
        cos, sin = math.cos(angle) / 2, math.sin(angle) / 2
        lx, ly, sx, sy = w * cos, w * sin, -h * sin, h * cos
        lu, lv, su, sv = lx * a + ly * c, lx * b + ly * d, sx * a + sy * c, sx * b + sy * d
        self.draw.polygon(
            (u - lu - su, v - lv - sv, u + lu - su, v + lv - sv, u + lu + su, v + lv + sv, u - lu + su, v - lv + sv),
            fill=_rgb(colour),
        )

    def mask(self, points: Points) -> Image.Image:
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(self.pixels(points), fill=255)
        return mask

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        (a, b), (c, d) = self._floats
        u, v, r = x * a + y * c + self.origin[0], x * b + y * d + self.origin[1], radius * self.scale * self.side
        if -r < u < self.side + r and -r < v < self.side + r:
            self.draw.ellipse((u - r, v - r, u + r, v + r), fill=_rgb(colour))

    def band(self, path: Points, width: float | np.ndarray, colour: Colour) -> None:
        """A strip of the given width along a path (n, 2)."""
        self.polygon(_outline(path, width), colour)

    def dashes(self, path: Points, width: float, dash: float, gap: float, colour: Colour) -> None:
        """Paint marks along a path."""
        steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        for start in np.arange(self.between(0, dash), steps[-1], dash + gap):
            at = np.linspace(start, min(start + dash, steps[-1]), 3)
            self.band(np.stack([np.interp(at, steps, path[:, 0]), np.interp(at, steps, path[:, 1])], 1), width, colour)

    # Things ------------------------------------------------------------------------------------------------------

    def tree(self, x: float, y: float, radius: float) -> None:
        """A crown: its shadow, its body, its lit side."""
        green = self.tint((62, 88, 46), 12)
        dx, dy = self._shadow[0] * radius, self._shadow[1] * radius
        self.disc(x + dx * 0.7, y + dy * 0.7, radius, (30, 36, 30))
        self.disc(x, y, radius, green)
        self.disc(x - dx * 0.3, y - dy * 0.3, radius * 0.55, _lighter(green, 1.22))

    def trees(self, count: int, within: float = 0.7) -> None:
        for x, y in self.rng.uniform(-within, within, (count, 2)):
            self.tree(x, y, self.between(0.012, 0.03))

    def trees_few(self) -> None:
        self.trees(self.rng.integers(3, 14))

    def copse(self) -> None:
        """A clump of trees away from the middle."""
        a = self.between(0, 2 * np.pi)
        cx, cy = 0.45 * np.cos(a), 0.45 * np.sin(a)
        spread = self.between(0.05, 0.14)
        for x, y in self.rng.normal(0, spread, (self.rng.integers(8, 30), 2)):
            self.tree(cx + x, cy + y, self.between(0.015, 0.035))

    def house(self, x: float, y: float, w: float, h: float, angle: float) -> None:
        """A pitched roof: one half lit, one in shade."""
        roof = self.pick(_ROOFS, 10)
        self.block(x, y, w, h, angle, _lighter(roof, 0.88), 0.018)
        if self.chance(0.75):
            self.block(x - h / 4 * math.sin(angle), y + h / 4 * math.cos(angle), w, h / 2, angle, _lighter(roof, 1.12))

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
        self.band(path, self.between(0.018, 0.04), self.pick((_ASPHALT, _CONCRETE, _DRY)))

    def pond(self) -> None:
        a = self.between(0, 2 * np.pi)
        blob = _blob(self.rng, 0.42 * np.cos(a), 0.42 * np.sin(a), self.between(0.05, 0.13))
        self.polygon(blob, self.pick(_WATERS))

    def plot(self) -> None:
        """A neighbouring field, with furrows or without."""
        a = self.between(0, 2 * np.pi)
        box = _box(0.6 * np.cos(a), 0.6 * np.sin(a), self.between(0.3, 0.6), self.between(0.3, 0.6), a)
        colour = self.pick((_GRASS, _DRY, _SOIL, _MEADOW))
        self.polygon(box, colour)
        if self.chance(0.5):
            for t in np.linspace(0.05, 0.95, 9):
                self.band(
                    np.stack([box[0] + t * (box[3] - box[0]), box[1] + t * (box[2] - box[1])]),
                    0.014,
                    _lighter(colour, 0.86),
                )

    def car(self, x: float, y: float, angle: float, length: float = 0.034) -> None:
        self.block(x, y, length, length * 0.46, angle, self.pick(_CARS, 8), 0.008)

    def clutter(self, things: str, most: int = 2) -> None:
        """Up to `most` of the named things ('lane pond ...'), each of which may also be a mark of another class."""
        names = things.split()
        for name in self.rng.permutation(names)[: self.rng.integers(0, most + 1)]:
            getattr(self, name)()

    # The picture -------------------------------------------------------------------------------------------------

    def photograph(self) -> np.ndarray:
        """Light, haze, optics and noise; float canvas -> uint8 (size, size, 3)."""
        size = self.side // _ZOOM
        blur = abs(self.rng.normal(0, 0.2)) * _ZOOM * size / 48
        image = self.image.filter(ImageFilter.GaussianBlur(blur)) if blur > 0.3 else self.image
        small = np.asarray(image.reduce(_ZOOM), np.float32) / 255
        if self.chance(0.12):  # the shadow of a cloud, or thin cloud
            veil = np.clip(np.asarray(Image.fromarray(self.noise(2)).resize((size, size))) * 2, 0, 1)[..., None]
            small = small * (1 - 0.45 * veil) if self.chance(0.6) else small + 0.3 * veil * (0.95 - small)
        small = np.maximum(small, 0) ** self.between(0.9, 1.15)
        small = small * self.between(0.85, 1.15) * self.rng.normal(1, 0.03, 3)
        grey = small.mean(-1, keepdims=True)
        small = grey + (small - grey) * self.between(0.8, 1.2)
        haze = self.between(0, 0.15) * self.rng.random()
        small = small * (1 - haze) + haze * np.array([0.78, 0.82, 0.88])
        small = small + self.rng.normal(0, self.between(0.004, 0.018), small.shape)
        return np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)


def _rgb(colour: Colour) -> tuple[int, int, int]:
    r, g, b = colour
    return min(255, max(0, round(float(r)))), min(255, max(0, round(float(g)))), min(255, max(0, round(float(b))))


def _lighter(colour: Colour, factor: float) -> Colour:
    r, g, b = colour
    return r * factor, g * factor, b * factor


def _ring(x: float, y: float, radius: float, corners: int) -> Points:
    a = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + radius * np.cos(a), y + radius * np.sin(a)], 1)


def _box(x: float, y: float, w: float, h: float, angle: float) -> Points:
    """Corners of a rectangle around (x, y), turned; the side 0-1 is a long one of length w."""
    c, s = np.cos(angle), np.sin(angle)
    corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    return corners @ np.array([[c, s], [-s, c]]) + (x, y)


def _blob(rng: np.random.Generator, x: float, y: float, radius: float, stretch: float = 1.0) -> Points:
    """A closed, wobbly outline."""
    a = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    r = np.ones_like(a)
    for k in (1, 2, 3, 4):
        r += rng.normal(0, 0.16 / k) * np.cos(k * a + rng.uniform(0, 6.3))
    turn = rng.uniform(0, np.pi)
    u, v = radius * r * np.cos(a) * stretch, radius * r * np.sin(a)
    return np.stack([x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)], 1)


def _outline(path: Points, width: float | np.ndarray) -> Points:
    path = np.asarray(path, float)
    along = np.gradient(path, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    side = np.stack([-along[:, 1], along[:, 0]], 1) * (np.broadcast_to(width, len(path))[:, None] / 2)
    return np.concatenate([path + side, (path - side)[::-1]])


def _along(bend: np.ndarray | float = 0.0, count: int = 49) -> Points:
    """A path across the view along x, displaced by `bend` (count,) in y."""
    t = np.linspace(-1.3, 1.3, count)
    return np.stack([t, np.broadcast_to(bend, t.shape)], 1)


def _meander(rng: np.random.Generator, strength: float, count: int = 49) -> np.ndarray:
    t = np.linspace(-1.3, 1.3, count)
    y = sum(rng.normal(0, 1) / k * np.sin(k * t * 1.9 + rng.uniform(0, 6.3)) for k in (1, 2, 3))
    return strength * (y - np.interp(0, t, y))


# The classes -----------------------------------------------------------------------------------------------------


def _crop_rows(s: _Scene) -> None:
    s.fill(s.pick((_SOIL, _DRY)), s.pick((_SOIL, _DRY)))
    crop = s.pick((_GRASS, (112, 146, 72), (186, 174, 84), (84, 112, 60)), 12)
    period = s.between(0.065, 0.14)
    cover = s.between(0.3, 0.65)
    bend = s.between(-0.1, 0.1) * np.linspace(-1.3, 1.3, 49) ** 2
    for y in np.arange(-1.2, 1.2, period):
        s.band(_along(bend + y), period * cover * s.between(0.8, 1.2), s.tint(crop, 7))
    if s.chance(0.35):  # a second field with other furrows
        edge = s.between(0.12, 0.4) * (1 if s.chance(0.5) else -1)
        far = np.array([[edge, -1.3], [1.3 * np.sign(edge), -1.3], [1.3 * np.sign(edge), 1.3], [edge, 1.3]])
        s.polygon(far, s.pick((_SOIL, _DRY, _GRASS)))
        other = s.pick((_GRASS, _MEADOW, _DRY), 16)
        for x in np.arange(abs(edge), 1.3, s.between(0.06, 0.14)):
            s.band(np.array([[x * np.sign(edge), -1.3], [x * np.sign(edge), 1.3]]), 0.03, other)
    s.clutter("lane copse hamlet pond trees_few")


def _forest(s: _Scene) -> None:
    s.fill(s.tint((40, 56, 36), 8), s.pick((_WOOD, _GRASS), 8))
    green = s.pick(((60, 86, 46), (74, 96, 52), (52, 78, 58), (104, 100, 56)), 10)
    radius = s.between(0.027, 0.06) / s.scale
    step, reach = radius * 1.5, 0.88 / s.scale
    grid = np.stack(np.meshgrid(*[np.arange(-reach, reach, step)] * 2), -1).reshape(-1, 2)
    u, v = (grid @ s.turn + s.origin).T
    grid = grid[(np.minimum(u, v) > -0.1 * s.side) & (np.maximum(u, v) < 1.1 * s.side)]
    grid = s.rng.permutation(grid + s.rng.normal(0, step * 0.35, grid.shape))
    clearing = s.rng.uniform(-0.45, 0.45, 2), (s.between(0.08, 0.2) if s.chance(0.3) else 0)
    grid = grid[np.hypot(*(grid - clearing[0]).T) >= clearing[1]]
    radii = (radius * s.rng.uniform(0.6, 1.3, len(grid))).tolist()
    dx, dy = s.shadow * 0.35
    for (x, y), r, light in zip(grid.tolist(), radii, s.rng.normal(0, 9, len(grid)).tolist(), strict=True):
        colour = tuple(c + light for c in green)
        s.disc(x + dx * r, y + dy * r, r, _lighter(colour, 0.62))
        s.disc(x, y, r * 0.86, colour)
        s.disc(x - 0.8 * dx * r, y - 0.8 * dy * r, r * 0.45, _lighter(colour, 1.22))
    s.clutter("lane lane pond hamlet plot", 1)


def _river(s: _Scene) -> None:
    s.country()
    s.clutter("plot copse", 2)
    bend = _meander(s.rng, s.between(0.015, 0.2))
    path = _along(bend)
    width = s.between(0.15, 0.32) * (1 + 0.12 * s.rng.normal(0, 1) * np.sin(np.linspace(0, s.between(3, 12), 49)))
    if s.chance(0.6):  # wooded or sandy banks
        s.band(path, width + s.between(0.03, 0.1), s.pick((_WOOD, _SAND, _SOIL, _GRASS)))
    s.ground_photo(s.mask(_outline(path, width)), s.pick(_WATERS, 8), 0.7)
    if s.chance(0.25):
        s.polygon(_blob(s.rng, *path[s.rng.integers(18, 31)], 0.04, 2), s.pick((_SAND, _WOOD, _GRASS)))
    if s.chance(0.5):
        for k in s.rng.integers(0, 49, 24):
            off = (width[k] / 2 + s.between(0, 0.07)) * (1 if s.chance(0.5) else -1)
            s.tree(path[k, 0], path[k, 1] + off, s.between(0.012, 0.03))
    if s.chance(0.15):  # a bridge
        s.band(np.array([[0.1, -1.3], [0.1, 1.3]]), 0.045, s.pick((_CONCRETE, _ASPHALT)))
    s.clutter("lane hamlet copse", 1)


def _motorway(s: _Scene) -> None:
    s.country()
    s.clutter("plot hamlet copse pond", 2)
    bend = s.between(-0.16, 0.16) * np.linspace(-1.3, 1.3, 49) ** 2
    lanes = s.rng.integers(2, 4)
    lane = s.between(0.026, 0.036)
    median = s.between(0.025, 0.07)
    asphalt = s.pick((_ASPHALT, (120, 118, 114), (142, 140, 134)), 8)
    half = lanes * lane
    s.band(_along(bend), 2 * half + median + s.between(0.04, 0.12), s.pick((_GRASS, _DRY, _MEADOW), 8))
    for sign in (-1, 1):
        middle = bend + sign * (half + median) / 2
        s.band(_along(middle), half + 0.012, asphalt)
        for k in range(1, lanes):
            s.dashes(_along(middle + (k - lanes / 2) * lane), 0.005, 0.04, 0.05, (220, 220, 215))
        for _ in range(s.rng.poisson(s.between(1, 9))):
            k = s.rng.integers(0, lanes)
            x = s.between(-0.8, 0.8)
            y = np.interp(x, np.linspace(-1.3, 1.3, 49), middle) + (k + 0.5 - lanes / 2) * lane
            s.car(x, y, 0, s.between(0.03, 0.075) if s.chance(0.25) else 0.034)
    if s.chance(0.2):  # an overpass
        x = s.between(-0.35, 0.35)
        over = np.array([[x, -1.3], [x + s.between(-0.3, 0.3), 1.3]])
        s.band(over + s.shadow * 0.03, 0.07, (45, 45, 48))
        s.band(over, 0.07, s.pick((_CONCRETE, _ASPHALT)))
    if s.chance(0.25):  # a slip road
        s.band(_along(bend + half + median / 2 + 0.05 + 0.12 * np.linspace(-1, 1.6, 49) ** 2), 0.035, asphalt)
    s.trees(s.rng.integers(0, 12))


def _parking_lot(s: _Scene) -> None:
    s.country()
    w, h = s.between(0.6, 1.1), s.between(0.5, 1.0)
    lot = s.pick((_ASPHALT, (124, 122, 120), _CONCRETE), 10)
    s.clutter("lane hamlet copse plot", 2)
    s.ground_photo(s.mask(_box(0, 0, w, h, 0)), lot, 0.6)
    bay, depth = s.between(0.024, 0.036), s.between(0.06, 0.085)
    aisle = s.between(0.05, 0.085)
    full = s.between(0.25, 0.97)
    lines = _lighter(lot, s.between(1.25, 1.8))
    y = -h / 2 + s.between(0.01, 0.05)
    while y + 2 * depth < h / 2:
        for row in (0, 1):
            middle = y + (row + 0.5) * depth
            for x in np.arange(-w / 2 + 0.04, w / 2 - 0.04, bay):
                s.block(x, middle, 0.004, depth, 0, lines)
                if s.chance(full):
                    s.car(x + bay / 2, middle + s.rng.normal(0, 0.004), np.pi / 2, depth * s.between(0.66, 0.82))
        if s.chance(0.3):
            for x in np.arange(-w / 2 + 0.08, w / 2, s.between(0.12, 0.25)):
                s.tree(x, y + depth, s.between(0.012, 0.024))
        y += 2 * depth + aisle
    if s.chance(0.45):  # the shop beside it
        s.block(0, h / 2 + 0.18, w * s.between(0.5, 1), 0.3, 0, s.pick((_CONCRETE, (190, 188, 184), _ROOFS[2])), 0.03)
    s.trees(s.rng.integers(0, 8))


def _dense_housing(s: _Scene) -> None:
    s.fill(s.pick((_GRASS, _DRY, (140, 134, 118), _WOOD)), s.pick((_GRASS, _CONCRETE)))
    street = s.pick((_ASPHALT, (128, 126, 122)), 8)
    block = s.between(0.22, 0.34)
    plot = s.between(0.062, 0.11)
    width = s.between(0.022, 0.04)
    off = s.between(0, block)
    cross = s.between(0.4, 0.8)
    house_w, house_h = plot * s.between(0.6, 0.88), block * s.between(0.18, 0.3)
    for y in np.arange(-1.2 + off, 1.2, block):
        for side in (-1, 1):
            for x in np.arange(-0.95, 0.95, plot):
                if s.chance(0.06):
                    continue
                yy = y + side * (width / 2 + house_h * s.between(0.65, 0.9))
                turn = 0 if s.chance(0.85) else np.pi / 2
                s.house(x + s.rng.normal(0, plot * 0.06), yy, house_w * s.between(0.8, 1.1), house_h, turn)
        s.band(_along(y), width, street)
        for x in s.rng.uniform(-0.8, 0.8, s.rng.integers(0, 7)):
            s.car(x, y + width * 0.22, 0, 0.026)
    for x in np.arange(-0.9 + s.between(0, cross), 0.9, cross):
        s.band(np.array([[x, -1.3], [x, 1.3]]), width, street)
    for x, y in s.rng.uniform(-0.75, 0.75, (s.rng.integers(0, 70), 2)):
        s.tree(x, y, s.between(0.01, 0.022))
    if s.chance(0.25):
        s.clutter("pond plot copse", 1)


def _storage_tanks(s: _Scene) -> None:
    s.fill(s.pick((_CONCRETE, _DRY, _SOIL, _GRASS)), s.pick((_CONCRETE, _DRY, _GRASS)))
    s.clutter("lane plot copse", 2)
    radius = s.between(0.09, 0.17)
    gap = radius * s.between(2.2, 3.0)
    colour = s.pick(((232, 232, 228), (208, 208, 204), (214, 206, 186)), 10)
    columns, rows = s.rng.integers(1, 5), s.rng.integers(1, 5)
    if s.chance(0.6):  # walls around the yard
        yard = _box(0, 0, columns * gap + 0.06, rows * gap + 0.06, 0)
        s.polygon(yard, s.pick((_CONCRETE, _SOIL, _DRY)))
        s.draw.line(s.pixels(np.concatenate([yard, yard[:1]])), fill=_rgb(s.tint((196, 192, 184))), width=_ZOOM - 1)
    missing = 0.12 if columns * rows > 2 else 0.0
    for i in range(columns):
        for j in range(rows):
            if s.chance(missing):
                continue
            x, y = (i - (columns - 1) / 2) * gap, (j - (rows - 1) / 2) * gap
            r = radius * (s.between(0.5, 0.8) if s.chance(0.2) else s.between(0.92, 1.05))
            tank = s.tint(colour, 6)
            for t in np.linspace(1, 0.2, 4):
                off = s.shadow * r * 0.45 * t
                s.draw.polygon(s.pixels(_ring(x + off[0], y + off[1], r, 22)), fill=(56, 56, 60))
            s.polygon(_ring(x, y, r, 22), _lighter(tank, 0.82))
            s.polygon(_ring(x, y, r * 0.9, 22), tank)
            if s.chance(0.5):  # a floating roof lies lower: a crescent of shade
                off = s.shadow * r * 0.12
                s.polygon(_ring(x, y, r * 0.86, 22), _lighter(tank, 0.7))
                s.polygon(_ring(x + off[0], y + off[1], r * 0.76, 22), _lighter(tank, 0.95))
            s.disc(x, y, r * 0.1, _lighter(tank, 0.75))
    for _ in range(s.rng.integers(0, 4)):  # pipes
        y = s.between(-0.5, 0.5)
        s.band(np.array([[-0.6, y], [0.6, y]]), 0.008, s.tint((190, 188, 182)))
    s.clutter("hamlet trees_few", 1)


def _runway(s: _Scene) -> None:
    s.fill(s.pick((_GRASS, _MEADOW, _DRY)), s.pick((_GRASS, _DRY, _SOIL)))
    s.clutter("plot pond copse", 1)
    width = s.between(0.22, 0.36)
    tarmac = s.pick((_ASPHALT, (120, 118, 116), (150, 148, 142)), 8)
    white = (228, 228, 224)
    end = s.between(-0.42, 0.05) if s.chance(0.65) else -1.3
    strip = np.array([[end, 0.0], [1.3, 0.0]])
    s.band(strip + np.array([[-0.02, 0], [0, 0]]), width + s.between(0.02, 0.07), _lighter(tarmac, 1.13))
    s.ground_photo(s.mask(_outline(strip, width)), tarmac, 0.6)
    for edge in (-1, 1):
        s.band(strip + (0, edge * width * 0.45), 0.007, white)
    if end > -1:
        for y in np.linspace(-0.38, 0.38, 8) * width:  # the threshold's piano keys
            s.band(np.array([[end + 0.03, y], [end + 0.13, y]]), width * 0.055, white)
    s.dashes(np.stack([np.linspace(max(end, -1.3) + 0.2, 1.3, 40), np.zeros(40)], 1), 0.012, 0.09, 0.07, white)
    if s.chance(0.6):  # rubber marks of landings
        for y in (-0.1, 0.1):
            start = max(end, -0.5) + s.between(0.15, 0.3)
            s.band(np.array([[start, y * width], [start + 0.4, y * width]]), width * 0.12, _lighter(tarmac, 0.8))
    if s.chance(0.35):  # a taxiway beside it, with a link
        y = width / 2 + s.between(0.12, 0.25)
        s.band(np.array([[-1.3, y], [1.3, y]]), width * 0.4, tarmac)
        s.dashes(np.array([[-1.3, y], [1.3, y]]), 0.006, 2.6, 0.1, (196, 176, 80))
        x = s.between(-0.3, 0.4)
        s.band(np.array([[x, 0], [x + s.between(0, 0.2), y]]), width * 0.36, tarmac)
    if s.chance(0.25):  # an aeroplane
        x, y = s.between(-0.2, 0.4), 0.0
        body = s.tint((232, 232, 235), 5)
        s.band(np.array([[x - 0.07, y], [x + 0.07, y]]), 0.018, body)
        s.polygon(
            np.array(
                [
                    [x + 0.02, y],
                    [x - 0.03, y + 0.07],
                    [x - 0.045, y + 0.07],
                    [x - 0.015, y],
                    [x - 0.045, y - 0.07],
                    [x - 0.03, y - 0.07],
                ]
            ),
            body,
        )
    s.clutter("lane trees_few", 1)


def _beach(s: _Scene) -> None:
    water = np.array(s.pick(_WATERS[:2] + ((70, 128, 140), (54, 104, 128)), 10))
    s.fill(tuple(water), tuple(water * s.between(0.75, 1.0)), 2)
    shore = _along(_meander(s.rng, s.between(0.01, 0.08)) + s.between(-0.15, 0.12))
    below = np.array([[1.3, 1.6], [-1.3, 1.6]])
    sand = s.pick((_SAND, (196, 176, 136), (178, 160, 128)), 10)
    for k in range(3, 0, -1):  # shallow water
        shallow = water + (np.array(sand) - water) * 0.13 * (4 - k)
        s.polygon(np.concatenate([shore - (0, 0.035 * k), below]), tuple(shallow))
    s.ground_photo(s.mask(np.concatenate([shore, below])), sand, 0.8)
    for k in range(s.rng.integers(0, 4)):  # breakers
        wave = shore - (0, 0.012 + 0.045 * k) + np.stack([np.zeros(49), _meander(s.rng, 0.008)], 1)
        s.dashes(wave, 0.012, s.between(0.2, 0.9), s.between(0.02, 0.3), (226, 232, 232))
    width = s.between(0.07, 0.28)
    dune = shore + np.stack([np.zeros(49), width + _meander(s.rng, 0.03)], 1)
    land = np.concatenate([dune, below])
    s.ground_photo(s.mask(land), s.pick((_GRASS, _WOOD, _MEADOW, _DRY, _SOIL)), 1.5)
    if s.chance(0.6):
        for _ in range(40):
            k = s.rng.integers(0, 49)
            s.tree(dune[k, 0], dune[k, 1] + s.between(0.02, 0.5), s.between(0.012, 0.03))
    if s.chance(0.3):
        road = dune + (0, s.between(0.08, 0.16))
        s.band(road, 0.035, s.pick((_ASPHALT, _CONCRETE)))
    if s.chance(0.3):
        for _ in range(s.rng.integers(3, 12)):
            k = s.rng.integers(5, 44)
            s.house(dune[k, 0], dune[k, 1] + s.between(0.15, 0.4), 0.07, 0.05, 0)
    if s.chance(0.5):  # people and parasols
        for _ in range(s.rng.integers(4, 30)):
            k = s.rng.integers(0, 49)
            s.disc(shore[k, 0], shore[k, 1] + s.between(0.1, 0.9) * width, 0.007, s.pick(_CARS, 30))


def _harbour(s: _Scene) -> None:
    water = s.pick(_WATERS, 10)
    s.fill(water, _lighter(water, s.between(0.8, 1.1)), 2)
    quay = s.between(0.12, 0.4)
    s.ground_photo(
        s.mask(np.array([[-1.3, quay], [1.3, quay], [1.3, 1.6], [-1.3, 1.6]])),
        s.pick((_CONCRETE, _ASPHALT, _DRY, _GRASS)),
        1.0,
    )
    pier = s.pick((_CONCRETE, (186, 180, 168), (150, 132, 108)), 8)
    gap = s.between(0.17, 0.3)
    length = s.between(0.35, 0.75)
    berth = s.between(0.036, 0.06)
    full = s.between(0.35, 0.97)
    for x in np.arange(-1.0 + s.between(0, gap), 1.0, gap):
        s.band(np.array([[x, quay + 0.02], [x, quay - length]]), 0.018, pier)
        for y in np.arange(quay - 0.05, quay - length, -berth):
            for side in (-1, 1):
                if not s.chance(full):
                    continue
                boat = min(gap * 0.42, s.between(0.05, 0.095))
                beam, bow = 0.3 * berth, boat * 0.65
                hull = np.array([[0.012, -beam], [bow, -beam], [boat, 0], [bow, beam], [0.012, beam]])
                hull = hull * (side, 1) + (x, y)
                s.shadowed(hull, s.pick(((232, 232, 230), (214, 216, 218), (60, 70, 96), (150, 60, 50)), 8), 0.008)
                if s.chance(0.5):
                    s.block(
                        x + side * boat * 0.45,
                        y,
                        boat * 0.3,
                        0.25 * berth,
                        0,
                        s.pick(((90, 100, 116), (180, 160, 130)), 10),
                    )
    for _ in range(s.rng.integers(0, 4)):  # boats under way, sheds ashore
        x, y = s.between(-0.5, 0.5), quay - length - s.between(0.05, 0.4)
        s.polygon(_blob(s.rng, x, y, 0.02, 2.5), (230, 230, 228))
    for _ in range(s.rng.integers(0, 6)):
        s.house(s.between(-0.7, 0.7), quay + s.between(0.08, 0.3), s.between(0.06, 0.16), s.between(0.05, 0.1), 0)
    for x in s.rng.uniform(-0.7, 0.7, s.rng.integers(0, 12)):
        s.car(x, quay + 0.04, np.pi / 2, 0.03)


def _golf_course(s: _Scene) -> None:
    s.fill(s.pick((_GRASS, _MEADOW, _WOOD), 8), s.pick((_WOOD, _GRASS), 8))
    fairway = s.pick(((124, 158, 84), (140, 166, 92), (112, 146, 78)), 8)
    for _ in range(s.rng.integers(1, 4)):
        x, y = s.rng.uniform(-0.35, 0.35, 2)
        s.ground_photo(s.mask(_blob(s.rng, x, y, s.between(0.1, 0.2), s.between(1.6, 2.8))), fairway, 0.4)
    for _ in range(s.rng.integers(1, 3)):
        x, y = s.rng.uniform(-0.3, 0.3, 2)
        s.polygon(_blob(s.rng, x, y, s.between(0.05, 0.09)), _lighter(fairway, 1.15))
        for _ in range(s.rng.integers(2, 5)):
            a = s.between(0, 6.3)
            s.polygon(
                _blob(s.rng, x + 0.12 * np.cos(a), y + 0.12 * np.sin(a), s.between(0.02, 0.045), 1.4),
                s.tint((224, 210, 172), 8),
            )
    for x, y in s.rng.uniform(-0.75, 0.75, (s.rng.integers(10, 70), 2)):
        s.tree(x, y, s.between(0.014, 0.032))
    s.clutter("pond lane copse", 2)


def _solar_park(s: _Scene) -> None:
    s.fill(s.pick((_GRASS, _DRY, _MEADOW, _SOIL)), s.pick((_GRASS, _DRY)))
    s.clutter("copse plot lane", 1)
    panel = s.pick(((40, 52, 84), (30, 36, 52), (60, 78, 112), (52, 56, 70)), 8)
    depth, gap = s.between(0.03, 0.07), s.between(0.02, 0.06)
    w, h = s.between(0.7, 1.5), s.between(0.6, 1.4)
    table = s.between(0.2, 0.6)
    for y in np.arange(-h / 2, h / 2, depth + gap):
        for x in np.arange(-w / 2, w / 2, table):
            if s.chance(0.05):
                continue
            middle = x + table / 2
            s.block(middle, y, table - 0.014, depth, 0, _lighter(panel, s.between(0.9, 1.1)), 0.014)
            s.block(middle, y - depth / 2, table - 0.02, 0.005, 0, (170, 180, 196))
    if s.chance(0.4):
        s.band(np.array([[s.between(-0.3, 0.3), -1], [s.between(-0.3, 0.3), 1]]), 0.03, s.pick((_DRY, _CONCRETE)))
    s.clutter("hamlet trees_few", 1)


SCENES: dict[str, Callable[[_Scene], None]] = {
    "crop_rows": _crop_rows,
    "forest": _forest,
    "river": _river,
    "motorway": _motorway,
    "parking_lot": _parking_lot,
    "dense_housing": _dense_housing,
    "storage_tanks": _storage_tanks,
    "runway": _runway,
    "beach": _beach,
    "harbour": _harbour,
    "golf_course": _golf_course,
    "solar_park": _solar_park,
}


def render(data_seed: int, class_name: str, index: int, size: int) -> np.ndarray:
    """Draws one scene.

    Args:
      data_seed: seed of the data set.
      class_name: a key of SCENES.
      index: number of the scene in its class.
      size: side in pixels.

    Returns:
      uint8 (size, size, 3), a pure function of the arguments.
    """
    rng = np.random.default_rng([data_seed, list(SCENES).index(class_name), index])
    scene = _Scene(rng, size)
    SCENES[class_name](scene)
    return scene.photograph()


def load_demo(*, classes: int, train: int, validation: int, test: int, storage_size: int, data_seed: int) -> Pool:
    """Renders the demo: the first `classes` kinds of scenes, the counts shared evenly among them.

    Raises:
      InputError: more classes than there are, fewer than two, or a split with fewer images than classes.
    """
    if not 2 <= classes <= len(SCENES):
        raise InputError(f"dataset.demo_classes: {classes} is out of range, it must be 2 to {len(SCENES)}")
    if data_seed < 0:
        raise InputError(f"data_seed: {data_seed} must not be negative")
    counts = {"train": train, "validation": validation, "test": test}
    for side, count in counts.items():
        if count < classes:
            raise InputError(f"dataset.demo_{side}: {count} is too few, each of the {classes} classes needs one image")
    names = list(SCENES)[:classes]
    # Class k's scenes are numbered through the three splits, so no scene is in two of them.
    made = [0] * classes
    todo: list[tuple[str, int, int]] = []
    for side, count in counts.items():
        for j in range(count):
            todo.append((side, j % classes, made[j % classes]))
            made[j % classes] += 1
    # No threads: the drawing is many small calls that hold Python's lock.
    images = np.stack([render(data_seed, names[k], i, storage_size) for _, k, i in todo])
    return Pool(
        "demo",
        tuple(names),
        images,
        np.arange(len(todo)),
        np.array([k for _, k, _ in todo], np.int32),
        tuple(f"{names[k]}/{names[k]}_{i:05d}" for _, k, i in todo),
        tuple(digest(image) for image in images),
        tuple(side for side, _, _ in todo),
        ("scenes are rendered, not photographed",),
    )
