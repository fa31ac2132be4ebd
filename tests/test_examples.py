"""The examples run, and show what they say they do."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from helpers.finished_run import unchanged_networks

BY_HAND = Path(__file__).resolve().parents[1] / "examples" / "by_hand.py"


@pytest.mark.slow
def test_by_hand_trains_a_population_on_stored_logits(monkeypatch):
    unchanged_networks(monkeypatch)
    tiny.get_config()  # the whole networks would be compiled for minutes
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: one)  # eight take three times as long
    averages = runpy.run_path(str(BY_HAND))["main"]()
    alone, taught = 0, 1
    for values in averages.values():
        assert values.shape == (2, 2) and np.isfinite(values).all()
    weighed = averages["ce"] + averages["kl"] + averages["cosine"]
    np.testing.assert_allclose(averages["loss"][:, taught], weighed[:, taught], rtol=1e-5)
    np.testing.assert_allclose(averages["loss"][:, alone], averages["ce"][:, alone], rtol=1e-5)
    assert len(BY_HAND.read_text(encoding="utf-8").splitlines()) <= 80
