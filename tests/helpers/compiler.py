"""XLA's flags for tests, which compile much and compute little."""


def flags(devices: int) -> str:
    """XLA_FLAGS of a process with so many virtual devices; set them before JAX computes.

    Without fusion emitters (`--xla_cpu_use_fusion_emitters=false`) XLA compiles in half the time, but in jaxlib 0.10 a
    resize then comes out wrong by a tenth.
    """
    return " ".join(
        (
            f"--xla_force_host_platform_device_count={devices}",
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
        )
    )
