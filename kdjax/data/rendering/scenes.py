"""The classes of the demo: each paints one land use on a canvas.

Things of other classes appear as clutter (a road through fields, a pond, a few houses, trees), so that neither color
nor one texture gives a class away.
"""

from __future__ import annotations

from collections.abc import Callable

from kdjax.data.rendering import built, land
from kdjax.data.rendering.canvas import Canvas

SCENES: dict[str, Callable[[Canvas], None]] = {
    "crop_rows": land.crop_rows,
    "forest": land.forest,
    "river": land.river,
    "motorway": built.motorway,
    "parking_lot": built.parking_lot,
    "dense_housing": built.dense_housing,
    "storage_tanks": built.storage_tanks,
    "runway": built.runway,
    "beach": land.beach,
    "harbour": built.harbor,  # British spelling, because existing results use this name
    "golf_course": land.golf_course,
    "solar_park": built.solar_park,
}
