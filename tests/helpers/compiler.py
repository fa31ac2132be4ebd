"""XLA's flags for tests, which compile much and compute little."""


def flags(devices: int) -> str:
    """XLA_FLAGS of a process with so many virtual devices; set them before JAX computes.

    Without its fusion emitters (`--xla_cpu_use_fusion_emitters=false`) XLA would compile in half the time, but as jaxlib
    0.10 has them, a resize comes out wrong by a tenth.
    """
    return " ".join(
        (
            f"--xla_force_host_platform_device_count={devices}",
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
        )
    )
