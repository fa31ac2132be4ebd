"""Words of the messages that end a run."""

from kdjax import errors


def test_a_reason_is_one_short_line():
    assert errors.one_line(ValueError("two\n  lines")) == "two lines"
    assert errors.one_line(ValueError()) == "ValueError" and len(errors.one_line(ValueError("x" * 999), 50)) == 50
