"""Scenes of the demo in which land and water prevail."""

from __future__ import annotations

import numpy as np

from kdjax.data.rendering.canvas import Canvas, along, blob, meander, outline
from kdjax.data.rendering.palette import (
    ASPHALT,
    CARS,
    CONCRETE,
    CROWN,
    DEEP,
    DRY,
    DUNE,
    FOAM,
    GRASS,
    LEAF,
    MEADOW,
    SAND,
    SOIL,
    STRAW,
    WATERS,
    WOOD,
    brighter,
    lighter,
)


def crop_rows(s: Canvas) -> None:
    """A field of rows, some with a second field of other furrows beside it."""
    s.fill(s.pick((SOIL, DRY)), s.pick((SOIL, DRY)))
    crop = s.pick((GRASS, (112, 146, 72, *LEAF), (186, 174, 84, *STRAW), (84, 112, 60, *LEAF)), 12)
    period = s.between(0.065, 0.14)
    cover = s.between(0.3, 0.65)
    bend = s.between(-0.1, 0.1) * np.linspace(-1.3, 1.3, 49) ** 2
    for y in np.arange(-1.2, 1.2, period):
        s.band(along(bend + y), period * cover * s.between(0.8, 1.2), s.tint(crop, 7))
    if s.chance(0.35):  # a second field with other furrows
        edge = s.between(0.12, 0.4) * (1 if s.chance(0.5) else -1)
        far = np.array([[edge, -1.3], [1.3 * np.sign(edge), -1.3], [1.3 * np.sign(edge), 1.3], [edge, 1.3]])
        s.polygon(far, s.pick((SOIL, DRY, GRASS)))
        other = s.pick((GRASS, MEADOW, DRY), 16)
        for x in np.arange(abs(edge), 1.3, s.between(0.06, 0.14)):
            s.band(np.array([[x * np.sign(edge), -1.3], [x * np.sign(edge), 1.3]]), 0.03, other)
    s.clutter("lane copse hamlet pond trees_few")


def forest(s: Canvas) -> None:
    """Crowns side by side, some around a clearing."""
    s.fill(s.tint((40, 56, 36, *CROWN), 8), s.pick((WOOD, GRASS), 8))
    green = s.pick(((60, 86, 46, *CROWN), (74, 96, 52, *CROWN), (52, 78, 58, *CROWN), (104, 100, 56, *CROWN)), 10)
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
        color = brighter(green, light)
        s.disc(x + dx * r, y + dy * r, r, lighter(color, 0.62))
        s.disc(x, y, r * 0.86, color)
        s.disc(x - 0.8 * dx * r, y - 0.8 * dy * r, r * 0.45, lighter(color, 1.22))
    s.clutter("lane lane pond hamlet plot", 1)


def river(s: Canvas) -> None:
    """A river that winds through open land, some with an island or a bridge."""
    s.country()
    s.clutter("plot copse", 2)
    bend = meander(s.rng, s.between(0.015, 0.2))
    path = along(bend)
    width = s.between(0.15, 0.32) * (1 + 0.12 * s.rng.normal(0, 1) * np.sin(np.linspace(0, s.between(3, 12), 49)))
    if s.chance(0.6):  # wooded or sandy banks
        s.band(path, width + s.between(0.03, 0.1), s.pick((WOOD, SAND, SOIL, GRASS)))
    s.ground_photo(s.mask(outline(path, width)), s.pick(WATERS, 8), 0.7)
    if s.chance(0.25):
        x, y = path[s.rng.integers(18, 31)]
        s.polygon(blob(s.rng, x, y, 0.04, 2), s.pick((SAND, WOOD, GRASS)))
    if s.chance(0.5):
        for k in s.rng.integers(0, 49, 24):
            off = (width[k] / 2 + s.between(0, 0.07)) * (1 if s.chance(0.5) else -1)
            s.tree(path[k, 0], path[k, 1] + off, s.between(0.012, 0.03))
    if s.chance(0.15):  # a bridge
        s.band(np.array([[0.1, -1.3], [0.1, 1.3]]), 0.045, s.pick((CONCRETE, ASPHALT)))
    s.clutter("lane hamlet copse", 1)


def beach(s: Canvas) -> None:
    """Sea with breakers, sand, and the land behind it."""
    water = np.array(s.pick(WATERS[:2] + ((70, 128, 140, *DEEP), (54, 104, 128, *DEEP)), 10))
    s.fill(tuple(water), tuple(water * s.between(0.75, 1.0)), 2)
    shore = along(meander(s.rng, s.between(0.01, 0.08)) + s.between(-0.15, 0.12))
    below = np.array([[1.3, 1.6], [-1.3, 1.6]])
    sand = s.pick((SAND, (196, 176, 136, *DUNE), (178, 160, 128, *DUNE)), 10)
    for k in range(3, 0, -1):  # shallow water
        shallow = water + (np.array(sand) - water) * 0.13 * (4 - k)
        s.polygon(np.concatenate([shore - (0, 0.035 * k), below]), tuple(shallow))
    s.ground_photo(s.mask(np.concatenate([shore, below])), sand, 0.8)
    for k in range(s.rng.integers(0, 4)):  # breakers
        wave = shore - (0, 0.012 + 0.045 * k) + np.stack([np.zeros(49), meander(s.rng, 0.008)], 1)
        s.dashes(wave, 0.012, s.between(0.2, 0.9), s.between(0.02, 0.3), (226, 232, 232, *FOAM))
    width = s.between(0.07, 0.28)
    dune = shore + np.stack([np.zeros(49), width + meander(s.rng, 0.03)], 1)
    land = np.concatenate([dune, below])
    s.ground_photo(s.mask(land), s.pick((GRASS, WOOD, MEADOW, DRY, SOIL)), 1.5)
    if s.chance(0.6):
        for _ in range(40):
            k = int(s.rng.integers(0, 49))
            s.tree(dune[k, 0], dune[k, 1] + s.between(0.02, 0.5), s.between(0.012, 0.03))
    if s.chance(0.3):
        road = dune + (0, s.between(0.08, 0.16))
        s.band(road, 0.035, s.pick((ASPHALT, CONCRETE)))
    if s.chance(0.3):
        for _ in range(s.rng.integers(3, 12)):
            k = int(s.rng.integers(5, 44))
            s.house(dune[k, 0], dune[k, 1] + s.between(0.15, 0.4), 0.07, 0.05, 0)
    if s.chance(0.5):  # people and parasols
        for _ in range(s.rng.integers(4, 30)):
            k = int(s.rng.integers(0, 49))
            s.disc(shore[k, 0], shore[k, 1] + s.between(0.1, 0.9) * width, 0.007, s.pick(CARS, 30))


def golf_course(s: Canvas) -> None:
    """Fairways, greens with bunkers, and scattered trees."""
    s.fill(s.pick((GRASS, MEADOW, WOOD), 8), s.pick((WOOD, GRASS), 8))
    fairway = s.pick(((124, 158, 84, *LEAF), (140, 166, 92, *LEAF), (112, 146, 78, *LEAF)), 8)
    for _ in range(s.rng.integers(1, 4)):
        x, y = s.rng.uniform(-0.35, 0.35, 2)
        s.ground_photo(s.mask(blob(s.rng, x, y, s.between(0.1, 0.2), s.between(1.6, 2.8))), fairway, 0.4)
    for _ in range(s.rng.integers(1, 3)):
        x, y = s.rng.uniform(-0.3, 0.3, 2)
        s.polygon(blob(s.rng, x, y, s.between(0.05, 0.09)), lighter(fairway, 1.15))
        for _ in range(s.rng.integers(2, 5)):
            a = s.between(0, 6.3)
            s.polygon(
                blob(s.rng, x + 0.12 * np.cos(a), y + 0.12 * np.sin(a), s.between(0.02, 0.045), 1.4),
                s.tint((224, 210, 172, *DUNE), 8),
            )
    for x, y in s.rng.uniform(-0.75, 0.75, (s.rng.integers(10, 70), 2)):
        s.tree(x, y, s.between(0.014, 0.032))
    s.clutter("pond lane copse", 2)
