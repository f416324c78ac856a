"""Latent factors: how many directions of the data stand out of the noise, and which columns each stands for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vaejax import checks
from vaejax.conjugate import factor_analysis, ppca
from vaejax.conjugate.rotation import correlations
from vaejax.plots import style


def scree(x: Any, latent_size: int, params: ppca.Ppca | None = None) -> Figure:
    """The eigenvalues of the data's covariance, what probabilistic PCA takes for noise, and their cumulative share of the variance.

    Probabilistic PCA keeps the first q directions and gives all others the noise variance σ², their mean eigenvalue by maximum likelihood.
    Rings, with ``params``: the q largest eigenvalues of its W Wᵀ + σ² I, on the data's own at the maximum.

    Args:
        x: ``[n, d]``, or a `Batch` with weights; the covariance is the 1/n one. Nothing may be missing.
        latent_size: q, below d.
        params: a fit with that q, whose σ² is drawn in place of the maximum-likelihood one.

    Raises:
        ValueError: other shapes, missing entries, a q that is too large, parameters of another size.

    Source:
        Tipping & Bishop 1999, eqs. 7 and 8.

    Examples:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (100, 5))
        >>> scree(x, 2).axes[0].get_title(loc="left").splitlines()[0]
        '2 of 5 directions kept'
    """
    checks.positive_int(latent_size, "latent_size")
    values = _eigenvalues(x)
    size = len(values)
    if latent_size >= size:
        raise ValueError(f"latent_size must be below the {size} columns of x, got {latent_size}; take fewer latents")
    if params is not None and np.shape(params.weight) != (size, latent_size):
        raise ValueError(
            f"params.weight must be [{size}, {latent_size}] for these data and latent_size, got {list(np.shape(params.weight))}"
        )
    noise = float(values[latent_size:].mean() if params is None else params.variance)
    figure = style.figure(style.WIDTH, 2.7)
    left, right = figure.subplots(1, 2)
    _spectrum(left, values, latent_size, noise)
    if params is not None:
        model = np.linalg.svd(np.asarray(params.weight, np.float64), compute_uv=False) ** 2 + noise
        left.plot(
            np.arange(1, latent_size + 1), model, "o", color=style.VERMILLION, ms=7, mfc="none", mew=0.9, label="model"
        )
    left.legend(loc="best", frameon=False, fontsize=style.SMALL)
    _shares(right, values, latent_size)
    return figure


def loadings(params: ppca.Ppca | factor_analysis.FactorAnalysis, *, columns: Sequence[Any] | None = None) -> Figure:
    """The correlation of each column with each latent, and the share of its variance that the latents explain (its communality).

    Signs and, where nothing fixes the rotation, directions are a matter of choice: `vaejax.conjugate.varimax` makes them readable.

    Args:
        params: a fit of `vaejax.conjugate.ppca` or `vaejax.conjugate.factor_analysis`.
        columns: their names; x_0, x_1, … without.

    Raises:
        TypeError, ValueError: other parameters; names of another number.

    Examples:
        >>> import jax.numpy as jnp
        >>> params = factor_analysis.FactorAnalysis(jnp.zeros(3), jnp.ones((3, 1)), jnp.array([0.5, 1.0, 2.0]))
        >>> figure = loadings(params, columns=["a", "b", "c"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['a', 'b', 'c']
    """
    if not isinstance(params, ppca.Ppca | factor_analysis.FactorAnalysis):
        raise TypeError(
            f"params must be Ppca or FactorAnalysis, got {type(params).__name__}; of a FitResult give its .params"
        )
    noise = params.variance if isinstance(params, ppca.Ppca) else params.noise
    found = correlations(params.weight, noise)
    names = style.column_names(columns, len(found))
    shared = np.sum(found**2, axis=1, keepdims=True)
    count = found.shape[1]
    figure = style.figure(min(style.WIDTH, 2.6 + 0.45 * (count + 1)), max(1.6, 0.9 + 0.19 * len(found)))
    left, right = figure.subplots(1, 2, width_ratios=[count, 1], sharey=True)
    drawn = _cells(left, found, "RdBu_r", (-1.0, 1.0))
    _cells(right, shared, "Greys", (0.0, 1.5))
    style.panel(left, title="loadings: corr(column, latent)")
    style.panel(right, title="shared")
    left.set_xticks(range(count), [f"$z_{{{k}}}$" for k in range(count)])
    right.set_xticks([])
    left.set_yticks(range(len(names)), [style.plain(style.short(name, 24)) for name in names])
    for axes in (left, right):
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    bar = figure.colorbar(drawn, ax=[left, right], fraction=0.05, pad=0.02, aspect=25)
    bar.ax.tick_params(labelsize=style.SMALL, width=0.6, length=2.5)
    bar.outline.set_linewidth(0.6)
    return figure


def _cells(axes: Axes, values: np.ndarray, cmap: str, limits: tuple[float, float]) -> Any:
    """Coloured cells with their numbers, where those can be read."""
    drawn = axes.imshow(values, cmap=cmap, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest")
    if values.shape[1] <= 10:
        for (row, column), value in np.ndenumerate(values):
            text = f"{value:.2f}".replace("-", "−")
            color = "white" if abs(value) > 0.7 * limits[1] else style.BLACK
            axes.text(column, row, text, ha="center", va="center", fontsize=style.SMALL, color=color)
    return drawn


def _eigenvalues(x: Any) -> np.ndarray:
    """Of the 1/n covariance, largest first; 0 where rows are fewer than columns."""
    batch = checks.batch(x, "x")
    if np.ndim(batch.x) != 2:
        raise ValueError(f"x must be [n, d], got {list(np.shape(batch.x))}; flatten images with x.reshape(len(x), -1)")
    if batch.mask is not None and not np.asarray(batch.mask).all():
        raise ValueError("scree needs complete rows, and entries are missing; leave incomplete rows out")
    rows = np.asarray(batch.x, np.float64)
    weight = np.ones(len(rows)) if batch.weight is None else np.asarray(batch.weight, np.float64)
    share = weight / weight.sum()
    scaled = (rows - share @ rows) * np.sqrt(share)[:, None]
    found = np.zeros(rows.shape[1])
    singular = np.linalg.svd(scaled, compute_uv=False)
    found[: len(singular)] = singular**2
    if not found[0] > 0:
        raise ValueError("no column of x varies; a spectrum needs data that do")
    return found


def _spectrum(axes: Axes, values: np.ndarray, latent_size: int, noise: float) -> None:
    size = len(values)
    at = np.arange(1, size + 1)
    # What is rounding error beside the largest is 0.
    seen = values > 1e-12 * values[0]
    marker, line = ("o", 0.6) if size <= 100 else ("", 1.2)
    for part, color, label in (
        (at <= latent_size, style.BLUE, "kept"),
        (at > latent_size, style.GREY, "discarded"),
    ):
        chosen = part & seen
        axes.plot(at[chosen], values[chosen], color=color, lw=line, marker=marker, ms=3.5, label=label)
    axes.hlines(
        noise,
        latent_size + 0.5,
        size + 0.5,
        color=style.VERMILLION,
        lw=1.2,
        ls="--",
        label=f"σ² of pPCA = {style.number(noise, 3)}",
    )
    if noise > 0 and values[0] > 30 * noise:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.08 * values[0])
    lost = int(np.sum(~seen))
    title = f"{latent_size} of {size} directions kept" + (f"\n{lost} without variance not shown" if lost else "")
    style.panel(axes, title=title, x="direction, by variance", y="eigenvalue of the covariance")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.set_xlim(0.5 - 0.02 * size, size + 0.5 + 0.02 * size)


def _shares(axes: Axes, values: np.ndarray, latent_size: int) -> None:
    size = len(values)
    share = np.concatenate([[0.0], np.cumsum(values) / values.sum()])
    axes.plot(np.arange(size + 1), 100 * share, color=style.BLUE, lw=1.2, marker="o" if size <= 30 else "", ms=3)
    kept = 100 * share[latent_size]
    axes.plot([0, latent_size, latent_size], [kept, kept, 0], color=style.GREY, lw=0.8, ls="--", zorder=1)
    axes.set(ylim=(0, 104), xlim=(0, size + 0.02 * size))
    style.panel(
        axes,
        title=f"first {latent_size}: {kept:.1f} % of the variance",
        x="directions",
        y="share of the variance, %",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
