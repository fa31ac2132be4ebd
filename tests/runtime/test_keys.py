"""The keys of seeds, and an environment that would draw other bits of them."""

import pathlib
import re

import jax
import numpy as np
import pytest

import kdjax
from kdjax.errors import InputError
from kdjax.runtime.keys import key


def test_a_key_is_that_of_threefry():
    """Its two words are those of the seed."""
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(jax.random.key_data(key(7)), np.array([0, 7], np.uint32))


def test_an_environment_that_draws_other_bits_is_refused():
    with jax.threefry_partitionable(False), pytest.raises(InputError, match="JAX_THREEFRY_PARTITIONABLE is off"):
        key(0)
    jax.config.update("jax_random_seed_offset", 3)
    try:
        with pytest.raises(InputError, match="JAX_RANDOM_SEED_OFFSET is 3"):
            key(0)
    finally:
        jax.config.update("jax_random_seed_offset", 0)


def test_no_key_is_made_elsewhere():
    folder = pathlib.Path(kdjax.__file__).parent
    texts = {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*.py")}
    made = re.compile(r"random\.(key|PRNGKey|wrap_key_data)\(")
    assert [name for name, text in texts.items() if made.search(text)] == ["runtime/keys.py"]
