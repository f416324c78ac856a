"""Latent factors: how many directions of the data stand out of the noise."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vaejax import checks
from vaejax.conjugate import ppca
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
