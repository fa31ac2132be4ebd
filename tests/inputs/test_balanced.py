"""Balanced draws against closed forms of how often a class, an example and a view come."""

import numpy as np
import pytest

from kdjax.inputs.balanced import most_visits
from kdjax.inputs.plan import Plan

LABELS = (0,) * 11 + (-1,) * 4 + (2,) * 3 + (3,) * 2
"""Eleven, three and two labeled examples of three classes (there is none of the class 1), and four without a label."""
COUNT, LABELLED, CLASSES = len(LABELS), 16, 3
OF = np.array(LABELS)


def plan(views=3, batch_size=8, **fields):
    return Plan((0, 5), COUNT, batch_size, views, labels=LABELS, **fields)


def drawn(made, epochs):
    """Examples and views of so many epochs, (seed, draw), cut out of the steps."""
    count = len(made.rows) if made.rows else COUNT
    steps = -(-epochs * count // made.batch_size)
    parts = [made(step) for step in range(steps)]
    return [np.concatenate(one, axis=1)[:, : epochs * count] for one in zip(*parts, strict=True)]


@pytest.mark.parametrize("epochs", [1, 2, 3, 30])
def test_classes_are_drawn_equally_often_and_the_unlabeled_once_an_epoch(epochs):
    examples = drawn(plan(), epochs)[0]
    for row in examples:
        counts = np.bincount(row, minlength=COUNT)
        assert (counts[OF < 0] == epochs).all()
        of_class = [counts[OF == label].sum() for label in (0, 2, 3)]
        assert sum(of_class) == epochs * LABELLED and max(of_class) - min(of_class) <= 1
        for label, total in zip((0, 2, 3), of_class, strict=True):
            # The expected count of an example is draws / examples of its class, and no example is off by one or more.
            size = (OF == label).sum()
            assert abs(total - epochs * LABELLED / CLASSES) < 1
            assert (np.abs(counts[OF == label] - total / size) < 1).all()
    if epochs == 3:
        assert [np.bincount(examples[0], minlength=COUNT)[OF == label].sum() for label in (0, 2, 3)] == [16, 16, 16]
        assert most_visits(LABELS, epochs) == np.bincount(examples[0]).max() == 8


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_no_example_is_drawn_more_often_than_is_said(epochs):
    most = np.bincount(drawn(plan(), epochs)[0][0]).max()
    assert most <= most_visits(LABELS, epochs) <= most + 1
    assert most_visits([0, 0, 1, -1], epochs) == -(-3 * epochs // 2) and most_visits([-1, -1], epochs) == epochs


def test_an_example_walks_through_its_views_before_one_comes_again():
    examples, views, _ = drawn(plan(views=3), 40)
    for row in range(2):
        for example in range(COUNT):
            seen = views[row][examples[row] == example]
            # Within an epoch the order of two visits is drawn, so rounds are told apart by their counts.
            counts = np.bincount(seen, minlength=3)
            assert len(counts) == 3 and counts.max() - counts.min() <= 1
    first = views[:, :COUNT]
    assert len({tuple(one) for one in first}) == 2


def test_without_a_pool_views_do_not_come_again():
    examples, views, _ = drawn(plan(views=0), 20)
    pairs = set(zip(examples[0].tolist(), views[0].tolist(), strict=True))
    assert len(pairs) == 20 * COUNT


def test_a_step_depends_on_its_number_and_seed_alone():
    fresh = [Plan((5,), COUNT, 8, 3, labels=LABELS)(7), Plan((5,), COUNT, 8, 3, labels=LABELS)(123)]
    walked = plan()
    steps = [walked(step) for step in range(124)]
    for one, step in zip(fresh, (7, 123), strict=True):
        for alone, among in zip(one, steps[step], strict=True):
            np.testing.assert_array_equal(alone[0], among[1])
    assert np.any(steps[7][0][0] != steps[7][0][1])
    batches = plan(batch_size=COUNT)  # the sequence is the same however it is cut
    np.testing.assert_array_equal(drawn(batches, 6)[0], drawn(plan(), 6)[0])


def test_every_epoch_has_an_order_of_its_own():
    examples = drawn(plan(), 6)[0].reshape(2, 6, COUNT)
    assert len({tuple(epoch) for row in examples for epoch in row}) == 12


def test_rows_are_drawn_as_if_there_were_no_others():
    rows = tuple(np.flatnonzero(OF >= 0).tolist())
    among = drawn(plan(rows=rows), 3)
    alone = Plan((0, 5), len(rows), 8, 3, labels=tuple(OF[list(rows)].tolist()))
    steps = [alone(step) for step in range(6)]
    for part in (0, 1):
        expected = np.concatenate([step[part] for step in steps], axis=1)
        np.testing.assert_array_equal(among[part], np.array(rows)[expected] if part == 0 else expected)
    assert [(OF[among[0][0]] == label).sum() for label in (0, 2, 3)] == [16, 16, 16]


def test_partners_are_drawn_as_evenly():
    examples, views, _, partners, partner_views = drawn(plan(partners=True), 3)
    for row in range(2):
        for epoch in range(3):
            here = slice(epoch * COUNT, (epoch + 1) * COUNT)
            pairs = [
                sorted(zip(one[row, here], seen[row, here], strict=True))
                for one, seen in ((examples, views), (partners, partner_views))
            ]
            assert pairs[0] == pairs[1]
        assert np.any(examples[row] != partners[row])
