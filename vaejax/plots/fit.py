"""Tables of responses: do the columns' means agree with the model's."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaejax import checks
from vaejax.evaluate import encoding
from vaejax.evaluate.simulate import prior_draws
from vaejax.plots import ask, style
from vaejax.types import Batch, Key, Model, Params

_ANNOTATED = 5


def item_fit(
    model: Model,
    params: Params,
    key: Key,
    batch: Any,
    *,
    columns: Sequence[Any] | None = None,
    num_samples: int = 2000,
) -> Figure:
    """For each column the mean of its observed entries (± 1 standard error) against the model's E[x_j], z ~ p(z).

    On the diagonal the model agrees. The five columns furthest off, in standard errors, are named. A batch's weights weight the
    means; with a context the model's mean is that over the examples' contexts, where the entry is observed. Where entries go
    missing depending on their value, the two need not agree.

    Args:
        model: the model; labels 0, 1, … (categorical) count as numbers.
        params: its parameters.
        key: typed key.
        batch: the table ``[n, columns]``.
        columns: their names; x_0, x_1, … without.
        num_samples: draws of z; with a context, rounded up to a multiple of n.

    Raises:
        TypeError, ValueError: a raw key; data that are no table or none of the model's; names of another number; no column with
            an observed entry.
    """
    checks.key(key)
    checks.positive_int(num_samples, "num_samples")
    batch = ask.table(model, batch, "item_fit")
    names = style.column_names(columns, batch.x.shape[1])
    data = _observed_means(batch)
    fitted = _model_means(model, params, key, batch, num_samples)
    seen = np.flatnonzero(np.isfinite(data.mean))
    if not len(seen):
        raise ValueError("no column has an observed entry; item_fit compares observed means")
    figure = style.figure(4.4, 4.4)
    axes = figure.subplots()
    low, high = _square(np.concatenate([data.mean[seen], fitted.mean[seen]]), fitted.limits)
    axes.plot([low, high], [low, high], color=style.GREY, lw=0.8, ls="--", zorder=1)
    axes.errorbar(
        fitted.mean[seen], data.mean[seen], yerr=data.error[seen], fmt="o", ms=4, mew=0, color=style.BLUE, elinewidth=0.8,
    )  # fmt: skip
    spread = np.hypot(data.error, fitted.error)
    off = np.abs(data.mean - fitted.mean)[seen] / np.where(spread[seen] > 0, spread[seen], np.inf)
    _annotate(axes, seen[np.argsort(-off, kind="stable")[:_ANNOTATED]], names, (fitted.mean, data.mean), (low, high))
    left_out = f"; {len(names) - len(seen)} without data left out" if len(seen) < len(names) else ""
    style.panel(
        axes, title=f"mean of each of {len(seen)} columns{left_out}", x="model: $E[x_j]$, z ~ p(z)",
        y="data: mean of observed entries ± 1 standard error",
    )  # fmt: skip
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    style.note(
        axes,
        f"dashed: agreement; named: furthest off\nMonte Carlo error of the model means ≤ {fitted.error[seen].max():.2g}",
    )
    return figure


class _Means(NamedTuple):
    mean: np.ndarray
    error: np.ndarray
    limits: tuple[float, float] | None = None


def _observed_means(batch: Batch) -> _Means:
    x = np.asarray(batch.x, np.float64)
    seen = np.ones(x.shape, bool) if batch.mask is None else np.asarray(batch.mask)
    weight = seen * (1.0 if batch.weight is None else np.asarray(batch.weight, np.float64)[:, None])
    total, count = weight.sum(0), (weight > 0).sum(0)
    x = np.where(seen, x, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, (weight * x).sum(0) / total, np.nan)
        squares = (weight**2 * (x - mean) ** 2 * seen).sum(0)
        # With equal weights sd/√n; a single entry has no standard error to show.
        error = np.where(count > 1, np.sqrt(squares * count / (count - 1)) / total, 0.0)
    return _Means(mean, error)


def _model_means(model: Model, params: Params, key: Key, batch: Batch, num_samples: int) -> _Means:
    rows = len(batch.x)
    context, repeats = None, num_samples
    if batch.context is not None:
        repeats = math.ceil(num_samples / rows)
        context = jax.tree.map(lambda leaf: jnp.concatenate([leaf] * repeats), batch.context)
    z = prior_draws(model, params, key, num_samples if context is None else repeats * rows, context)
    likelihood = encoding.decode(model, params, z, context=context)
    draws = ask.expectation(likelihood).astype(np.float64)
    if context is None:
        weight = np.ones(draws.shape)
    else:
        seen = np.ones(batch.x.shape) if batch.mask is None else np.asarray(batch.mask, float)
        weight = np.tile(seen * (1.0 if batch.weight is None else np.asarray(batch.weight)[:, None]), (repeats, 1))
    total = np.maximum(weight.sum(0), 1e-300)
    mean = (weight * draws).sum(0) / total
    error = np.sqrt((weight**2 * (draws - mean) ** 2).sum(0)) / total
    return _Means(mean, error, ask.support(likelihood))


def _square(values: np.ndarray, limits: tuple[float, float] | None) -> tuple[float, float]:
    """The common ends of both axes: the family's where the means fill them, else the means' own."""
    low, high = float(values.min()), float(values.max())
    margin = 0.08 * ((high - low) or 1.0)
    low, high = low - margin, high + margin
    if limits is not None and high - low > 0.5 * (limits[1] - limits[0]):
        edge = 0.03 * (limits[1] - limits[0])
        low, high = min(low, limits[0] - edge), max(high, limits[1] + edge)
    return low, high


def _annotate(
    axes: Axes, chosen: np.ndarray, names: list[str], means: tuple[np.ndarray, np.ndarray], ends: tuple[float, float]
) -> None:
    """Names in the free corner on their point's side of the diagonal, one above the other, with a line to the point."""
    low, high = ends
    every = np.stack([(m - low) / (high - low) for m in means])
    every = every[:, np.isfinite(every).all(0)]
    for side in (1, -1):
        x, y = ((m[chosen] - low) / (high - low) for m in means)
        mine = np.flatnonzero((y >= x) == (side > 0))
        last = -np.inf
        for i in mine[np.argsort(side * y[mine])]:
            name = style.short(names[chosen[i]])
            width = 0.03 + 0.017 * len(name)
            tx = max(x[i] - 0.06, width) if side > 0 else min(x[i] + 0.06, 1 - width)
            beside = every[1, np.abs(every[0] - (tx - side * width / 2)) < width / 2 + 0.02]
            # Clear of the diagonal at its near end, of the points that it passes, and of the name before it.
            away = [side * y[i] + 0.05, side * tx + 0.04, *(side * beside + 0.05), last + 0.045]
            last = max(away)
            ty = side * last
            axes.annotate(
                style.plain(name), (x[i], y[i]), xytext=(tx, ty), xycoords="axes fraction", textcoords="axes fraction",
                ha="right" if side > 0 else "left", va="center", fontsize=style.SMALL, annotation_clip=False,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                arrowprops={"arrowstyle": "-", "color": style.GREY, "lw": 0.5, "shrinkA": 0, "shrinkB": 2},
            )  # fmt: skip
