"""The bounds of the evidence side by side, and whether importance sampling can be believed."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaejax.evaluate import EvidenceReport, pareto_threshold
from vaejax.plots import style


def evidence(report: EvidenceReport) -> Figure:
    """The bounds, each relative to importance sampling and paired over examples; beside them Pareto k̂ of every example.

    Left: mean difference of each bound to importance sampling, ± 2 paired standard errors: the common spread between examples drops
    out. Right: k̂ of each example against AIS − IS (or, without AIS, their histogram), with the threshold above which importance sampling
    is not to be trusted; no panel where k̂ is not defined.

    Args:
        report: from `vaejax.evaluate.evidence_report`.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> params, x = model.init(jax.random.key(0)), jax.numpy.ones((5, 4))
        >>> report = vaejax.evaluate.evidence_report(model, params, jax.random.key(1), x, num_samples=100)
        >>> [label.get_text() for label in evidence(report).axes[0].get_yticklabels()]
        ['ELBO', 'IWAE_50', 'IS_100', 'exact']
    """
    k = report.columns["pareto_k"]
    known = bool(np.isfinite(k).any())
    figure = style.figure(style.WIDTH if known else 3.6, 2.6)
    axes = np.atleast_1d(figure.subplots(1, 1 + known))
    _bounds(axes[0], report)
    if known:
        _trust(axes[1], report, k)
    return figure


def _bounds(axes: Axes, report: EvidenceReport) -> None:
    reference = report.columns["importance"]
    lines = [line for line in report.lines if line.kind != "diagnostic"]
    spread = np.sqrt(len(reference))
    for place, line in enumerate(lines):
        difference = np.asarray(report.values(line.name), float) - reference
        error = 2 * difference.std(ddof=1) / spread if len(difference) > 1 else 0.0
        color = style.BLUE if line.name == report.best else style.BLACK
        axes.errorbar(difference.mean(), place, xerr=error, fmt="o", color=color, markersize=4, elinewidth=1, capsize=2)
    axes.axvline(0.0, color=style.FAINT, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    title = f"{len(reference)} examples, paired (blue: to quote)"
    style.panel(axes, title=title, x=f"nats above IS_{report.num_samples}, mean ± 2 SE")


def _trust(axes: Axes, report: EvidenceReport, k: np.ndarray) -> None:
    limit = pareto_threshold(report.num_samples)
    finite = np.isfinite(k)
    above = int(np.sum(k > limit))
    title = f"Pareto k̂ above {limit:.2f} for {above} of {len(k)}"
    if "ais" in report.columns:
        difference = report.columns["ais"] - report.columns["importance"]
        axes.plot(k[finite], difference[finite], "o", color=style.BLUE, markersize=2.5, alpha=0.7)
        axes.axhline(0.0, color=style.FAINT, linewidth=0.8, zorder=0)
        style.panel(axes, title=title, x="k̂ of the importance weights", y="AIS − IS, nats")
    else:
        axes.hist(k[finite], bins=20, color=style.BLUE)
        style.panel(axes, title=title, x="k̂ of the importance weights", y="examples")
    axes.axvline(limit, color=style.VERMILLION, linewidth=0.9, linestyle="--")
