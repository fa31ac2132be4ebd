"""The mapped device axis. No other module knows `jax.pmap`.

A step is a pure function of one device's share. Over several devices it is mapped with `jax.pmap`, on one it is
compiled with `jax.jit`, and both compute the same. The state is replicated and comes out with `out_axes=None`: there
are no stacked copies.

A population with at least as many students as devices may share out its students instead of the batch (`RowMapping`):
each device trains some of them on whole batches, and the devices need not talk to each other.

A CPU is one device to JAX, and the small operations of a network keep one core busy. So `split_cpu` makes a device of
each core for the students of a population. All else runs on the first of them, with all cores at its disposal.

What is shared out, and how, follows from the kind of an argument:
    "rows"    leaves lead with (seed, arm), or are scalars
    "arms"    leaves lead with (arm,)
    "seeds"   leaves lead with (seed,)
    "plan"    leaves lead with (step, seed, batch), and come from `split`
    "batch"   leaves lead with (batch,), and come from `split`
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
    """Makes so many devices of this machine's CPU, for students to be shared out over. Call before JAX has devices.

    Nothing is done where the user says how many there are (XLA_FLAGS=--xla_force_host_platform_device_count=N or
    JAX_NUM_CPU_DEVICES=N), which then share batches like those of an accelerator, nor in one of several processes.
    Where JAX has its devices already, they stay as they are.
    """
    global _split
    given = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if given or jax.config.values["jax_num_cpu_devices"] > 0 or jax.distributed.is_initialized() or number < 2:
        return
    try:
        jax.config.update("jax_num_cpu_devices", number)
    except RuntimeError:
        return
    _split = True


def _cores() -> bool:
    """Whether the devices are those that `split_cpu` made."""
    return _split and jax.default_backend() == "cpu"


class DeviceMapping:
    """How steps run on the devices of this run, over all its processes.

    Args:
        devices: the devices of all processes, in the order of the axis. Default: all there are, but one of those that
            `split_cpu` made.

    Attributes:
        shape: numbers of devices along the seeds and along the arms of a population, None where a batch is shared out.
    """

    shape: tuple[int, int] | None = None

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        self.devices = tuple(devices or jax.devices()[: 1 if _cores() else None])
        self.local = tuple(d for d in self.devices if d.process_index == jax.process_index())
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
            kinds: the kind of each argument, see above.
            out: the kind of the result: "whole", or "rows" without scalars. Or the result is a tuple of trees with the
                structure of arguments: their indices.
            donate: indices of the arguments whose memory the result may take.
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
        """What `place` would give, as shapes alone: a program that is compiled for it is the one that is called.

        Args:
            tree: arrays or their shapes and dtypes.
            kind: as `place` takes it.
        """
        placed = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.tree.map(placed, tree, self._shardings(tree, kind))

    def _shardings(self, tree: Any, kind: str) -> Any:
        """Where the leaves of a tree lie."""
        del kind  # here all devices hold the whole
        whole = self._replicated if self.axis_name else SingleDeviceSharding(self.local[0])
        return jax.tree.map(lambda leaf: whole, tree)

    def rows_a_device(self, seeds: int, arms: int) -> tuple[int, int]:
        """How many seeds and arms of a population of (seeds, arms) each device trains."""
        return seeds, arms

    def split(self, tree: Any, axis: int = 0) -> Any:
        """This process's shares of a tree of host arrays that are the same in every process.

        Args:
            tree: arrays whose `axis` has the length of the global batch, divisible by the number of devices.
            axis: the axis to share out.

        Returns:
            On several devices the leaves lead with (local devices,); on one they are as they were.
        """
        if self.axis_name is None:
            return tree

        def share(array: np.ndarray) -> np.ndarray:
            pieces = np.split(array, len(self.devices), axis=axis)
            return np.stack([pieces[self.devices.index(device)] for device in self.local])

        return jax.tree.map(share, tree)

    def to_global(self, tree: Any) -> Any:
        """A replicated tree as arrays that span all processes, as checkpoints need them."""
        if jax.process_count() == 1:
            if self.axis_name is None:
                return tree
            # One copy: of several, orbax writes a slice each, and compiles a program for every shape.
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
    """Connects the devices of all processes. Call it as soon as the processes know each other, in all of them.

    The first collective over a set of devices connects them, and on CPU (Gloo) fails where one process comes to it 30 s
    after another, as one does that compiles or decodes for longer. Collectives of connected devices wait for minutes.

    Raises:
        InputError: processes have unlike numbers of devices.
    """
    if jax.process_count() == 1:
        return
    numbers = collections.Counter(device.process_index for device in jax.devices())
    if len(set(numbers.values())) > 1:
        listed = ", ".join(str(numbers[process]) for process in sorted(numbers))
        raise InputError(f"the processes of this run have {listed} devices: give all of them the same number")
    shares = np.zeros(jax.local_device_count(), np.float32)
    jax.block_until_ready(jax.pmap(functools.partial(jax.lax.psum, axis_name=AXIS), axis_name=AXIS)(shares))
    # Connects the first devices of each process with each other, the second ones, and so on.
    least(first_process_says(0))


def barrier(what: str) -> None:
    """Waits until all processes are here.

    Args:
        what: what has happened when they are, the same text in every process.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def first_process_says(answer: int) -> int:
    """The answer of the first process, in every process: where only that one can tell, or all must do the same."""
    if jax.process_count() == 1:
        return answer
    return int(multihost_utils.broadcast_one_to_all(np.int32(answer)))


def least(number: float) -> int:
    """The smallest of the numbers that the processes hand over, rounded down, in every process.

    For what each measures on its own machine and all must decide alike. Large ones are rounded to 24 bits.
    """
    if jax.process_count() == 1:
        return int(number)
    return int(multihost_utils.process_allgather(np.float32(number)).min())


def same(text: str) -> bool:
    """Whether all processes hand over the same text: an answer that is the same in all of them."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
    return bool(least(first_process_says(number) == number))


_SPECS = {
    "rows": PartitionSpec("seeds", "arms"),
    "arms": PartitionSpec("arms"),
    "seeds": PartitionSpec("seeds"),
    "plan": PartitionSpec(None, "seeds"),
    "batch": PartitionSpec(),
    "whole": PartitionSpec(),
}


class RowMapping(DeviceMapping):
    """Students shared out over the devices of one process, in place of the batch.

    Args:
        shape: numbers of devices along the seeds and along the arms; each divides its axis.
        devices: so many devices. Default: the first.
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
    """The mappings a population may be trained with, the fastest first.

    Students are shared out where there is one process, and where the devices divide into a number that divides the
    seeds times one that divides the arms. Else the batch is shared out.

    Devices that `split_cpu` made need not all be used. More of them take more of the memory that they share, so there
    are mappings of fewer for where that is short; the last has one.
    """
    if _cores():
        shapes = (_shape(number, seeds, arms) for number in range(jax.device_count(), 1, -1))
        return [*(RowMapping(shape) for shape in shapes if shape), DeviceMapping()]
    alone = jax.device_count() > 1 and jax.process_count() == 1
    shape = _shape(jax.device_count(), seeds, arms) if alone else None
    return [RowMapping(shape) if shape else DeviceMapping()]


def _shape(number: int, seeds: int, arms: int) -> tuple[int, int] | None:
    """So many devices along the seeds and along the arms, as many of them along the seeds as can be."""
    for along_seeds in range(number, 0, -1):
        along_arms, rest = divmod(number, along_seeds)
        if rest == 0 and seeds % along_seeds == 0 and arms % along_arms == 0:
            return along_seeds, along_arms
    return None
