"""Maps steps over devices. No other module uses `jax.pmap`.

A step is a pure function of one device's share. It is mapped over several devices with `jax.pmap`, or compiled for one
with `jax.jit`, and computes the same in both cases. The state is replicated, and `out_axes=None` returns it without
stacked copies.

A population with at least as many students as devices may divide its students over them instead of the batch
(`RowMapping`): each device trains some students on whole batches, and the devices need not communicate.

To JAX, a CPU is one device, but the small operations of a network keep only one core busy. So `split_cpu` makes several
devices of a CPU, for the students of a population. Everything else runs on the first of these, with all cores.

The kind of an argument decides which axes are divided over the devices:
    "rows"    leaves have the leading axes (seed, arm), or are scalars
    "arms"    leaves have the leading axis (arm,)
    "seeds"   leaves have the leading axis (seed,)
    "plan"    leaves have the leading axes (step, seed, batch), and come from `split`
    "batch"   leaves have the leading axis (batch,), and come from `split`
    "whole"   the same on every device
"""

import collections
import functools
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from kdjax.errors import InputError

AXIS = "devices"

_split = False


def split_cpu(number: int) -> None:
    """Makes `number` devices of this machine's CPU to divide students over. Call it before JAX creates its devices.

    It does nothing if the user sets the number of devices (XLA_FLAGS=--xla_force_host_platform_device_count=N or
    JAX_NUM_CPU_DEVICES=N), in one of several processes, or if JAX has created its devices already. Devices that the
    user requests divide batches, like those of an accelerator.
    """
    global _split
    set_by_flag = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if set_by_flag or jax.config.values["jax_num_cpu_devices"] > 0 or jax.distributed.is_initialized() or number < 2:
        return
    try:
        jax.config.update("jax_num_cpu_devices", number)
    except RuntimeError:
        return
    _split = True


def _is_split() -> bool:
    """Whether the devices are those that `split_cpu` made."""
    return _split and jax.default_backend() == "cpu"


class DeviceMapping:
    """Runs steps on the devices of a run, over all its processes.

    Args:
        devices: the devices of all processes, in the order of the axis. Default: all devices, but only the first of
            those that `split_cpu` made.

    Attributes:
        shape: numbers of devices along the seeds and along the arms of a population; None if the batch is divided.
    """

    shape: tuple[int, int] | None = None

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        self.devices = tuple(devices or jax.devices()[: 1 if _is_split() else None])
        self.local = tuple(device for device in self.devices if device.process_index == jax.process_index())
        self.axis_name = AXIS if len(self.devices) > 1 else None
        self._mesh = Mesh(np.array(self.devices), (AXIS,))
        self.global_sharding = NamedSharding(self._mesh, PartitionSpec())
        self._replicated = NamedSharding(Mesh(np.array(self.local), (AXIS,)), PartitionSpec())

    def map(
        self,
        step: Callable[..., Any],
        kinds: Sequence[str],
        out: str | tuple[int, ...] = "whole",
        *,
        donate: Sequence[int] = (),
    ) -> Callable[..., Any]:
        """Compiles `step(*args, axis_name=...)` for the devices.

        Args:
            step: a pure function of one device's share whose result is the same on every device.
            kinds: the kind of each argument, see the docstring of this module.
            out: the kind of the result: "whole", or "rows" without scalars. If the result is a tuple of trees that have
                the structure of arguments, the indices of these arguments.
            donate: indices of the arguments whose memory the result may reuse.
        """
        step = functools.partial(step, axis_name=self.axis_name)
        if self.axis_name is None:
            return jax.jit(step, donate_argnums=tuple(donate))
        return jax.pmap(
            step,
            axis_name=self.axis_name,
            in_axes=tuple(0 if kind in ("plan", "batch") else None for kind in kinds),
            out_axes=None,
            devices=None if self.devices == tuple(jax.devices()) else self.devices,
            donate_argnums=tuple(donate),
        )

    def place(self, tree: Any, kind: str = "whole") -> Any:
        """Puts a tree of arrays of a kind other than "plan" and "batch" on the devices of this process."""
        return jax.device_put(tree, self._shardings(tree, kind))

    def layout(self, tree: Any, kind: str = "whole") -> Any:
        """Returns the shapes, dtypes and shardings of what `place` would return.

        A program that is compiled for these is the one that a call with the arrays uses.

        Args:
            tree: arrays, or their shapes and dtypes.
            kind: as `place` takes it.
        """
        described = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.tree.map(described, tree, self._shardings(tree, kind))

    def _shardings(self, tree: Any, kind: str) -> Any:
        """Returns the sharding of each leaf of a tree."""
        del kind  # in this mapping, all devices hold whole arrays
        whole = self._replicated if self.axis_name else SingleDeviceSharding(self.local[0])
        return jax.tree.map(lambda leaf: whole, tree)

    def rows_a_device(self, seeds: int, arms: int) -> tuple[int, int]:
        """Returns how many seeds and arms of a population of (seeds, arms) each device trains."""
        return seeds, arms

    def split(self, tree: Any, axis: int = 0) -> Any:
        """Returns this process's share of a tree of host arrays that are the same in every process.

        Args:
            tree: arrays whose `axis` has the length of the global batch, divisible by the number of devices.
            axis: the axis to divide.

        Returns:
            The tree, whose leaves get the leading axis (local devices,) if there are several devices.
        """
        if self.axis_name is None:
            return tree

        def share(array: np.ndarray) -> np.ndarray:
            pieces = np.split(array, len(self.devices), axis=axis)
            return np.stack([pieces[self.devices.index(device)] for device in self.local])

        return jax.tree.map(share, tree)

    def to_global(self, tree: Any) -> Any:
        """Returns a replicated tree as arrays that span all processes, as checkpoints need them."""
        if jax.process_count() == 1:
            if self.axis_name is None:
                return tree
            # A single copy: of several, orbax would write a slice each, and compile a program for every shape.
            return jax.tree.map(lambda x: x.addressable_data(0), tree)
        return multihost_utils.host_local_array_to_global_array(
            jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree), self._mesh, PartitionSpec()
        )

    def from_global(self, tree: Any) -> Any:
        """The inverse of `to_global`."""
        if jax.process_count() > 1:
            tree = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)
        return self.place(tree, "rows")


def meet() -> None:
    """Connects the devices of all processes. Call it in every process as soon as the processes are connected.

    The first collective over a set of devices connects them. On CPU (Gloo) it fails if one process arrives 30 s after
    another, for example because it compiles or decodes for longer. Collectives of connected devices wait for minutes.

    Raises:
        InputError: the processes have different numbers of devices.
    """
    if jax.process_count() == 1:
        return
    numbers = collections.Counter(device.process_index for device in jax.devices())
    if len(set(numbers.values())) > 1:
        listed = ", ".join(str(numbers[process]) for process in sorted(numbers))
        raise InputError(f"the processes of this run have {listed} devices: give all of them the same number")
    shares = np.zeros(jax.local_device_count(), np.float32)
    jax.block_until_ready(jax.pmap(functools.partial(jax.lax.psum, axis_name=AXIS), axis_name=AXIS)(shares))
    # These connect the first device of each process with the first ones of the others, and so on.
    smallest(first_process_says(0))


def barrier(what: str) -> None:
    """Waits until all processes have reached this point.

    Args:
        what: name of the point, the same text in every process.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def first_process_says(answer: int) -> int:
    """Returns the first process's answer in every process, if only that one can tell or all must do the same."""
    if jax.process_count() == 1:
        return answer
    return int(multihost_utils.broadcast_one_to_all(np.int32(answer)))


def smallest(number: float) -> int:
    """Returns, in every process, the smallest of the numbers that the processes pass, rounded down.

    This is for numbers that each process measures on its own machine, if all processes must decide alike. Large numbers
    are rounded to 24 bits.
    """
    if jax.process_count() == 1:
        return int(number)
    return int(multihost_utils.process_allgather(np.float32(number)).min())


def same(text: str) -> bool:
    """Whether all processes pass the same text; the answer is the same in all of them."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
    return bool(smallest(first_process_says(number) == number))


_SPECS = {
    "rows": PartitionSpec("seeds", "arms"),
    "arms": PartitionSpec("arms"),
    "seeds": PartitionSpec("seeds"),
    "plan": PartitionSpec(None, "seeds"),
    "batch": PartitionSpec(),
    "whole": PartitionSpec(),
}


class RowMapping(DeviceMapping):
    """Divides students, rather than the batch, over the devices of one process.

    Args:
        shape: numbers of devices along the seeds and along the arms; each must divide the length of its axis.
        devices: as many devices as `shape` needs. Default: the first ones.
    """

    def __init__(self, shape: tuple[int, int], devices: Sequence[jax.Device] | None = None):
        super().__init__(devices or jax.devices()[: math.prod(shape)])
        self.axis_name = None
        self.shape = shape
        self._rows = Mesh(np.array(self.devices).reshape(shape), ("seeds", "arms"))

    def map(
        self,
        step: Callable[..., Any],
        kinds: Sequence[str],
        out: str | tuple[int, ...] = "whole",
        *,
        donate: Sequence[int] = (),
    ) -> Callable[..., Any]:
        """See `DeviceMapping.map`."""
        step = functools.partial(step, axis_name=None)

        def mapped(*args: Any) -> Any:
            specs = tuple(self._specs(arg, kind) for arg, kind in zip(args, kinds, strict=True))
            result = _SPECS[out] if isinstance(out, str) else tuple(specs[index] for index in out)
            return jax.shard_map(step, mesh=self._rows, in_specs=specs, out_specs=result, check_vma=False)(*args)

        return jax.jit(mapped, donate_argnums=tuple(donate))

    def rows_a_device(self, seeds: int, arms: int) -> tuple[int, int]:
        """See `DeviceMapping.rows_a_device`."""
        along_seeds, along_arms = self._rows.devices.shape
        return seeds // along_seeds, arms // along_arms

    def _shardings(self, tree: Any, kind: str) -> Any:
        return jax.tree.map(lambda spec: NamedSharding(self._rows, spec), self._specs(tree, kind))

    def _specs(self, tree: Any, kind: str) -> Any:
        spec = _SPECS[kind]
        return jax.tree.map(lambda leaf: spec if np.ndim(leaf) >= len(spec) else PartitionSpec(), tree)


def for_population(seeds: int, arms: int) -> list[DeviceMapping]:
    """Returns the mappings that a population may be trained with, the fastest first.

    Students are divided if there is one process, and if the number of devices is the product of a number that divides
    the seeds and one that divides the arms. Otherwise the batch is divided.

    Not all devices that `split_cpu` made need to be used. More of them take more of the memory that they share. In case
    that is short, the list includes mappings with fewer devices, and the last one has a single device.
    """
    if _is_split():
        shapes = (_shape(number, seeds, arms) for number in range(jax.device_count(), 1, -1))
        return [*(RowMapping(shape) for shape in shapes if shape), DeviceMapping()]
    one_process = jax.device_count() > 1 and jax.process_count() == 1
    shape = _shape(jax.device_count(), seeds, arms) if one_process else None
    return [RowMapping(shape) if shape else DeviceMapping()]


def _shape(number: int, seeds: int, arms: int) -> tuple[int, int] | None:
    """Arranges `number` devices along the seeds and along the arms, as many as possible along the seeds."""
    for along_seeds in range(number, 0, -1):
        along_arms, rest = divmod(number, along_seeds)
        if rest == 0 and seeds % along_seeds == 0 and arms % along_arms == 0:
            return along_seeds, along_arms
    return None
