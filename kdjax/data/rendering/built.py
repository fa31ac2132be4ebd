"""Scenes of the demo in which buildings and roads prevail."""

from __future__ import annotations

import numpy as np

from kdjax.data.rendering.canvas import Canvas, along, blob, box, outline, ring
from kdjax.data.rendering.palette import (
    ASPHALT,
    CELL,
    CONCRETE,
    DRY,
    EARTH,
    GRASS,
    HULLS,
    MEADOW,
    PAINT,
    ROOFS,
    SHADE,
    SOIL,
    STONE,
    TAR,
    WATERS,
    WOOD,
    lighter,
)


def motorway(s: Canvas) -> None:
    """Two carriageways of several lanes with cars, some with an overpass or a slip road."""
    s.country()
    s.clutter("plot hamlet copse pond", 2)
    bend = s.between(-0.16, 0.16) * np.linspace(-1.3, 1.3, 49) ** 2
    lanes = s.rng.integers(2, 4)
    lane = s.between(0.026, 0.036)
    median = s.between(0.025, 0.07)
    asphalt = s.pick((ASPHALT, (120, 118, 114, *TAR), (142, 140, 134, *STONE)), 8)
    half = lanes * lane
    s.band(along(bend), 2 * half + median + s.between(0.04, 0.12), s.pick((GRASS, DRY, MEADOW), 8))
    for sign in (-1, 1):
        middle = bend + sign * (half + median) / 2
        s.band(along(middle), half + 0.012, asphalt)
        for k in range(1, lanes):
            s.dashes(along(middle + (k - lanes / 2) * lane), 0.005, 0.04, 0.05, (220, 220, 215, *PAINT))
        for _ in range(s.rng.poisson(s.between(1, 9))):
            at = s.rng.integers(0, lanes)
            x = s.between(-0.8, 0.8)
            y = np.interp(x, np.linspace(-1.3, 1.3, 49), middle) + (at + 0.5 - lanes / 2) * lane
            s.car(x, float(y), 0, s.between(0.03, 0.075) if s.chance(0.25) else 0.034)
    if s.chance(0.2):  # an overpass
        x = s.between(-0.35, 0.35)
        over = np.array([[x, -1.3], [x + s.between(-0.3, 0.3), 1.3]])
        s.band(over + s.shadow * 0.03, 0.07, (45, 45, 48, *SHADE))
        s.band(over, 0.07, s.pick((CONCRETE, ASPHALT)))
    if s.chance(0.25):  # a slip road
        s.band(along(bend + half + median / 2 + 0.05 + 0.12 * np.linspace(-1, 1.6, 49) ** 2), 0.035, asphalt)
    s.trees(int(s.rng.integers(0, 12)))


def parking_lot(s: Canvas) -> None:
    """Double rows of bays, mostly full, some beside a shop."""
    s.country()
    w, h = s.between(0.6, 1.1), s.between(0.5, 1.0)
    lot = s.pick((ASPHALT, (124, 122, 120, *TAR), CONCRETE), 10)
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
    if s.chance(0.45):  # the shop next to it
        roofs = (CONCRETE, (190, 188, 184, *STONE), ROOFS[2])
        s.block(0, h / 2 + 0.18, w * s.between(0.5, 1), 0.3, 0, s.pick(roofs), 0.03)
    s.trees(int(s.rng.integers(0, 8)))


def dense_housing(s: Canvas) -> None:
    """Parallel streets lined with houses on small plots."""
    s.fill(s.pick((GRASS, DRY, (140, 134, 118, *EARTH), WOOD)), s.pick((GRASS, CONCRETE)))
    street = s.pick((ASPHALT, (128, 126, 122, *TAR)), 8)
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


def storage_tanks(s: Canvas) -> None:
    """A grid of round tanks of one color, mostly in a walled yard."""
    s.fill(s.pick((CONCRETE, DRY, SOIL, GRASS)), s.pick((CONCRETE, DRY, GRASS)))
    s.clutter("lane plot copse", 2)
    radius = s.between(0.09, 0.17)
    gap = radius * s.between(2.2, 3.0)
    color = s.pick(((232, 232, 228, *PAINT), (208, 208, 204, *PAINT), (214, 206, 186, *PAINT)), 10)
    columns, rows = s.rng.integers(1, 5), s.rng.integers(1, 5)
    if s.chance(0.6):  # walls around the yard
        yard = box(0, 0, columns * gap + 0.06, rows * gap + 0.06, 0)
        s.polygon(yard, s.pick((CONCRETE, SOIL, DRY)))
        s.line(np.concatenate([yard, yard[:1]]), s.tint((196, 192, 184, *STONE)))
    missing = 0.12 if columns * rows > 2 else 0.0
    for i in range(columns):
        for j in range(rows):
            if s.chance(missing):
                continue
            x, y = (i - (columns - 1) / 2) * gap, (j - (rows - 1) / 2) * gap
            r = radius * (s.between(0.5, 0.8) if s.chance(0.2) else s.between(0.92, 1.05))
            tank = s.tint(color, 6)
            for t in np.linspace(1, 0.2, 4):
                off = s.shadow * r * 0.45 * t
                s.polygon(ring(x + off[0], y + off[1], r, 22), (56, 56, 60, *SHADE))
            s.polygon(ring(x, y, r, 22), lighter(tank, 0.82))
            s.polygon(ring(x, y, r * 0.9, 22), tank)
            if s.chance(0.5):  # a floating roof lies lower: a crescent of shade
                off = s.shadow * r * 0.12
                s.polygon(ring(x, y, r * 0.86, 22), lighter(tank, 0.7))
                s.polygon(ring(x + off[0], y + off[1], r * 0.76, 22), lighter(tank, 0.95))
            s.disc(x, y, r * 0.1, lighter(tank, 0.75))
    for _ in range(s.rng.integers(0, 4)):  # pipes
        pipe = s.between(-0.5, 0.5)
        s.band(np.array([[-0.6, pipe], [0.6, pipe]]), 0.008, s.tint((190, 188, 182, *PAINT)))
    s.clutter("hamlet trees_few", 1)


def runway(s: Canvas) -> None:
    """A marked runway, or one end of it, some with a taxiway or an airplane."""
    s.fill(s.pick((GRASS, MEADOW, DRY)), s.pick((GRASS, DRY, SOIL)))
    s.clutter("plot pond copse", 1)
    width = s.between(0.22, 0.36)
    tarmac = s.pick((ASPHALT, (120, 118, 116, *TAR), (150, 148, 142, *STONE)), 8)
    white = (228, 228, 224, *PAINT)
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
    if s.chance(0.35):  # a taxiway next to it, with a link
        y = width / 2 + s.between(0.12, 0.25)
        s.band(np.array([[-1.3, y], [1.3, y]]), width * 0.4, tarmac)
        s.dashes(np.array([[-1.3, y], [1.3, y]]), 0.006, 2.6, 0.1, (196, 176, 80, *PAINT))
        x = s.between(-0.3, 0.4)
        s.band(np.array([[x, 0], [x + s.between(0, 0.2), y]]), width * 0.36, tarmac)
    if s.chance(0.25):  # an airplane
        x, y = s.between(-0.2, 0.4), 0.0
        body = s.tint((232, 232, 235, *PAINT), 5)
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


def harbor(s: Canvas) -> None:
    """A quay with piers, and boats at their berths."""
    water = s.pick(WATERS, 10)
    s.fill(water, lighter(water, s.between(0.8, 1.1)), 2)
    quay = s.between(0.12, 0.4)
    s.ground_photo(
        s.mask(np.array([[-1.3, quay], [1.3, quay], [1.3, 1.6], [-1.3, 1.6]])),
        s.pick((CONCRETE, ASPHALT, DRY, GRASS)),
        1.0,
    )
    pier = s.pick((CONCRETE, (186, 180, 168, *STONE), (150, 132, 108, *EARTH)), 8)
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
                s.shadowed(hull, s.pick(HULLS, 8), 0.008)
                if s.chance(0.5):
                    s.block(
                        x + side * boat * 0.45,
                        y,
                        boat * 0.3,
                        0.25 * berth,
                        0,
                        s.pick(((90, 100, 116, *PAINT), (180, 160, 130, *PAINT)), 10),
                    )
    for _ in range(s.rng.integers(0, 4)):  # boats under way, sheds ashore
        x, y = s.between(-0.5, 0.5), quay - length - s.between(0.05, 0.4)
        s.polygon(blob(s.rng, x, y, 0.02, 2.5), (230, 230, 228, *PAINT))
    for _ in range(s.rng.integers(0, 6)):
        s.house(s.between(-0.7, 0.7), quay + s.between(0.08, 0.3), s.between(0.06, 0.16), s.between(0.05, 0.1), 0)
    for x in s.rng.uniform(-0.7, 0.7, s.rng.integers(0, 12)):
        s.car(x, quay + 0.04, np.pi / 2, 0.03)


def solar_park(s: Canvas) -> None:
    """Rows of panels, the tables of each row side by side."""
    s.fill(s.pick((GRASS, DRY, MEADOW, SOIL)), s.pick((GRASS, DRY)))
    s.clutter("copse plot lane", 1)
    panel = s.pick(((40, 52, 84, *CELL), (30, 36, 52, *CELL), (60, 78, 112, *CELL), (52, 56, 70, *CELL)), 8)
    depth, gap = s.between(0.03, 0.07), s.between(0.02, 0.06)
    w, h = s.between(0.7, 1.5), s.between(0.6, 1.4)
    table = s.between(0.2, 0.6)
    for y in np.arange(-h / 2, h / 2, depth + gap):
        for x in np.arange(-w / 2, w / 2, table):
            if s.chance(0.05):
                continue
            middle = x + table / 2
            s.block(middle, y, table - 0.014, depth, 0, lighter(panel, s.between(0.9, 1.1)), 0.014)
            s.block(middle, y - depth / 2, table - 0.02, 0.005, 0, (170, 180, 196, *PAINT))
    if s.chance(0.4):
        s.band(np.array([[s.between(-0.3, 0.3), -1], [s.between(-0.3, 0.3), 1]]), 0.03, s.pick((DRY, CONCRETE)))
    s.clutter("hamlet trees_few", 1)
