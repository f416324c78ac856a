"""Errors at the door: each says what came, what was wanted and what to do.

Shapes, dtypes and trees are checked everywhere, also while tracing. Values (NaN, range) can be read only from concrete
arrays; inside ``jit`` those checks pass silently, which is why ``fit``, ``init`` and ``data`` call them outside.
"""

import difflib
import math
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import arrays
from vaejax.types import Batch, Model, as_batch


def is_concrete(*values: Any) -> bool:
    """Whether every array of ``values`` can be read now, that is, none is being traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def outside(*packages: str) -> int:
    """The stacklevel, for a warning, of the line outside this package (and of ``packages``) that led to it."""
    level, frame = 1, sys._getframe(1)
    names = ("vaejax.", *(f"{package}." for package in packages))
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(names):
        level, frame = level + 1, frame.f_back
    return level


def params(value: Any, kind: type) -> None:
    """Raises unless ``value`` is a ``kind``, as functions want it that belong to one kind of parameters."""
    if not isinstance(value, kind):
        held = isinstance(getattr(value, "params", None), kind)
        remedy = (
            "pass its .params" if held else f"give a {kind.__name__}, or use the functions of the module that it is of"
        )
        raise TypeError(f"params must be {kind.__name__}, got {type(value).__name__}; {remedy}")


def key(value: Any, name: str = "key") -> None:
    """Raises unless ``value`` is one typed random key, as `jax.random.key` makes."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        came = f"a raw {dtype} array of shape {value.shape}" if dtype is not None else type(value).__name__
        raise TypeError(
            f"{name} must be a typed key, got {came}; make one with jax.random.key(seed) or convert with jax.random.wrap_key_data"
        )
    if value.shape != ():
        raise ValueError(
            f"{name} must be a single key, got an array of keys of shape {value.shape}; use jax.vmap to map over keys"
        )


def positive_int(value: Any, name: str) -> int:
    """Returns ``value`` if it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def seed(value: Any, name: str = "seed") -> int:
    """Returns ``value`` if it is an integer of at least 0, of any size."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(
            f"{name} must be an integer, got {value!r} of type {type(value).__name__}. Pass one that is at least 0."
        )
    if value < 0:
        raise ValueError(f"{name} must be at least 0, got {value}. Use a non-negative integer of any size.")
    return int(value)


def real(
    value: Any, name: str, *, minimum: float = -math.inf, maximum: float = math.inf, open_minimum: bool = False
) -> Any:
    """Returns ``value`` if it is a finite number (or traced scalar) in the closed, or below-open, range."""
    if not is_concrete(value):
        return value
    if isinstance(value, str) or np.ndim(value) != 0 or not np.issubdtype(np.asarray(value).dtype, np.number):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    below = number <= minimum if open_minimum else number < minimum
    if not math.isfinite(number) or below or number > maximum:
        lower = f"greater than {minimum:g}" if open_minimum else f"at least {minimum:g}"
        wanted = [lower] * (minimum > -math.inf) + [f"at most {maximum:g}"] * (maximum < math.inf)
        raise ValueError(f"{name} must be finite{''.join(', ' + w for w in wanted)}, got {number:g}")
    return value


def extended_real(value: Any, name: str) -> Any:
    """Returns ``value`` if it is a number (or traced scalar), plus and minus infinity included."""
    if not is_concrete(value) or np.ndim(value) != 0 or not np.issubdtype(np.asarray(value).dtype, np.number):
        return real(value, name)
    if np.isnan(value):
        raise ValueError(f"{name} must be a number, -inf and inf included, got nan")
    return float(value) if np.isinf(value) else value


def function(value: Any, name: str) -> None:
    """Raises unless ``value`` can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {value!r} of type {type(value).__name__}")


def one_of(value: Any, name: str, options: Iterable[str]) -> str:
    """Returns ``value`` if it is among ``options``; the error suggests the nearest one."""
    options = list(options)
    if value in options:
        return value
    near = difflib.get_close_matches(str(value).lower(), options, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {name} {value!r}{hint} (known: {', '.join(map(repr, options))})")


def event_shape(x: Any, shape: tuple[int, ...], name: str = "x") -> None:
    """Raises unless the last axes of ``x`` are ``shape``."""
    came = tuple(jnp.shape(x))
    if len(came) < len(shape) or came[len(came) - len(shape) :] != tuple(shape):
        first = len(shape) == 3 and came[-3:] == (shape[2], *shape[:2])
        remedy = (
            f"move the channels last: jnp.moveaxis({name}, -3, -1)"
            if first
            else "reshape the data or build for its shape"
        )
        raise ValueError(f"{name} must have shape [*batch, {', '.join(map(str, shape))}], got {list(came)}; {remedy}")


def same_event(distribution: Any, value: Any, name: str, of: str, batch_ndims: int | None = None) -> None:
    """Raises unless the event shape of a distribution is that of ``value``; a shorter one would broadcast.

    Args:
        distribution: one without an ``event_shape`` is not checked.
        value: an array ``[..., *event]``; a tree of arrays is not checked.
        name: of the distribution, such as "the likelihood".
        of: name of ``value``.
        batch_ndims: how many axes of ``value`` precede the event, if that is known.
    """
    event = getattr(distribution, "event_shape", None)
    if event is None or not hasattr(value, "shape"):
        return
    shape, event = tuple(value.shape), tuple(event)
    wanted = shape[len(shape) - len(event) :] if batch_ndims is None else shape[batch_ndims:]
    if event != wanted:
        raise ValueError(
            f"{name} must have the event shape of {of}, {list(wanted)}, got {list(event)} for {of} of shape {list(shape)}. "
            "Give it one entry for each entry of the event; nothing is broadcast along event axes"
        )


def log_prob(posterior: Any, user: str) -> None:
    """Raises for a posterior, or a layer of it, that cannot score given latents."""
    if not hasattr(posterior, "log_prob"):
        raise TypeError(
            f"{user} needs log q(z|x) at given latents, but {type(posterior).__name__} has no log_prob. Give it a method "
            "log_prob(z), or use pathwise and log_marginal, which only draw"
        )


def batch(data: Any, name: str = "data", model: Model | None = None, *, report_precision: bool = True) -> Batch:
    """Checks a batch whole: kinds, shapes and, where they can be read, values; with ``model`` also whether it can be that model's data.

    With ``report_precision`` a warning names the columns that lose precision in the default float type.

    Raises:
        TypeError: not arrays of real numbers.
        ValueError: no examples; NaN or infinity in an observed entry, a context or a weight; a negative weight; a mask that is
            not bool or not of x's shape; a weight or context that does not lead with the batch axis.
    """
    checked = as_batch(data)
    x, context, mask, weight = checked
    if x.ndim < 1 or x.size == 0:
        raise ValueError(
            f"{name} is empty: x has shape {list(x.shape)}; at least one example with at least one entry is needed"
        )
    finite(x, f"{name}.x" if isinstance(data, Batch) else name, mask)
    if report_precision:
        _report_lost_precision(x, mask, name)
    if weight is not None:
        _check_weight(weight, x, f"{name}.weight")
    for path, leaf in jax.tree_util.tree_leaves_with_path(context):
        where = f"{name}.context{jax.tree_util.keystr(path)}"
        if not hasattr(leaf, "shape") or leaf.ndim < 1 or leaf.shape[0] != x.shape[0]:
            raise ValueError(
                f"{where} must be an array leading with the {x.shape[0]} examples of x, got shape {list(np.shape(leaf))}"
            )
        if not jnp.issubdtype(leaf.dtype, jnp.number) and leaf.dtype != jnp.bool_:
            raise TypeError(f"{where} must hold numbers, got dtype {leaf.dtype}; code labels as integers 0, 1, …")
        finite(leaf, where, remedy="remove those examples, or code what is missing as a number of its own")
        if report_precision:
            _report_lost_precision(leaf, None, where)
    if model is not None and model.check is not None:
        model.check(checked)
    return checked


def _check_weight(weight: Any, x: Any, name: str) -> None:
    if tuple(weight.shape) != tuple(x.shape[: weight.ndim]) or weight.ndim == 0:
        raise ValueError(f"{name} must have the batch shape of x {list(x.shape)}, got {list(weight.shape)}")
    finite(weight, name, remedy="remove those rows, or give them weight 0")
    if not is_concrete(weight):
        return
    if np.min(np.asarray(weight)) < 0:
        raise ValueError(f"{name} must not be negative, got a minimum of {np.min(np.asarray(weight)):g}")
    if not np.any(np.asarray(weight)):
        raise ValueError(f"{name} must be positive for at least one example, got 0 for all. Weight 0 means absent")


def _report_lost_precision(x: Any, mask: Any, name: str) -> None:
    if not isinstance(x, np.ndarray) or not is_concrete(mask):
        return
    rounded = np.argwhere(arrays.rounded_entries(x, mask)).tolist()
    if rounded:
        entries = ", ".join(str(entry[0] if len(entry) == 1 else tuple(entry)) for entry in rounded[:5])
        more = f" and {len(rounded) - 5} more" if len(rounded) > 5 else ""
        warnings.warn(
            f"{name} loses precision in {jnp.zeros(()).dtype} (more than 1 % of the distinct values or of the spread) in "
            f"{'column' if x.ndim == 2 else 'entry'} {entries}{more}. Standardize such columns in float64 first, e.g. "
            "(x - x.mean(axis=0)) / x.std(axis=0), or enable 64 bits with jax.config.update('jax_enable_x64', True)",
            stacklevel=outside(),
        )


def observed_somewhere(batch: Batch, event_ndims: int) -> None:
    """Raises where a concrete mask leaves an example without any observed entry, unless its weight is 0."""
    if batch.mask is None or not is_concrete(batch.mask, batch.weight):
        return
    mask = np.asarray(batch.mask)
    empty = ~mask.any(axis=tuple(range(mask.ndim - event_ndims, mask.ndim)))
    if batch.weight is not None:
        empty = empty & (np.asarray(batch.weight) != 0)
    if empty.any():
        raise ValueError(
            f"{int(empty.sum())} examples have no observed entry, the first at index {int(np.argmax(empty))}; "
            "their log p(x) is 0 and would raise every mean; drop them, or give them weight 0"
        )


def finite(
    x: Any,
    name: str,
    mask: Any = None,
    remedy: str = "remove them, or mark missing entries with Batch(x, mask=...)",
) -> None:
    """Raises where a concrete ``x`` holds NaN or infinity in an entry that ``mask`` does not exclude."""
    if not is_concrete(x, mask) or not jnp.issubdtype(x.dtype, jnp.floating):
        return
    bad = ~np.isfinite(np.asarray(x))
    if mask is not None:
        bad &= np.asarray(mask)
    if bad.any():
        count, first = int(bad.sum()), tuple(int(i) for i in np.argwhere(bad)[0])
        values = "value" if count == 1 else "values"
        raise ValueError(f"{name} holds {count} NaN or infinite {values}, the first at index {first}; {remedy}")


def values(x: Any, valid: Any, name: str, wanted: str, mask: Any = None) -> None:
    """Raises where the boolean function ``valid`` is false on an observed entry of a concrete ``x``; says what was ``wanted``."""
    if not is_concrete(x, mask):
        return
    host = np.asarray(x)
    bad = ~np.asarray(valid(host))
    if mask is not None:
        bad &= np.asarray(mask)
    if bad.any():
        raise ValueError(f"{name} must hold {wanted}, got {host[bad][0]!r} (and {int(bad.sum()) - 1} more outside)")


def same_tree(params: Any, expected: Any, owner: str) -> None:
    """Raises unless ``params`` has the structure and shapes of ``expected``; names the first path that differs."""
    same_shapes(shapes_by_path(params), shapes_by_path(expected), owner)


def shapes_by_path(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each leaf."""
    return {jax.tree_util.keystr(p): jnp.shape(v) for p, v in jax.tree_util.tree_leaves_with_path(tree)}


def same_shapes(came: dict[str, tuple[int, ...]], want: dict[str, tuple[int, ...]], owner: str) -> None:
    """Raises unless two trees, given as shapes by path, agree; names the first paths that differ."""
    problems = [f"{p} is missing" for p in want if p not in came]
    problems += [f"{p} is not part of it" for p in came if p not in want]
    problems += [f"{p} has shape {came[p]}, wanted {want[p]}" for p in want if p in came and came[p] != want[p]]
    if problems:
        raise ValueError(
            f"these params do not belong to {owner}: {'; '.join(problems[:3])}; "
            "use the params that its init returned, and an estimator built from the same model"
        )
