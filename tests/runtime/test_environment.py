"""What results say of the machine and the packages."""

import jax
import numpy as np

from kdjax.runtime.environment import environment


def test_environment_names_versions_and_devices():
    facts = environment()
    assert facts["jax"] == jax.__version__ and facts["numpy"] == np.__version__
    for name in ("python", "jaxlib", "flax", "optax", "orbax", "platform", "cpu_count", "xla_flags"):
        assert name in facts
    assert sum(d["count"] for d in facts["devices"]) == jax.device_count()
