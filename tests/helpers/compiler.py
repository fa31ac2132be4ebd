"""XLA's flags for tests, which compile much and compute little."""

from jaxlib.version import __version_info__


def flags(devices: int, *, exact: bool = False) -> str:
    """XLA_FLAGS of a process with so many virtual devices; set them before JAX computes.

    Args:
        devices: how many.
        exact: whether a step gives the same bits in whatever program it lies; compiling then takes up to twice as long.
    """
    given = [
        f"--xla_force_host_platform_device_count={devices}",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
    if not exact and __version_info__ < (0, 11):  # later ones do not know it
        given.append("--xla_cpu_use_fusion_emitters=false")
    return " ".join(given)
