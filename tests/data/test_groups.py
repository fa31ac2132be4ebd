"""Whole groups are dealt out, and what belongs together is found."""

import numpy as np
import pytest
from PIL import Image

from kdjax.data import near_duplicates
from kdjax.data.groups import connected_groups, deal


def test_examples_are_connected_by_any_key_also_through_others():
    first, second = ["a", "b", "a", None, "c", None], ["x", "y", None, "y", "x", None]
    assert connected_groups(first, second).tolist() == [0, 1, 0, 1, 0, 2]
    assert connected_groups(first, second, pairs=[(5, 3)]).tolist() == [0, 1, 0, 1, 0, 1]
    assert connected_groups([None, None]).tolist() == [0, 1]


def test_groups_are_numbered_in_the_order_of_their_first_examples():
    """A split is dealt by these numbers: in another order, one seed would draw another split."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        groups = connected_groups(rng.integers(0, 40, 60).tolist(), pairs=rng.integers(0, 60, (5, 2)))
        numbers, first = np.unique(groups, return_index=True)
        assert numbers.tolist() == list(range(len(numbers))) and (np.diff(first) > 0).all()


def material(seed=0, groups=80, count=1500, classes=6):
    """Groups of unlike sizes, each with a class that is more common there; the last class is rare."""
    rng = np.random.default_rng(seed)
    group = rng.zipf(1.7, count) % groups
    label = np.where(rng.random(count) < 0.6, group % (classes - 1), rng.integers(0, classes, count))
    return group, label


@pytest.mark.parametrize("shares", [(0.2, 0.8), (0.25,) * 4])
def test_no_group_is_divided_and_every_class_is_shared_out(shares):
    # The largest groups are left out: no deal could balance what they hold.
    group, label = material()
    large = np.bincount(group).argsort()[-6:]
    group, label = group[~np.isin(group, large)], label[~np.isin(group, large)]
    part = deal(group, label, shares, purpose="test", seed=3)
    assert all(len(set(part[group == one])) == 1 for one in np.unique(group))
    counts = np.stack([np.bincount(label[part == k], minlength=6) for k in range(len(shares))])
    np.testing.assert_allclose(counts / counts.sum(0), np.array(shares)[:, None].repeat(6, 1), atol=0.08)


def test_the_deal_depends_on_seed_and_purpose_and_on_nothing_else():
    group, label = np.arange(60) // 2, np.arange(60) // 2 % 3
    first = deal(group, label, (0.2, 0.8), purpose="test", seed=3)
    np.testing.assert_array_equal(deal(group, label, (0.2, 0.8), purpose="test", seed=3), first)
    assert (deal(group, label, (0.2, 0.8), purpose="test", seed=4) != first).any()
    assert (deal(group, label, (0.2, 0.8), purpose="validation", seed=3) != first).any()


@pytest.mark.parametrize("sizes", [np.arange(5, 25), np.array([310, 255, 200, 170, 120, 90, 60, 41])])
def test_another_seed_deals_groups_of_unlike_sizes_otherwise_and_as_evenly(sizes):
    """All sizes differ, so that no two groups are tied."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    label = np.random.default_rng(0).integers(0, 3, len(group))
    held = [deal(group, label, (0.2, 0.8), purpose="test", seed=seed) == 0 for seed in range(20)]
    assert len({part.tobytes() for part in held}) > 4
    assert len(np.unique(np.concatenate([group[part] for part in held]))) > len(sizes) / 2  # each place is tested once
    shares = np.array([[part[label == k].mean() for k in range(3)] for part in held])
    np.testing.assert_allclose(shares.mean(1), 0.2, atol=0.06)
    np.testing.assert_allclose(shares, 0.2, atol=0.1)


def test_examples_without_a_label_count_for_nothing_and_stay_with_their_group():
    group, label = np.arange(40) // 4, np.where(np.arange(40) % 4 == 3, -1, 0)
    part = deal(group, label, (0.5, 0.5), purpose="test", seed=0)
    assert [len(set(part[group == one])) for one in range(10)] == [1] * 10
    assert np.bincount(part[label == 0]).tolist() == [15, 15]


def test_every_part_gets_a_group_where_there_are_enough():
    part = deal(np.arange(3), np.zeros(3, int), (0.05, 0.05, 0.9), purpose="test", seed=0)
    assert sorted(part) == [0, 1, 2]
    with pytest.raises(ValueError, match="2 groups for 3 parts"):
        deal(np.array([0, 0, 1]), np.zeros(3, int), (0.2, 0.2, 0.6), purpose="test", seed=0)


def pictures(count=40, side=48):
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (count, 6, 6, 3), np.uint8)
    return np.stack([Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC) for one in coarse])


def test_turned_dimmed_and_shifted_pictures_are_near_duplicates():
    images = pictures()
    images[7] = np.rot90(images[3], 3)[:, ::-1]
    images[20] = (images[11] * 0.7 + 20).astype(np.uint8)
    images[30] = np.roll(images[25], 1, axis=0)
    found = near_duplicates.pairs(near_duplicates.thumbnails(images))
    assert found == [(3, 7), (11, 20), (25, 30)]


def test_the_closest_is_that_of_a_loop(monkeypatch):
    small = near_duplicates.thumbnails(pictures(20, 16))
    held, others = small[:9], small[9:]
    monkeypatch.setattr(near_duplicates, "_IMAGES_AT_ONCE", 4)
    best, place = near_duplicates.closest(held, others)
    for row, one in enumerate(held):
        symmetries = [np.rot90(m, k) for m in (one, one[:, ::-1]) for k in range(4)]
        each = np.array([[np.sum(turned * other) for other in others] for turned in symmetries])
        assert best[row] == pytest.approx(each.max(), abs=1e-5)
        assert each.max(0)[place[row]] == pytest.approx(each.max(), abs=1e-5)


def test_plain_surfaces_of_like_color_are_none():
    rng = np.random.default_rng(0)
    images = np.clip(120 + rng.normal(0, 4, (12, 32, 32, 3)), 0, 255).astype(np.uint8)
    assert near_duplicates.pairs(near_duplicates.thumbnails(images)) == []


def test_pictures_are_compared_where_both_have_data():
    images = pictures(30, 96)
    images[:20, :, :48] = 0  # beyond the edge of the data, which is resized with them
    images = np.stack([Image.fromarray(one).resize((48, 48), Image.Resampling.LANCZOS) for one in images])
    images[3] = np.rot90(images[25])
    images[3, :30] = 0
    images[9] = 0
    small = near_duplicates.thumbnails(images)
    assert near_duplicates.pairs(small) == [(3, 25)]
    best, place = near_duplicates.closest(small[:20], small[20:])
    assert (best[3], place[3], best[9]) == (pytest.approx(1, abs=0.01), 5, 0) and (np.delete(best, 3) < 0.9).all()
    known = ~np.isnan(np.rot90(small[3], 3)[..., 0])
    ours, theirs = (one[known] - one[known].mean(0) for one in (np.rot90(small[3], 3), small[25]))
    assert best[3] == pytest.approx(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1], abs=1e-5)
    images[3, :40] = 0  # too little is left
    assert near_duplicates.pairs(near_duplicates.thumbnails(images)) == []


def test_a_rare_class_is_shared_out_as_well_as_a_common_one():
    deviations = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(30), rng.integers(2, 40, 30))
        rare = (rng.random(len(group)) < 0.06) & (rng.random(30) < 0.4)[group]
        part = deal(group, rare.astype(int), (0.2, 0.8), purpose="test", seed=seed)
        deviations.append(abs((part[rare] == 0).mean() - 0.2))
    assert np.mean(deviations) < 0.06  # it would be 0.12 if classes weighed as much as they are common
