"""Expectation–maximisation: what it gained at each step, and the two halves of a step."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from vaejax.conjugate import FitResult, HalfSteps
from vaejax.plots import style


def fit_trace(result: FitResult, *, what: str = "log-likelihood") -> Figure:
    """What a fit maximised, before each step and after the last; beside it the gain of each step on a log scale.

    Where components collapsed and began anew the line is broken, at a dotted line: what is maximised may fall there. Gains that rounding
    made 0 or negative have no place on a log scale; their number is told.

    Args:
        result: of a ``fit_em`` of `vaejax.conjugate`.
        what: the name of what it maximised, such as ``"penalised log-likelihood"`` or ``"ELBO"``; nats, of all data.

    Raises:
        TypeError: for anything else.
        ValueError: for several fits at once.

    Examples:
        >>> import jax
        >>> from vaejax.conjugate import gmm
        >>> found = gmm.fit_em(jax.random.key(0), jax.random.normal(jax.random.key(1), (50, 2)), 2)
        >>> len(fit_trace(found).axes)
        2
    """
    if not isinstance(result, FitResult):
        raise TypeError(f"result must be what a fit_em of vaejax.conjugate returns, got {type(result).__name__}")
    trace = np.asarray(result.trace, np.float64)
    if trace.ndim != 1:
        raise ValueError(f"fit_trace draws one fit, got traces of shape {list(trace.shape)}; choose one of them")
    steps = int(result.num_steps)
    trace = trace[: steps + 1]
    anew = np.zeros(steps, int) if result.reseeded is None else np.asarray(result.reseeded)[:steps]
    figure = style.figure(style.WIDTH if steps else 3.4, 2.7)
    panels = figure.subplots(1, 2 if steps else 1, squeeze=False)[0]
    _objective(panels[0], trace, anew)
    collapsed = 0 if result.collapsed is None else int(result.collapsed)
    end = "converged" if result.converged else f"ended as {collapsed} collapsed" if collapsed else "not converged"
    words = f"{what} of all data\n{steps} step{'' if steps == 1 else 's'}, {end}" + (
        f"\n{_counted(anew)}" if anew.any() else ""
    )
    style.panel(panels[0], title=words, x="step", y=f"{what}, nats")
    if steps:
        _gains(panels[1], trace, anew, np.finfo(result.trace.dtype).eps)
    return figure


def _objective(axes: Axes, trace: np.ndarray, anew: np.ndarray) -> None:
    at = np.arange(len(trace))
    marker = "o" if len(trace) <= 12 else ""
    breaks = np.flatnonzero(anew) + 1
    for part in np.split(at, breaks):
        axes.plot(part, trace[part], color=style.BLUE, lw=1.2, marker=marker or ("o" if len(part) == 1 else ""), ms=3)
    _breaks(axes, anew)
    style.cut(axes, at, trace[None], "step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _gains(axes: Axes, trace: np.ndarray, anew: np.ndarray, epsilon: float) -> None:
    gain = np.where(anew > 0, np.nan, np.diff(trace))
    at = np.arange(1, len(trace))
    rounding = epsilon * np.abs(trace[1:])
    known = np.where(gain > rounding, gain, np.nan)
    axes.plot(at, known, color=style.BLUE, lw=1.0, marker="o" if len(at) <= 60 else "", ms=2.5)
    if np.isfinite(known).any():
        axes.set_yscale("log")
    _breaks(axes, anew)
    lost = int(np.sum(gain <= rounding))
    title = "gain of each step" + (f"\n{lost} of {len(at)} within rounding, not shown" if lost else "")
    style.panel(axes, title=title, x="step", y="gain, nats")
    axes.set_xlim(0.5 - 0.02 * len(at), len(at) + 0.5 + 0.02 * len(at))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _breaks(axes: Axes, anew: np.ndarray) -> None:
    for step in np.flatnonzero(anew):
        axes.axvline(step + 0.5, color=style.VERMILLION, lw=0.9, ls=":", zorder=1)


def _counted(anew: np.ndarray) -> str:
    """When components began anew, in words; steps are counted from 1."""
    steps, count = np.flatnonzero(anew) + 1, int(anew.sum())
    which = ", ".join(map(str, steps[:4])) + (", …" if len(steps) > 4 else "")
    return f"dotted: {count} component{'s'[: count - 1]} began anew, step{'s'[: len(steps) - 1]} {which}"


def half_steps(result: HalfSteps) -> Figure:
    """ln p(x) = L(q) + KL(q ‖ p(z|x)) after each half of each EM step, and beside it what each half moved.

    Left: blue bars are L, the part above them is KL, their sum is ln p(x). An E-step raises L to ln p(x), which stays; an M-step raises
    both, and leaves a KL. The axis does not begin at 0. Right, on a log scale: the KL that each M-step left, and what it added to ln p(x).

    Args:
        result: of `vaejax.conjugate.half_steps`.

    Raises:
        TypeError: for anything else.

    Source:
        Bishop 2006, figs. 9.11 to 9.14; Neal & Hinton 1998.

    Examples:
        >>> import jax
        >>> from vaejax import conjugate
        >>> x = jax.random.normal(jax.random.key(0), (50, 4))
        >>> found = conjugate.half_steps(conjugate.ppca, conjugate.ppca.fit_ml(x, 1), x, num_steps=2)
        >>> [label.get_text() for label in half_steps(found).axes[0].get_xticklabels()]
        ['start', 'E1', 'M1', 'E2', 'M2']
    """
    if not isinstance(result, HalfSteps):
        raise TypeError(f"result must be what vaejax.conjugate.half_steps returns, got {type(result).__name__}")
    bound, kl, evidence = (np.asarray(values, np.float64) for values in result)
    figure = style.figure(style.WIDTH, 3.0)
    left, right = figure.subplots(1, 2, width_ratios=(1.9, 1))
    _halves(left, bound, kl, evidence)
    at = np.arange(1, len(bound) // 2 + 1)
    rounding = np.finfo(result.bound.dtype).eps * np.abs(evidence[2::2])
    moved = {"KL that it left": kl[2::2], "gain of ln p(x)": np.diff(evidence[::2])}
    for (label, values), color, marker in zip(moved.items(), (style.ORANGE, style.BLACK), "so"):
        shown = np.where(values > rounding, values, np.nan)
        right.plot(at, shown, color=color, lw=1.0, marker=marker if len(at) <= 30 else "", ms=3, label=label)
        if np.isfinite(shown).any():
            right.set_yscale("log")
    right.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    right.set_xlim(0.5, len(at) + 0.5)
    style.panel(right, title="each M-step", x="step", y="nats")
    right.legend(loc="best", frameon=False, fontsize=style.SMALL)
    return figure


def _halves(axes: Axes, bound: np.ndarray, kl: np.ndarray, evidence: np.ndarray) -> None:
    count = len(bound)
    at = np.arange(count)
    expectation = at % 2 == 1
    low, high = min(bound.min(), evidence.min()), evidence.max()
    floor = low - 0.12 * ((high - low) or 1.0)
    hues = np.where(expectation, style.BLUE, style.SKY)
    axes.bar(at, bound - floor, bottom=floor, width=0.8, color=list(hues), lw=0)
    axes.bar(at, np.maximum(kl, 0.0), bottom=bound, width=0.8, color=style.ORANGE, lw=0)
    axes.step(at, evidence, where="mid", color=style.BLACK, lw=1.0)
    axes.set(ylim=(floor, high + 0.06 * ((high - low) or 1.0)), xlim=(-0.7, count - 0.3))
    if count <= 17:
        words = ["start", *(f"{'EM'[i % 2]}{i // 2 + 1}" for i in range(count - 1))]
        axes.set_xticks(at, words)
    else:
        every = -(-count // 2 // 8)
        steps = np.arange(every, count // 2 + 1, every)
        axes.set_xticks(2 * steps, [str(step) for step in steps])
    style.panel(axes, x="half step" if count <= 17 else "step", y="nats, of all data")
    axes.tick_params(axis="x", length=0)
    handles = [
        axes.lines[0],
        Patch(color=style.ORANGE),
        Patch(color=style.BLUE),
        Patch(color=style.SKY),
    ]
    names = ["ln p(x)", "KL(q ‖ p(z|x))", "L(q) after an E-step", "after an M-step"]
    axes.legend(
        handles, names, loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False, fontsize=style.SMALL, ncols=2, borderaxespad=0.2,
    )  # fmt: skip
