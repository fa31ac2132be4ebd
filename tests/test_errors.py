"""Words of the messages that end a run."""

from kdjax import errors


def test_a_reason_is_one_short_line():
    assert errors.reason(ValueError("two\n  lines")) == "two lines"
    assert errors.reason(ValueError()) == "ValueError" and len(errors.reason(ValueError("x" * 999), 50)) == 50
