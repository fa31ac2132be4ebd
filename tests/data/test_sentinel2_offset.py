"""Sentinel-2's offset in some of the images, by values that are sure in the cirrus band and likely in others."""

from types import SimpleNamespace

import numpy as np
import pytest

from kdjax.data import sentinel2_offset
from kdjax.data.bands import SENSORS, Bands
from kdjax.data.meaning import Meaning
from kdjax.data.pixels import Decoded
from kdjax.errors import InputError

RNG = np.random.default_rng(0)


def meaning(sensor, names=None):
    known = SENSORS[sensor]
    return Meaning(known.value_range, ("16-bit",), bands=Bands(names or known.orders[0], known.orders))


def images(sensor, added, names=None, dark=200):
    """Stored tiles of land, to a part of which the offset was added; cirrus is nearly black without it."""
    trained = meaning(sensor, names)
    (low, high), bands = trained.value_range, trained.names
    values = RNG.integers(dark, 3000, (len(added), 21, 21, len(bands))).astype(float)
    if "B10" in bands:
        values[..., bands.index("B10")] = RNG.integers(5, 30, values.shape[:3])
    values += 1000.0 * np.asarray(added)[:, None, None, None]
    return np.clip(np.rint((values - low) / (high - low) * 65535), 0, 65535).astype(np.uint16)


def check(sensor, names=None, **splits):
    section = {"sensor": sensor, "value_range": ()}
    return sentinel2_offset.check(section, splits, meaning(sensor, names))


@pytest.mark.parametrize("share", [0.5, 0.96])
def test_one_sensor_has_the_offset_or_has_it_not(share):
    added = np.arange(100) < 100 * share
    with pytest.raises(InputError, match=f"of land in {100 * share:.0f} of 100 images no value is below 1000 in B10"):
        check("sentinel2_l1c", land=images("sentinel2_l1c", added))
    if share == 0.5:
        with pytest.raises(InputError, match=r"% of the values are at most 1000.*set it to 'sentinel2_l1c'"):
            check("sentinel2_l1c_offset", land=images("sentinel2_l1c_offset", added))


@pytest.mark.parametrize(
    ("sensor", "few", "was"), [("sentinel2_l1c", True, "was"), ("sentinel2_l1c_offset", False, "was not")]
)
def test_a_few_of_the_other_kind_are_told(sensor, few, was):
    added = (np.arange(100) < 4) == few
    (note,) = check(sensor, land=images(sensor, added))
    assert note.startswith(
        f"warning: of land, in 4 of 100 images Sentinel-2's offset {was} added, unlike in the others"
    )
    assert check(sensor, land=images(sensor, np.full(100, not few))) == []


def test_each_split_is_judged_on_its_own():
    """All unlabeled tiles are of another time than the labeled ones."""
    sensor = "sentinel2_l1c"
    splits = {"old": images(sensor, np.zeros(90)), "new": images(sensor, np.ones(10))}
    with pytest.raises(InputError, match="but of new no value is below 1000 in B10, .*'sentinel2_l1c_offset'"):
        check(sensor, **splits)
    assert check(sensor, old=splits["old"]) == []


def test_without_cirrus_bright_land_is_allowed():
    sensor, names = "sentinel2_l2a", ("B04", "B03", "B08")
    land, desert = images(sensor, np.zeros(60), names), images(sensor, np.zeros(40), names, dark=1500)
    assert check(sensor, names, land=np.concatenate([land, desert])) == []
    assert check(sensor, names, land=np.concatenate([land[:2], desert[:10]])) == []  # a handful shows little
    with pytest.raises(InputError, match="in 40 of 70 images no value is below 1000 in B04, B03"):
        check(sensor, names, land=np.concatenate([land[:30], desert]))
    with pytest.raises(InputError, match="of land no value is below 1000 in B04, B03"):
        check(sensor, names, land=desert[:10])


def test_images_without_data_count_for_neither():
    evidence = sentinel2_offset.OffsetEvidence.for_training(meaning("sentinel2_l1c"))
    evidence.add(np.zeros((10, 13)))
    assert (evidence.images, evidence.count, evidence.contradiction, evidence.mixed) == (0, 0, None, None)
    assert sentinel2_offset.OffsetEvidence.for_training(SimpleNamespace(bands=None)) is None


def test_pixels_mixed_with_none_beside_an_edge_do_not_show_that_there_is_no_offset():
    """Resizing makes values from 0 on between the last pixels with data and the first without."""
    stored = images("sentinel2_l1c", np.full(30, True))
    stored[:, :, :6] = 0
    stored[:, :, 6:9] //= np.array([8, 4, 2], np.uint16)[:, None]
    with pytest.raises(InputError, match="of land no value is below 1000 in B10"):
        check("sentinel2_l1c", land=stored)
    evidence = sentinel2_offset.OffsetEvidence.for_training(meaning("sentinel2_l1c"))
    evidence.add_stored(stored)
    assert evidence.images == evidence.against == 30 and evidence.below == 0


def test_pixels_that_a_wrong_name_makes_black_in_all_bands_contradict_it():
    """Vegetation without the offset lies below 1000 in all visible bands, and is no pixel without data."""
    names = ("B04", "B03", "B02")
    trained = meaning("sentinel2_l2a_offset", names)
    values = RNG.integers(150, 700, (20, 21, 21, 3)).astype(np.uint16)
    values[:, :5, :5] = RNG.integers(1300, 2800, (5, 5, 3))  # roofs
    land = np.stack([trained.to_stored(Decoded(image, ())) for image in values])
    with pytest.raises(InputError, match=r"of land 8\d % of the values are at most 1000, .*'sentinel2_l2a'"):
        check("sentinel2_l2a_offset", names, land=land)
    values += 1000
    values[:10, :, :14] = 0  # beyond the edge of the swath, which not every file says
    valid = np.broadcast_to(np.arange(21) >= 14, (21, 21))
    masks = [valid if k % 2 and k < 10 else None for k in range(20)]
    edge = [trained.to_stored(Decoded(image, (), mask)) for image, mask in zip(values, masks, strict=True)]
    assert check("sentinel2_l2a_offset", names, land=np.stack(edge)) == [] and not edge[1][:, :14].any()
