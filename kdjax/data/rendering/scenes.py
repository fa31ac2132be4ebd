"""The classes of the demo: each paints one land use on a canvas.

Things of other classes appear as clutter (a road through fields, a pond, a few houses, trees), so that neither colour
nor one texture gives a class away.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kdjax.data.rendering.canvas import (
    ASPHALT,
    CARS,
    CONCRETE,
    DRY,
    GRASS,
    MEADOW,
    ROOFS,
    SAND,
    SOIL,
    WATERS,
    WOOD,
    ZOOM,
    Canvas,
    along,
    blob,
    box,
    lighter,
    meander,
    outline,
    rgb,
    ring,
)


def _crop_rows(s: Canvas) -> None:
    s.fill(s.pick((SOIL, DRY)), s.pick((SOIL, DRY)))
    crop = s.pick((GRASS, (112, 146, 72), (186, 174, 84), (84, 112, 60)), 12)
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


def _forest(s: Canvas) -> None:
    s.fill(s.tint((40, 56, 36), 8), s.pick((WOOD, GRASS), 8))
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
        s.disc(x + dx * r, y + dy * r, r, lighter(colour, 0.62))
        s.disc(x, y, r * 0.86, colour)
        s.disc(x - 0.8 * dx * r, y - 0.8 * dy * r, r * 0.45, lighter(colour, 1.22))
    s.clutter("lane lane pond hamlet plot", 1)


def _river(s: Canvas) -> None:
    s.country()
    s.clutter("plot copse", 2)
    bend = meander(s.rng, s.between(0.015, 0.2))
    path = along(bend)
    width = s.between(0.15, 0.32) * (1 + 0.12 * s.rng.normal(0, 1) * np.sin(np.linspace(0, s.between(3, 12), 49)))
    if s.chance(0.6):  # wooded or sandy banks
        s.band(path, width + s.between(0.03, 0.1), s.pick((WOOD, SAND, SOIL, GRASS)))
    s.ground_photo(s.mask(outline(path, width)), s.pick(WATERS, 8), 0.7)
    if s.chance(0.25):
        s.polygon(blob(s.rng, *path[s.rng.integers(18, 31)], 0.04, 2), s.pick((SAND, WOOD, GRASS)))
    if s.chance(0.5):
        for k in s.rng.integers(0, 49, 24):
            off = (width[k] / 2 + s.between(0, 0.07)) * (1 if s.chance(0.5) else -1)
            s.tree(path[k, 0], path[k, 1] + off, s.between(0.012, 0.03))
    if s.chance(0.15):  # a bridge
        s.band(np.array([[0.1, -1.3], [0.1, 1.3]]), 0.045, s.pick((CONCRETE, ASPHALT)))
    s.clutter("lane hamlet copse", 1)


def _motorway(s: Canvas) -> None:
    s.country()
    s.clutter("plot hamlet copse pond", 2)
    bend = s.between(-0.16, 0.16) * np.linspace(-1.3, 1.3, 49) ** 2
    lanes = s.rng.integers(2, 4)
    lane = s.between(0.026, 0.036)
    median = s.between(0.025, 0.07)
    asphalt = s.pick((ASPHALT, (120, 118, 114), (142, 140, 134)), 8)
    half = lanes * lane
    s.band(along(bend), 2 * half + median + s.between(0.04, 0.12), s.pick((GRASS, DRY, MEADOW), 8))
    for sign in (-1, 1):
        middle = bend + sign * (half + median) / 2
        s.band(along(middle), half + 0.012, asphalt)
        for k in range(1, lanes):
            s.dashes(along(middle + (k - lanes / 2) * lane), 0.005, 0.04, 0.05, (220, 220, 215))
        for _ in range(s.rng.poisson(s.between(1, 9))):
            k = s.rng.integers(0, lanes)
            x = s.between(-0.8, 0.8)
            y = np.interp(x, np.linspace(-1.3, 1.3, 49), middle) + (k + 0.5 - lanes / 2) * lane
            s.car(x, y, 0, s.between(0.03, 0.075) if s.chance(0.25) else 0.034)
    if s.chance(0.2):  # an overpass
        x = s.between(-0.35, 0.35)
        over = np.array([[x, -1.3], [x + s.between(-0.3, 0.3), 1.3]])
        s.band(over + s.shadow * 0.03, 0.07, (45, 45, 48))
        s.band(over, 0.07, s.pick((CONCRETE, ASPHALT)))
    if s.chance(0.25):  # a slip road
        s.band(along(bend + half + median / 2 + 0.05 + 0.12 * np.linspace(-1, 1.6, 49) ** 2), 0.035, asphalt)
    s.trees(s.rng.integers(0, 12))


def _parking_lot(s: Canvas) -> None:
    s.country()
    w, h = s.between(0.6, 1.1), s.between(0.5, 1.0)
    lot = s.pick((ASPHALT, (124, 122, 120), CONCRETE), 10)
    s.clutter("lane hamlet copse plot", 2)
    s.ground_photo(s.mask(box(0, 0, w, h, 0)), lot, 0.6)
    bay, depth = s.between(0.024, 0.036), s.between(0.06, 0.085)
    aisle = s.between(0.05, 0.085)
    full = s.between(0.25, 0.97)
    lines = lighter(lot, s.between(1.25, 1.8))
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
        s.block(0, h / 2 + 0.18, w * s.between(0.5, 1), 0.3, 0, s.pick((CONCRETE, (190, 188, 184), ROOFS[2])), 0.03)
    s.trees(s.rng.integers(0, 8))


def _dense_housing(s: Canvas) -> None:
    s.fill(s.pick((GRASS, DRY, (140, 134, 118), WOOD)), s.pick((GRASS, CONCRETE)))
    street = s.pick((ASPHALT, (128, 126, 122)), 8)
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
        s.band(along(y), width, street)
        for x in s.rng.uniform(-0.8, 0.8, s.rng.integers(0, 7)):
            s.car(x, y + width * 0.22, 0, 0.026)
    for x in np.arange(-0.9 + s.between(0, cross), 0.9, cross):
        s.band(np.array([[x, -1.3], [x, 1.3]]), width, street)
    for x, y in s.rng.uniform(-0.75, 0.75, (s.rng.integers(0, 70), 2)):
        s.tree(x, y, s.between(0.01, 0.022))
    if s.chance(0.25):
        s.clutter("pond plot copse", 1)


def _storage_tanks(s: Canvas) -> None:
    s.fill(s.pick((CONCRETE, DRY, SOIL, GRASS)), s.pick((CONCRETE, DRY, GRASS)))
    s.clutter("lane plot copse", 2)
    radius = s.between(0.09, 0.17)
    gap = radius * s.between(2.2, 3.0)
    colour = s.pick(((232, 232, 228), (208, 208, 204), (214, 206, 186)), 10)
    columns, rows = s.rng.integers(1, 5), s.rng.integers(1, 5)
    if s.chance(0.6):  # walls around the yard
        yard = box(0, 0, columns * gap + 0.06, rows * gap + 0.06, 0)
        s.polygon(yard, s.pick((CONCRETE, SOIL, DRY)))
        s.draw.line(s.pixels(np.concatenate([yard, yard[:1]])), fill=rgb(s.tint((196, 192, 184))), width=ZOOM - 1)
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
                s.draw.polygon(s.pixels(ring(x + off[0], y + off[1], r, 22)), fill=(56, 56, 60))
            s.polygon(ring(x, y, r, 22), lighter(tank, 0.82))
            s.polygon(ring(x, y, r * 0.9, 22), tank)
            if s.chance(0.5):  # a floating roof lies lower: a crescent of shade
                off = s.shadow * r * 0.12
                s.polygon(ring(x, y, r * 0.86, 22), lighter(tank, 0.7))
                s.polygon(ring(x + off[0], y + off[1], r * 0.76, 22), lighter(tank, 0.95))
            s.disc(x, y, r * 0.1, lighter(tank, 0.75))
    for _ in range(s.rng.integers(0, 4)):  # pipes
        y = s.between(-0.5, 0.5)
        s.band(np.array([[-0.6, y], [0.6, y]]), 0.008, s.tint((190, 188, 182)))
    s.clutter("hamlet trees_few", 1)


def _runway(s: Canvas) -> None:
    s.fill(s.pick((GRASS, MEADOW, DRY)), s.pick((GRASS, DRY, SOIL)))
    s.clutter("plot pond copse", 1)
    width = s.between(0.22, 0.36)
    tarmac = s.pick((ASPHALT, (120, 118, 116), (150, 148, 142)), 8)
    white = (228, 228, 224)
    end = s.between(-0.42, 0.05) if s.chance(0.65) else -1.3
    strip = np.array([[end, 0.0], [1.3, 0.0]])
    s.band(strip + np.array([[-0.02, 0], [0, 0]]), width + s.between(0.02, 0.07), lighter(tarmac, 1.13))
    s.ground_photo(s.mask(outline(strip, width)), tarmac, 0.6)
    for edge in (-1, 1):
        s.band(strip + (0, edge * width * 0.45), 0.007, white)
    if end > -1:
        for y in np.linspace(-0.38, 0.38, 8) * width:  # the threshold's piano keys
            s.band(np.array([[end + 0.03, y], [end + 0.13, y]]), width * 0.055, white)
    s.dashes(np.stack([np.linspace(max(end, -1.3) + 0.2, 1.3, 40), np.zeros(40)], 1), 0.012, 0.09, 0.07, white)
    if s.chance(0.6):  # rubber marks of landings
        for y in (-0.1, 0.1):
            start = max(end, -0.5) + s.between(0.15, 0.3)
            s.band(np.array([[start, y * width], [start + 0.4, y * width]]), width * 0.12, lighter(tarmac, 0.8))
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


def _beach(s: Canvas) -> None:
    water = np.array(s.pick(WATERS[:2] + ((70, 128, 140), (54, 104, 128)), 10))
    s.fill(tuple(water), tuple(water * s.between(0.75, 1.0)), 2)
    shore = along(meander(s.rng, s.between(0.01, 0.08)) + s.between(-0.15, 0.12))
    below = np.array([[1.3, 1.6], [-1.3, 1.6]])
    sand = s.pick((SAND, (196, 176, 136), (178, 160, 128)), 10)
    for k in range(3, 0, -1):  # shallow water
        shallow = water + (np.array(sand) - water) * 0.13 * (4 - k)
        s.polygon(np.concatenate([shore - (0, 0.035 * k), below]), tuple(shallow))
    s.ground_photo(s.mask(np.concatenate([shore, below])), sand, 0.8)
    for k in range(s.rng.integers(0, 4)):  # breakers
        wave = shore - (0, 0.012 + 0.045 * k) + np.stack([np.zeros(49), meander(s.rng, 0.008)], 1)
        s.dashes(wave, 0.012, s.between(0.2, 0.9), s.between(0.02, 0.3), (226, 232, 232))
    width = s.between(0.07, 0.28)
    dune = shore + np.stack([np.zeros(49), width + meander(s.rng, 0.03)], 1)
    land = np.concatenate([dune, below])
    s.ground_photo(s.mask(land), s.pick((GRASS, WOOD, MEADOW, DRY, SOIL)), 1.5)
    if s.chance(0.6):
        for _ in range(40):
            k = s.rng.integers(0, 49)
            s.tree(dune[k, 0], dune[k, 1] + s.between(0.02, 0.5), s.between(0.012, 0.03))
    if s.chance(0.3):
        road = dune + (0, s.between(0.08, 0.16))
        s.band(road, 0.035, s.pick((ASPHALT, CONCRETE)))
    if s.chance(0.3):
        for _ in range(s.rng.integers(3, 12)):
            k = s.rng.integers(5, 44)
            s.house(dune[k, 0], dune[k, 1] + s.between(0.15, 0.4), 0.07, 0.05, 0)
    if s.chance(0.5):  # people and parasols
        for _ in range(s.rng.integers(4, 30)):
            k = s.rng.integers(0, 49)
            s.disc(shore[k, 0], shore[k, 1] + s.between(0.1, 0.9) * width, 0.007, s.pick(CARS, 30))


def _harbour(s: Canvas) -> None:
    water = s.pick(WATERS, 10)
    s.fill(water, lighter(water, s.between(0.8, 1.1)), 2)
    quay = s.between(0.12, 0.4)
    s.ground_photo(
        s.mask(np.array([[-1.3, quay], [1.3, quay], [1.3, 1.6], [-1.3, 1.6]])),
        s.pick((CONCRETE, ASPHALT, DRY, GRASS)),
        1.0,
    )
    pier = s.pick((CONCRETE, (186, 180, 168), (150, 132, 108)), 8)
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
        s.polygon(blob(s.rng, x, y, 0.02, 2.5), (230, 230, 228))
    for _ in range(s.rng.integers(0, 6)):
        s.house(s.between(-0.7, 0.7), quay + s.between(0.08, 0.3), s.between(0.06, 0.16), s.between(0.05, 0.1), 0)
    for x in s.rng.uniform(-0.7, 0.7, s.rng.integers(0, 12)):
        s.car(x, quay + 0.04, np.pi / 2, 0.03)


def _golf_course(s: Canvas) -> None:
    s.fill(s.pick((GRASS, MEADOW, WOOD), 8), s.pick((WOOD, GRASS), 8))
    fairway = s.pick(((124, 158, 84), (140, 166, 92), (112, 146, 78)), 8)
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
                s.tint((224, 210, 172), 8),
            )
    for x, y in s.rng.uniform(-0.75, 0.75, (s.rng.integers(10, 70), 2)):
        s.tree(x, y, s.between(0.014, 0.032))
    s.clutter("pond lane copse", 2)


def _solar_park(s: Canvas) -> None:
    s.fill(s.pick((GRASS, DRY, MEADOW, SOIL)), s.pick((GRASS, DRY)))
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
            s.block(middle, y, table - 0.014, depth, 0, lighter(panel, s.between(0.9, 1.1)), 0.014)
            s.block(middle, y - depth / 2, table - 0.02, 0.005, 0, (170, 180, 196))
    if s.chance(0.4):
        s.band(np.array([[s.between(-0.3, 0.3), -1], [s.between(-0.3, 0.3), 1]]), 0.03, s.pick((DRY, CONCRETE)))
    s.clutter("hamlet trees_few", 1)


SCENES: dict[str, Callable[[Canvas], None]] = {
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
