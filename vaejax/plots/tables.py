"""Tables of responses: what the model expects of each row, and how each column depends on a latent."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vaejax import checks
from vaejax.evaluate import encoding
from vaejax.plots import ask, style
from vaejax.plots.manifold import vector_size
from vaejax.types import Key, Model, Params


def responses(
    model: Model,
    params: Params,
    key: Key,
    batch: Any,
    *,
    columns: Sequence[Any] | None = None,
    max_rows: int = 40,
) -> Figure:
    """The table beside what the model expects of it, E[x|z] at z = E[z|x], on one colour scale; missing entries are pink.

    Args:
        model: the model; labels 0, 1, … (categorical) count as numbers.
        params: its parameters.
        key: typed key, used where the posterior knows no mean.
        batch: the table ``[n, columns]``.
        columns: their names; x_0, x_1, … without.
        max_rows: so many rows are shown, the first.

    Raises:
        TypeError, ValueError: a raw key; data that are no table or none of the model's; names of another number.
    """
    checks.key(key)
    checks.positive_int(max_rows, "max_rows")
    batch = ask.table(model, batch, "responses")
    total = len(batch.x)
    names = style.column_names(columns, batch.x.shape[1])
    batch = jax.tree.map(lambda leaf: leaf[:max_rows], batch)
    z = encoding.posterior_mean(encoding.encode(model, params, batch), key)
    likelihood = encoding.decode(model, params, z, context=batch.context, mask=batch.mask)
    expected = ask.expectation(likelihood)
    x = np.asarray(batch.x, float)
    data = np.ma.array(x, mask=False if batch.mask is None else ~np.asarray(batch.mask))
    known = ask.support(likelihood) or (float(min(data.min(), expected.min())), float(max(data.max(), expected.max())))
    figure = style.figure(style.WIDTH, min(7.5, 1.2 + 0.11 * max(len(x), 10)))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values in ((left, data), (right, expected)):
        drawn = _heat(axes, values, known, names)
    rows = f"first {len(x)} of {total} rows" if total > len(x) else f"all {total} rows"
    style.panel(left, title=f"data, {rows}", x=left.get_xlabel(), y="row")
    style.panel(right, title="model: E[x|z], z = E[z|x]", x=right.get_xlabel())
    for axes in (left, right):
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, ax=[left, right], fraction=0.03, pad=0.01, aspect=40)
    bar.set_label("response", fontsize=style.TEXT)
    bar.ax.tick_params(labelsize=style.SMALL, width=0.6, length=2.5)
    bar.outline.set_linewidth(0.6)
    if np.ma.getmaskarray(data).any():
        figure.legend(
            handles=[Patch(color=style.MISSING, label="missing")],
            loc="outside lower left",
            frameon=False,
            fontsize=style.SMALL,
        )
    return figure


def _heat(axes: Axes, values: np.ndarray, limits: tuple[float, float], names: list[str]) -> Any:
    cmap = matplotlib.colormaps["cividis"].with_extremes(bad=style.MISSING)
    low, high = limits
    drawn = axes.imshow(
        values, cmap=cmap, vmin=low, vmax=high if high > low else low + 1, aspect="auto", interpolation="nearest"
    )
    if len(names) <= 25:
        axes.set_xticks(range(len(names)), [style.plain(style.short(n)) for n in names], rotation=90)
    else:
        axes.set_xlabel(f"column, of {len(names)}")
    return drawn


def item_curves(
    model: Model,
    params: Params,
    *,
    columns: Sequence[Any] | None = None,
    dimension: int = 0,
    max_columns: int = 25,
    context: Any = None,
) -> Figure:
    """Item response curves: E[x_j|z] as one latent goes from −3 to 3, the others at 0; one panel for each column.

    Args:
        model: the model of a table; labels 0, 1, … (categorical) count as numbers.
        params: its parameters.
        columns: their names; x_0, x_1, … without.
        dimension: the latent that moves.
        max_columns: of more columns than that, those whose expectation changes most.
        context: for conditional models, the one that the figure is drawn for: ``[1, ...]``.

    Raises:
        ValueError: a dimension that the latent lacks; events that are no rows of a table; names of another number; a context of
            more than one row.
    """
    checks.positive_int(max_columns, "max_columns")
    size = vector_size(model, params, context, "item_curves")
    if not 0 <= dimension < size:
        raise ValueError(f"dimension must be one of 0 to {size - 1}, got {dimension}")
    points = jnp.linspace(-3.0, 3.0, 61)
    z = jnp.zeros((61, size)).at[:, dimension].set(points)
    likelihood = encoding.decode(model, params, z, context=ask.repeated(context, 61))
    expected = ask.expectation(likelihood)
    if expected.ndim != 2:
        raise ValueError(
            f"item_curves draws tables, got examples of shape {list(expected.shape[1:])}; for images use manifold"
        )
    names = style.column_names(columns, expected.shape[1])
    shown = np.sort(np.argsort(-np.ptp(expected, axis=0), kind="stable")[:max_columns])
    across = min(5, len(shown))
    down = -(-len(shown) // across)
    limits = ask.support(likelihood)
    figure = style.figure(max(1.25 * across + 0.25, 3.0), min(8.5, 1.05 * down + 0.75))
    grid = figure.subplots(down, across, sharex=True, sharey=limits is not None, squeeze=False)
    for axes, j in zip(grid.flat, shown):
        axes.plot(points, expected[:, j], color=style.BLUE, lw=1.4)
        style.panel(axes)
        axes.set_title(style.plain(style.short(names[j])), fontsize=style.SMALL, pad=2, loc="center")
        axes.set(xlim=(-3, 3), xticks=(-3, 0, 3))
        axes.axvline(0, color=style.FAINT, lw=0.6, zorder=0)
        if limits is not None:
            edge = 0.04 * (limits[1] - limits[0])
            axes.set(ylim=(limits[0] - edge, limits[1] + edge), yticks=(limits[0], sum(limits) / 2, limits[1]))
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    which = (
        f"the {len(shown)} of {len(names)} columns that change most"
        if len(shown) < len(names)
        else f"all {len(names)} columns"
    )
    figure.suptitle(f"item response curves of {which}", fontsize=style.TEXT)
    others = f", the other latents ({size - 1}) at 0" if size > 1 else ""
    figure.supxlabel(f"$z_{{{dimension}}}${others}", fontsize=style.TEXT)
    figure.supylabel("$E[x_j|z]$", fontsize=style.TEXT)
    return figure
