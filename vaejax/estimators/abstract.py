"""Copies of distributions without tracers, which may leave the trace that built them."""

import copy
import functools
import types
from typing import Any

import jax
import numpy as np


def without_tracers(value: Any) -> Any:
    """Returns ``value`` with an array of the same shape and type in place of every tracer in it.

    Types, shapes, properties and methods stay usable, but the numbers mean nothing: ½ everywhere, 0 for integers.
    The arrays are views of one number and need no memory. What holds no tracer is returned as it is. A function
    that closes over a tracer becomes None, because it could not be called after the trace.

    Args:
        value: a distribution, or tuples, lists and dictionaries of them.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from vaejax.dists import diagonal_normal
        >>> facts = []
        >>> def build(x):
        ...     facts.append(without_tracers(diagonal_normal(x, jnp.ones(3))))
        >>> jax.eval_shape(build, jnp.zeros((5, 3)))
        >>> type(facts[0]).__name__, facts[0].distribution.loc.shape
        ('Independent', (5, 3))
    """
    return _copied(value, set())


def _stand_in(tracer: Any) -> Any:
    if jax.dtypes.issubdtype(tracer.dtype, jax.dtypes.extended):  # Keys have no NumPy array.
        return jax.ShapeDtypeStruct(tracer.shape, tracer.dtype)
    # ½ is a scale, a probability and a logit, so that what distributions compute from it is finite.
    return np.broadcast_to(np.asarray(0.5).astype(tracer.dtype), tracer.shape)


def _copied(value: Any, path: set[int]) -> Any:
    if isinstance(value, jax.core.Tracer):
        return _stand_in(value)
    if id(value) in path or isinstance(value, type | types.ModuleType | jax.Array):
        return value
    path = path | {id(value)}
    if isinstance(value, types.FunctionType):
        return _function(value, path)
    if isinstance(value, types.MethodType):
        holder = _copied(value.__self__, path)
        return value if holder is value.__self__ else types.MethodType(value.__func__, holder)
    if isinstance(value, functools.partial):
        parts = _copied([value.func, value.args, value.keywords], path)
        unchanged = parts[1] is value.args and parts[2] is value.keywords and parts[0] is value.func
        return value if unchanged else None
    if isinstance(value, dict):
        entries = {name: _copied(item, path) for name, item in value.items()}
        return value if all(entries[name] is value[name] for name in entries) else entries
    if isinstance(value, tuple | list):
        items = [_copied(item, path) for item in value]
        if all(new is old for new, old in zip(items, value)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return _instance(value, path)


def _function(value: types.FunctionType, path: set[int]) -> Any:
    cells = []
    for cell in value.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # A name that is not bound yet.
            continue
    values = [cells, value.__defaults__, value.__kwdefaults__]
    return value if all(_copied(item, path) is item for item in values) else None


def _instance(value: Any, path: set[int]) -> Any:
    attributes = getattr(value, "__dict__", None)
    if not isinstance(attributes, dict):
        return value
    replaced = _copied(attributes, path)
    if replaced is attributes:
        return value
    result = copy.copy(value)
    # Not setattr: frozen dataclasses are refused there.
    vars(result).update(replaced)
    return result
