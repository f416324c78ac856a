"""What every fit of this room takes: a table of numbers, one example a row."""

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.numerics import broadcasts
from vaejax.types import Array, Batch, default_float, observed

# Floats that a column's range should hold, some thirty to a standard deviation.
_STEPS = 200


class Table(NamedTuple):
    """Rows with missing entries 0, the mask where any is missing, weights (ones where none were given)."""

    x: Array
    mask: Array | None
    weight: Array


def table(x: Any, model: str, *, missing: bool = False, minimum: int = 2) -> Table:
    """Checks data of a fit and makes them floats.

    Args:
        x: ``[n, d]``, or a `Batch` with weights, and with a mask where ``missing`` allows one.
        model: its name, for the errors.
        missing: whether entries may be missing.
        minimum: rows needed.
    """
    batch = checks.batch(x, "x", report_precision=False)  # `_in_floats` does, for narrow types too
    if batch.x.ndim != 2:
        raise ValueError(f"x must be [n, d], got {list(batch.x.shape)}; flatten images with x.reshape(len(x), -1)")
    if batch.context is not None:
        raise ValueError(f"{model} takes no context; give Batch(x, mask=, weight=) or x")
    if batch.weight is not None and batch.weight.ndim != 1:
        raise ValueError(f"x.weight must be [n], a number for each row, got {list(batch.weight.shape)}")
    batch = _counted(batch)
    mask = batch.mask
    if mask is not None and checks.is_concrete(mask) and np.asarray(mask).all():
        mask = None
    if mask is not None and not missing:
        raise ValueError(
            f"{model} needs complete rows, and entries are missing; ppca.fit_em and factor_analysis serve holes"
        )
    if len(batch.x) < minimum:
        counted = "" if batch.weight is None else " of positive weight"
        raise ValueError(
            f"{model} needs at least {minimum} rows{counted}, got {len(batch.x)}; use more data, or a smaller model"
        )
    _some_everywhere(mask)
    _in_floats(batch.x, mask)
    weight = (
        jnp.ones(len(batch.x), default_float()) if batch.weight is None else jnp.asarray(batch.weight, default_float())
    )
    return Table(observed(batch._replace(x=jnp.asarray(batch.x, default_float()), mask=mask)), mask, weight)


def _in_floats(x: Any, mask: Any) -> None:
    """Of a concrete column that varies, raises where the floats do not hold its squares, and warns where they are too coarse for it."""
    if not checks.is_concrete(x, mask):
        return
    precision, host = jnp.finfo(default_float()), np.asarray(x)
    lowest, highest = (
        getattr(host if mask is None else np.where(np.asarray(mask), host, end), name)(axis=0).astype(np.float64)
        for name, end in (("min", np.inf), ("max", -np.inf))
    )
    width, far = highest - lowest, np.maximum(np.abs(lowest), np.abs(highest))
    name = "" if precision.bits == 64 else ", or enable float64"
    # With room for rounding: a sum of squares below this has lost digits, one above it may overflow.
    low, high = float(precision.tiny / precision.eps) ** 0.5, float(precision.max) ** 0.5 / len(host) ** 0.5
    bad = np.flatnonzero(((width > 0) & (width < low)) | (width > high))
    if len(bad):
        raise ValueError(
            f"column {bad[0]} has a range of {width[bad[0]]:.3g}, whose square {precision.dtype} does not hold; rescale it, such as to "
            f"standard deviation 1{name}"
        )
    coarse = np.flatnonzero((width > 0) & (width < _STEPS * float(precision.eps) * far))
    if len(coarse):
        j = coarse[0]
        steps = width[j] / (float(precision.eps) * far[j])
        warnings.warn(
            f"column {j} lies {far[j]:.3g} from 0, where its range of {width[j]:.3g} is only {steps:.2g} times the spacing of "
            f"{precision.dtype}; subtract an offset from it{name}",
            stacklevel=checks.outside(),
        )


def _counted(batch: Batch) -> Batch:
    """Without the rows of weight 0, which would still be looked at for columns that never vary."""
    weight = batch.weight
    if weight is None or not checks.is_concrete(batch) or np.all(np.asarray(weight) > 0):
        return batch
    return jax.tree.map(lambda leaf: leaf[np.asarray(weight) > 0], batch)


@broadcasts
def spread(x: Array, weight: Array) -> tuple[Array, Array]:
    """Weighted mean ``[d]`` and 1/n covariance ``[d, d]``."""
    total = jnp.sum(weight)
    mean = weight @ x / total
    centred = x - mean
    return mean, (centred * weight[:, None]).T @ centred / total


@broadcasts
def centred(rows: Table) -> tuple[Array, Table]:
    """The weighted mean ``[d]`` of what is observed, and the rows about it: far from the origin float32 has no digits left for them."""
    if rows.mask is None:
        mean = rows.weight @ rows.x / jnp.sum(rows.weight)
        return mean, rows._replace(x=rows.x - mean)
    seen = jnp.where(rows.mask, rows.weight[:, None], 0.0)
    mean = jnp.sum(seen * rows.x, 0) / jnp.sum(seen, 0)
    return mean, rows._replace(x=jnp.where(rows.mask, rows.x - mean, 0.0))


def no_constant_column(x: Array, model: str, mask: Array | None = None) -> None:
    """Raises where a concrete column never varies where observed: its variance would go to 0 and the likelihood to infinity."""
    if not checks.is_concrete(x, mask):
        return
    hidden: Any = np.ma.nomask if mask is None else ~np.asarray(mask)
    host = np.ma.masked_array(np.asarray(x), hidden)
    constant = np.flatnonzero(np.ma.filled(np.ma.ptp(host, axis=0), 0) == 0)
    if len(constant):
        which = (
            f"column {constant[0]} is"
            if len(constant) == 1
            else f"{len(constant)} columns, the first {constant[0]}, are"
        )
        raise ValueError(
            f"{which} constant, so that {model} has no maximum of its likelihood; leave out what never varies"
        )


def no_dependent_column(x: Array, model: str, dimensions: int | None = None) -> None:
    """Raises where concrete rows span less than ``dimensions`` (all columns if None): every covariance would be singular.

    Warns where they span them so narrowly that the floats bear no covariance of all rows; one of each of several groups they may.
    """
    if not checks.is_concrete(x):
        return
    host, size, precision = np.asarray(x, np.float64), x.shape[1], jnp.finfo(x.dtype)
    mean, scale = host.mean(0), np.where(np.ptp(host, axis=0) > 0, host.std(0), 1.0)
    correlation = np.cov(((host - mean) / scale).T, ddof=0).reshape(size, size)
    values, vectors = np.linalg.eigh(correlation)
    # What the rows' own rounding, a share of their distance from 0, makes of a combination that does not vary; then that of float64.
    rounding = float(precision.eps) ** 2 * (1 + (mean / scale) ** 2) @ vectors**2
    rank = int(np.sum(values > 16 * rounding + size * np.finfo(np.float64).eps))
    wanted = size if dimensions is None else dimensions
    if rank < wanted:
        way = "take covariance='diag'" if dimensions is None else "take a smaller model"
        finer = "" if precision.bits == 64 else ", or, if float64 tells them apart, enable it"
        raise ValueError(
            f"the {size} columns span {rank} dimensions only as far as {precision.dtype} tells, so that {model} has no maximum of its "
            f"likelihood; leave columns out, project first (ppca), or {way}{finer}"
        )
    borne = int(np.sum(values > size * float(precision.eps)))
    if borne < wanted:
        warnings.warn(
            f"the {size} columns come so near to {borne} dimensions that {precision.dtype} bears no covariance of all rows; should "
            "components collapse, that may be why: enable float64",
            stacklevel=checks.outside(),
        )


def _some_everywhere(mask: Array | None) -> None:
    if mask is None or not checks.is_concrete(mask):
        return
    host = np.asarray(mask)
    for axis, name in ((0, "column"), (1, "row")):
        empty = ~host.any(axis)
        if empty.any():
            raise ValueError(f"{name} {int(np.argmax(empty))} has no observed entry; leave it out")
