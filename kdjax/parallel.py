"""The mapped device axis. No other module knows `jax.pmap`.

A step is a pure function of one device's share. Over several devices it is mapped with `jax.pmap`, on one it is
compiled with `jax.jit`, and both compute the same. The state is replicated and comes out with `out_axes=None`: there
are no stacked copies.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"


class Mapping:
    """How steps run on the devices of this run, over all its processes.

    Args:
        devices: the devices of all processes, in the order of the axis. Default: all there are.
    """

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        self.devices = tuple(devices or jax.devices())
        self.local = tuple(d for d in self.devices if d.process_index == jax.process_index())
        self.axis_name = AXIS if len(self.devices) > 1 else None
        self._mesh = Mesh(np.array(self.devices), (AXIS,))
        self.global_sharding = NamedSharding(self._mesh, PartitionSpec())
        self._replicated = NamedSharding(Mesh(np.array(self.local), (AXIS,)), PartitionSpec())

    def map(self, step: Callable[..., Any], *, split: Sequence[bool], donate: Sequence[int] = ()) -> Callable[..., Any]:
        """Compiles `step(*args, axis_name=...)` for the devices.

        Args:
            step: a pure function of one device's share whose result is the same on every device.
            split: for each argument, True where it comes from `split`, False where it comes from `replicate`.
            donate: indices of the arguments whose memory the result may take.
        """
        step = functools.partial(step, axis_name=self.axis_name)
        if self.axis_name is None:
            return jax.jit(step, donate_argnums=tuple(donate))
        return jax.pmap(
            step,
            axis_name=self.axis_name,
            in_axes=tuple(0 if one else None for one in split),
            out_axes=None,
            devices=None if self.devices == tuple(jax.devices()) else self.devices,
            donate_argnums=tuple(donate),
        )

    def replicate(self, tree: Any) -> Any:
        """Places a tree of arrays whole on every device of this process."""
        return jax.device_put(tree, self._replicated if self.axis_name else self.local[0])

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
            return tree
        return multihost_utils.host_local_array_to_global_array(
            jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree), self._mesh, PartitionSpec()
        )

    def from_global(self, tree: Any) -> Any:
        """The inverse of `to_global`."""
        if jax.process_count() > 1:
            tree = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)
        return self.replicate(tree)
