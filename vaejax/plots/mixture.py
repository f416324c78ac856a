"""Gaussian mixtures: the data, and where each component lies among them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke

from vaejax import checks
from vaejax.conjugate import gmm
from vaejax.plots import style
from vaejax.types import Array

_MAX_POINTS = 5000
# Beyond these no marker is left: hues repeat, and components are told apart by their numbers.
_HUES = (style.BLUE, style.ORANGE, style.GREEN, style.VERMILLION, style.SKY, style.PURPLE, style.BLACK)


class _Marginal(NamedTuple):
    """A mixture in the c columns shown, and the examples.

    Attributes:
        weight: ``[K]``.
        mean: ``[K, c]``.
        covariance: ``[K, c, c]``.
        x: ``[n, c]``.
        likeliest: ``[n]`` component of each example.
    """

    weight: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    x: np.ndarray
    likeliest: np.ndarray


def mixture(
    params: gmm.Gmm, x: Any, *, columns: tuple[int, ...] = (0, 1), names: Sequence[Any] | None = None
) -> Figure:
    """The examples in two columns, coloured by their likeliest component, with each component's 1- and 2-standard-deviation ellipses.

    Ellipses are those of the marginals N(μ_k[columns], Σ_k[columns, columns]): of a 2-d normal they hold 39 and 86 % of the mass. Which
    component is likeliest is decided by all columns. With more than ten components hues repeat, and numbers tell them apart. In a single
    column: a histogram below the density of the mixture and of each component, π_k N(x; μ_k, σ_k²).

    Args:
        params: K components over d columns, covariances of any shape that a `Gmm` may have.
        x: ``[n, d]``; more than 5000 examples are thinned at random.
        columns: the two to show, or the one; data of one column need none.
        names: of all d columns; x_0, x_1, … without.

    Raises:
        ValueError: other columns than those of the mixture; missing entries; names of another number.

    Source:
        Bishop 2006, figs. 9.5 and 9.8.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> params = gmm.Gmm(jnp.array([0.5, 0.5]), jnp.array([[-3.0, 0.0], [3.0, 0.0]]), jnp.ones((2, 1)))
        >>> x, _ = gmm.sample(params, jax.random.key(0), 50)
        >>> len(mixture(params, x).axes[0].patches)
        4
    """
    checks.params(params, gmm.Gmm)
    batch = checks.batch(x, "x")
    rows = np.asarray(batch.x)
    count, size = np.shape(params.mean)
    if rows.ndim != 2:
        raise ValueError(f"x must be [n, d], got {list(rows.shape)}; flatten images with x.reshape(len(x), -1)")
    if batch.mask is not None and not np.asarray(batch.mask).all():
        raise ValueError("mixture needs complete rows, and entries are missing; leave incomplete rows out")
    chosen = [0] if size == 1 else list(columns)
    if len(chosen) not in (1, 2) or len(set(chosen)) < len(chosen) or not all(0 <= j < size for j in chosen):
        raise ValueError(
            f"columns must be one or two different ones of 0 to {size - 1}, got {tuple(columns)}; names= names them"
        )
    called = [style.plain(name) for name in style.column_names(names, size)]
    total = len(rows)
    if total > _MAX_POINTS:
        rows = rows[np.sort(np.random.default_rng(0).choice(total, _MAX_POINTS, replace=False))]
    part = _marginal(params, rows, np.asarray(_likeliest(params, rows)), chosen)
    figure = style.figure(5.5, 3.9 if len(chosen) > 1 else 3.0)
    axes = figure.subplots()
    shown = f"{len(rows)} of {total} examples" if len(rows) < total else f"{total} examples"
    words = f"{shown}, {count} components" if count > 1 else f"{shown}, one component"
    if len(chosen) == 1:
        _density(axes, part)
        style.panel(axes, title=words, x=called[chosen[0]], y="density")
    else:
        _plane(axes, part)
        style.panel(axes, title=f"{words}; ellipses: 1 and 2 sd of each", x=called[chosen[0]], y=called[chosen[1]])
    if 1 < count <= len(style.CLASSES) or len(chosen) == 1:
        _legend(axes, count)
    return figure


def _legend(axes: Axes, count: int) -> None:
    title = "component, weight" if 1 < count <= len(style.CLASSES) else None
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=style.SMALL, handletextpad=0.4, title=title,
        title_fontsize=style.SMALL, markerscale=1.3,
    )  # fmt: skip
    for handle in legend.findobj(PathCollection):
        handle.set_alpha(1.0)


@jax.jit
def _likeliest(params: gmm.Gmm, rows: Array) -> Array:
    return jnp.argmax(gmm.posterior(params, rows).probs, axis=-1)


def _marginal(params: gmm.Gmm, rows: np.ndarray, likeliest: np.ndarray, chosen: list[int]) -> _Marginal:
    weight, mean, covariance = (np.asarray(leaf, np.float64) for leaf in params)
    count, size = mean.shape
    if covariance.ndim == 3:
        square = np.broadcast_to(covariance, (count, size, size))[:, chosen][:, :, chosen]
    else:
        square = np.broadcast_to(covariance, (count, size))[:, chosen][:, :, None] * np.eye(len(chosen))
    return _Marginal(weight, mean[:, chosen], square, np.asarray(rows[:, chosen], np.float64), likeliest)


def _looks(count: int) -> list[tuple[str, str, str]]:
    """Face, edge and marker of each component."""
    if count <= len(style.CLASSES):
        return style.CLASSES[:count]
    return [(_HUES[k % len(_HUES)], _HUES[k % len(_HUES)], "o") for k in range(count)]


def _darker(color: str) -> tuple[float, ...]:
    return tuple(0.6 * part for part in to_rgb(color))


def _plane(axes: Axes, part: _Marginal) -> None:
    count = len(part.weight)
    size = 14 if len(part.x) <= 500 else 6
    for k, (face, edge, marker) in enumerate(_looks(count)):
        x, y = part.x[part.likeliest == k].T
        axes.scatter(
            x, y, s=size * (1.8 if marker == "*" else 1.0), facecolor=face, edgecolor=edge, marker=marker, alpha=0.4, lw=0.4,
            zorder=2, label=f"{k}, {part.weight[k]:.2g}",
        )  # fmt: skip
        values, vectors = np.linalg.eigh(part.covariance[k])
        angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
        for sd, width, dashes in ((1, 1.3, "-"), (2, 0.9, "--")):
            height, length = 2 * sd * np.sqrt(np.maximum(values, 0.0))
            at = tuple(part.mean[k])
            axes.add_patch(
                Ellipse(at, length, height, angle=angle, fill=False, color=_darker(edge), lw=width, ls=dashes, zorder=3)
            )
    if count > len(style.CLASSES):
        for k, (x, y) in enumerate(part.mean):
            _numbered(axes, x, y, k)
    axes.set(xlim=_ends(part, 0), ylim=_ends(part, 1))


def _numbered(axes: Axes, x: float, y: float, component: int) -> None:
    halo = [withStroke(linewidth=2.2, foreground="white")]
    axes.text(
        x, y, str(component), ha="center", va="center", fontsize=style.SMALL, zorder=4, clip_on=True, path_effects=halo
    )


def _ends(part: _Marginal, column: int) -> tuple[float, float]:
    """Room for all examples, and for components as far as they do not make those small."""
    x, mean, sd = part.x[:, column], part.mean[:, column], np.sqrt(part.covariance[:, column, column])
    low, high = float(x.min()), float(x.max())
    span = (high - low) or 1.0
    lowest, highest = float((mean - 2 * sd).min()), float((mean + 2 * sd).max())
    return (
        min(low, max(lowest, low - 0.3 * span)) - 0.04 * span,
        max(high, min(highest, high + 0.3 * span)) + 0.04 * span,
    )


def _density(axes: Axes, part: _Marginal) -> None:
    count, numbered = len(part.weight), len(part.weight) > len(style.CLASSES)
    values, (low, high) = part.x[:, 0], _ends(part, 0)
    bins = min(60, max(10, int(2 * len(values) ** 0.5)))
    heights = np.histogram(values, bins, density=True)[0]
    axes.hist(values, bins, density=True, color=style.FAINT)
    sd = np.sqrt(part.covariance[:, 0, 0])
    near = (part.mean[:, 0] + np.linspace(-4, 4, 161)[:, None] * sd).ravel()
    points = np.unique(np.clip(np.concatenate([np.linspace(low, high, 400), near]), low, high))
    each = part.weight * np.exp(-0.5 * ((points[:, None] - part.mean[:, 0]) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
    highest = float(each.sum(1).max())
    # The density of a narrow component would flatten everything else.
    top = 1.06 * min(max(highest, float(heights.max())), 2 * float(heights.max()))
    for k, (_, edge, _) in enumerate(_looks(count) if count > 1 else []):
        dashes = "-" if not numbered else ("-", "--", ":")[k // len(_HUES) % 3]
        label = None if numbered else f"{k}, {part.weight[k]:.2g}"
        axes.plot(points, each[:, k], color=edge, lw=1.2, ls=dashes, label=label)
        if numbered:
            peak = int(np.argmax(each[:, k]))
            _numbered(axes, points[peak], min(each[peak, k], 0.97 * top), k)
    axes.plot(points, each.sum(1), color=style.BLACK, lw=0.9, label="all" if count > 1 else "density", zorder=3)
    axes.set(xlim=(low, high), ylim=(0, top))
    if highest > top:
        style.note(axes, f"axis cut: the density goes up to {style.number(highest)}", "upper right")
