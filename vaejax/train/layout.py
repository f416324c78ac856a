"""Layouts of arrays over devices, with axes that the compiler may divide as it sees fit."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding


def automatic(sharding: Any) -> Any:
    """Returns the same layout on a mesh with automatic axes.

    `jax.make_mesh` makes explicit axes since JAX 0.9. Those put the layout into an array's type, and operations of a training
    step that mix rows (a gather of a batch, a mean) then need a layout of their result.

    Raises:
        TypeError: not a `jax.sharding.Sharding`.
    """
    if sharding is None:
        return None
    if not isinstance(sharding, jax.sharding.Sharding):
        raise TypeError(
            f"sharding must be a jax.sharding.Sharding, got {type(sharding).__name__}. "
            "Pass jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))."
        )
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh):
        return sharding
    mesh = sharding.mesh
    if all(kind == AxisType.Auto for kind in mesh.axis_types):
        return sharding
    mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    return NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind)


def on_automatic_axes(tree: Any) -> Any:
    """Returns the arrays of a tree, those with explicit axes moved to the same devices with automatic ones."""

    def move(leaf: Any) -> Any:
        layout = automatic(leaf.sharding) if isinstance(leaf, jax.Array) else None
        return leaf if layout is None or layout is leaf.sharding else jax.device_put(leaf, layout)

    return jax.tree.map(move, tree)


def check_divisible(sharding: Any, batch_size: int) -> None:
    """Refuses a batch that cannot be divided evenly over the devices of its leading axis.

    Raises:
        ValueError: the batch size is not a multiple of the number of parts.
    """
    if isinstance(sharding, NamedSharding) and len(sharding.spec) and sharding.spec[0] is not None:
        names = sharding.spec[0] if isinstance(sharding.spec[0], tuple) else (sharding.spec[0],)
        parts = 1
        for name in names:
            parts *= sharding.mesh.shape[name]
        if batch_size % parts:
            raise ValueError(
                f"batch_size must be a multiple of {parts}, the devices of the leading axis of sharding, got {batch_size}. "
                f"Pass batch_size={max(parts, batch_size - batch_size % parts)}."
            )
