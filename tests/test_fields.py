"""Each kind of check of a field's value: what passes, and its message."""

import math

import pytest

from kdjax.errors import InputError
from kdjax.fields import INT32_MAX, check_choice, check_number, check_whole, is_list


def test_what_is_allowed_passes():
    check_choice("f", "a", {"a": 1, "b": 2})
    check_whole("f", 3, 3, 3)
    check_whole("f", INT32_MAX, 0)
    check_number("f", 0, least=0, most=0)
    check_number("f", -1.5)
    check_number("f", 0.5, above=0, below=1)
    assert is_list([1]) and is_list(()) and not is_list("ab") and not is_list(7)


@pytest.mark.parametrize("value", ["3", 3.0, True, None, 2, 5])
def test_a_whole_number_is_an_int_within_its_limits(value):
    with pytest.raises(InputError) as error:
        check_whole("dataset.size", value, 3, 4)
    assert str(error.value) == f"dataset.size is {value!r}: give a whole number of at least 3 and at most 4"


def test_the_limit_of_int32_is_named_only_beyond_it():
    with pytest.raises(InputError, match="^seeds is -1: give a whole number of at least 0$"):
        check_whole("seeds", -1, 0)
    with pytest.raises(InputError, match="^seeds is 2147483648: give a whole number of at least 0 and at most 2147483"):
        check_whole("seeds", INT32_MAX + 1, 0)


@pytest.mark.parametrize("value", ["1", True, None, math.nan, math.inf])
def test_a_number_is_finite(value):
    with pytest.raises(InputError, match=f"^f is {value!r}: give a finite number$"):
        check_number("f", value)


@pytest.mark.parametrize(
    "value, limits, rule",
    [
        (0, {"above": 0}, "above 0"),
        (-1, {"least": 0}, "at least 0"),
        (1.0, {"below": 1}, "below 1"),
        (1.1, {"most": 1}, "at most 1"),
        (0, {"above": 0, "most": 1}, "above 0 and at most 1"),
        (1, {"least": 0, "below": 1}, "at least 0 and below 1"),
    ],
)
def test_a_number_out_of_range_is_told_all_its_limits(value, limits, rule):
    with pytest.raises(InputError) as error:
        check_number("f", value, **limits)
    assert str(error.value) == f"f is {value!r}: must be {rule}"


def test_a_choice_is_one_of_those_named():
    with pytest.raises(InputError, match="^dtype is 'half': choose one of float32, bfloat16$"):
        check_choice("dtype", "half", ("float32", "bfloat16"))
