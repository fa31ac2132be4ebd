"""Stored outputs that are read in parts are the same numbers as all of them in memory."""

import numpy as np
import pytest

from kdjax.data.rows import Rows
from kdjax.teacher.views import MeanOfViews, Views

VIEWS, EXAMPLES, CLASSES = 3, 10, 5


def outputs(seed, dtype):
    return np.random.default_rng(seed).normal(0, 9, (VIEWS, EXAMPLES, CLASSES)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("teachers", [1, 3])
@pytest.mark.parametrize("mean", [False, True])
def test_a_part_has_the_bits_of_the_whole(dtype, teachers, mean):
    each = [outputs(seed, dtype) for seed in range(teachers)]
    shards = lambda one: Rows((one[:4], one[4:8], one[8:]))
    found = Views([[shards(one[view]) for one in each] for view in range(VIEWS)])
    expected = np.mean(each, axis=0) if teachers > 1 else each[0]
    if mean:
        found, expected = MeanOfViews(found), expected.mean(0, keepdims=True)
    assert found.shape == expected.shape and found.dtype == expected.dtype == dtype
    np.testing.assert_array_equal(np.asarray(found), expected, strict=True)
    rng, expected = np.random.default_rng(7), np.broadcast_to(expected, (VIEWS, *expected.shape[1:]))
    for shape in ((), (1,), (2, 1, 6)):
        place = rng.integers(VIEWS, size=shape), rng.integers(EXAMPLES, size=shape).astype(np.int32)
        np.testing.assert_array_equal(found[place], expected[place], strict=bool(shape))
