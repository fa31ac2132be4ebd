"""What JSON is given, whatever was measured."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from kdjax.runtime.plain import plain


def test_json_never_holds_nan():
    assert plain({"a": [1.0, math.nan], "b": (math.inf, "x")}, "x") == {"a": [1.0, None], "b": [None, "x"]}


def test_arrays_configs_and_paths_become_python_values():
    config = ml_collections.ConfigDict({"a": {"b": (1, 2.5)}})
    config.a.d = ml_collections.config_dict.placeholder(int)
    given = {
        "config": config,
        "arrays": [np.arange(2), jnp.asarray([1.5, jnp.nan]), np.float32(0.5), np.int64(7), np.bool_(True)],
        3: Path("a/b"),
    }
    found = plain(given, "results")
    assert found == {
        "config": {"a": {"b": [1, 2.5], "d": None}},
        "arrays": [[0, 1], [1.5, None], 0.5, 7, True],
        "3": "a/b",
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert type(found["arrays"][4]) is bool and type(found["arrays"][3]) is int


def test_what_json_does_not_know_is_named_by_its_place():
    with pytest.raises(TypeError, match=r"results\.config\.x\[1\]: a object"):
        plain({"config": {"x": [1, object()]}}, "results")
