"""The plan is a fair, pure function of (seed, step)."""

import numpy as np

from kdjax.inputs.plan import Groups, Plan


def test_every_example_once_an_epoch_and_every_view_once_a_round():
    plan = Plan((0, 5), examples=10, batch_size=4, views=3)
    examples, views, places = (np.concatenate(one, axis=1) for one in zip(*map(plan, range(15)), strict=True))
    for row in range(2):
        for epoch in range(6):
            assert sorted(examples[row, epoch * 10 : (epoch + 1) * 10]) == list(range(10))
        pairs = list(zip(examples[row, :30], views[row, :30], strict=True))
        assert sorted(pairs) == [(example, view) for example in range(10) for view in range(3)]
    assert np.any(examples[0] != examples[1])
    np.testing.assert_array_equal(places[0], np.tile(np.arange(4), 15))


def test_a_step_does_not_depend_on_the_steps_before():
    fresh = Plan((1,), 10, 4, 3)(7)
    plan = Plan((1,), 10, 4, 3)
    for step in range(7):
        plan(step)
    np.testing.assert_array_equal(np.stack(plan(7)), np.stack(fresh))


def test_a_seed_does_not_depend_on_its_neighbors():
    np.testing.assert_array_equal(Plan((4, 9), 10, 4, 3)(2)[0][1], Plan((9,), 10, 4, 3)(2)[0][0])


def test_without_a_pool_views_do_not_come_again():
    plan = Plan((0,), examples=50, batch_size=50, views=0)
    views = np.concatenate([plan(step)[1].ravel() for step in range(20)])
    assert len(np.unique(views)) == len(views)


def test_every_epoch_and_every_seed_has_an_order_of_its_own():
    plan = Plan((0, 5), examples=10, batch_size=10, views=3)
    orders = [tuple(plan(step)[0][row]) for step in range(5) for row in range(2)]
    assert len(set(orders)) == len(orders)
    again = Plan((0, 5), examples=10, batch_size=10, views=3)
    assert [tuple(again(step)[0][row]) for step in range(5) for row in range(2)] == orders


def test_groups_train_on_rows_of_their_own():
    """A group's plan is the plan of its rows alone, whatever the others do."""
    rows = (1, 4, 6, 7)
    groups = Groups((Plan((0, 5), 10, 4, 3), Plan((0, 5), 10, 4, 3, rows=rows)))
    examples, views, places = groups(7)
    assert examples.shape == views.shape == (2, 2, 4) and (groups.examples, groups.batch_size) == (10, 4)
    alone = Plan((0, 5), len(rows), 4, 3)
    np.testing.assert_array_equal(examples[:, 0], Plan((0, 5), 10, 4, 3)(7)[0])
    np.testing.assert_array_equal(examples[:, 1], np.array(rows)[alone(7)[0]])
    np.testing.assert_array_equal(views[:, 1], alone(7)[1])
    np.testing.assert_array_equal(places[:, 0], places[:, 1])


def test_partners_are_of_the_same_rows_and_shown_in_their_own_views():
    rows = (3, 5, 8, 11, 20, 21)
    plan = Plan((0, 1), 30, 6, views=4, partners=True, rows=rows)
    for step in range(5):  # an epoch a step
        examples, views, _, partners, partner_views = plan(step)
        for row in range(2):
            shown = dict(zip(examples[row].tolist(), views[row].tolist(), strict=True))
            assert set(partners[row].tolist()) == set(rows)
            assert [shown[one] for one in partners[row].tolist()] == partner_views[row].tolist()
