"""Which logit of a foreign network is which class."""

import unicodedata

import numpy as np
import pytest

from kdjax.networks.classes import class_places


@pytest.mark.parametrize("source", ["file", "field"])
def test_names_are_one_however_their_accents_are_coded(source):
    """A data set has them in NFC; files and folders made on macOS have them in NFD."""
    classes = tuple(unicodedata.normalize("NFC", name) for name in ("champ", "forêt"))
    theirs = [unicodedata.normalize("NFD", name) for name in ("forêt", "route", "champ")]
    assert theirs[0] != classes[1]
    given = (theirs, ()) if source == "file" else (None, theirs)
    np.testing.assert_array_equal(class_places("weights w", *given, classes), [2, 0])
