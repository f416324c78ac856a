"""How training went."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vaejax.plots import style


class _Line(NamedTuple):
    values: np.ndarray
    label: str
    color: str
    dashes: str = "-"
    error: np.ndarray | None = None


def curves(history: Mapping[str, np.ndarray], *, objective: str = "training objective") -> Figure:
    """The training objective and, where there was validation data, its ELBO with the best epoch; below them the KL and E log p(x|z).

    Without validation data, or without the columns ``kl`` and ``log_likelihood``, the parts that need them are left out. Where
    the first epochs lie far from the rest the axis leaves them out, and says so.

    Args:
        history: from `vaejax.train.fit`.
        objective: what to call the objective, such as ``"IWAE, K = 5"``.

    Raises:
        ValueError: for a history without epochs.

    Examples:
        >>> import numpy as np
        >>> figure = curves({"epoch": np.arange(1, 4), "objective": np.array([-9.0, -5.0, -4.0])})
        >>> figure.axes[0].get_ylabel()
        'nats per example'
    """
    if not len(history.get("epoch", ())):
        raise ValueError("the history holds no epochs; train for at least one")
    epochs = np.asarray(history["epoch"])
    below = {
        name: title
        for name, title in {
            "kl": "KL(q(z|x) ‖ p(z)), training",
            "log_likelihood": "expected log p(x|z), training",
        }.items()
        if name in history
    }
    figure = style.figure(5.5, 2.8 + 1.8 * bool(below))
    parts = figure.add_gridspec(1 + bool(below), max(len(below), 1), height_ratios=(1.6, 1)[: 1 + bool(below)])
    _objective_panel(figure.add_subplot(parts[0, :]), epochs, history, objective)
    for column, (name, title) in enumerate(below.items()):
        axes = figure.add_subplot(parts[1, column])
        _draw(axes, epochs, [_Line(np.asarray(history[name], float), "", style.BLUE)])
        style.panel(axes, title=title, x="epoch", y="" if column else "nats per example")
    return figure


def _objective_panel(axes: Axes, epochs: np.ndarray, history: Mapping[str, np.ndarray], objective: str) -> None:
    lines = [_Line(np.asarray(history["objective"], float), f"{objective} (mean over the epoch)", style.BLUE)]
    if "validation_elbo" in history:
        mean = np.asarray(history["validation_elbo"], float)
        error = np.asarray(history.get("validation_standard_error", np.zeros_like(mean)), float)
        label = "validation ELBO ± 1 standard error"
        lines.append(_Line(mean, label, style.VERMILLION, "--", error))
    _draw(axes, epochs, lines)
    if "validation_elbo" in history and np.isfinite(mean).any():
        best = int(np.nanargmax(np.where(np.isfinite(mean), mean, np.nan)))
        spread = f" ± {error[best]:.2g}" if np.isfinite(error[best]) else ""  # a single example has none
        axes.scatter(
            epochs[best], mean[best], marker="*", s=70, color=style.VERMILLION, edgecolor="white", lw=0.5, zorder=4,
            label=f"best on validation: epoch {epochs[best]}, {style.number(mean[best])}{spread}",
        )  # fmt: skip
    style.panel(axes, x="epoch", y="nats per example")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False, fontsize=style.SMALL, borderaxespad=0.2)


def _draw(axes: Axes, epochs: np.ndarray, lines: list[_Line]) -> None:
    marker = "o" if len(epochs) <= 10 else ""  # a single epoch, or one between two NaNs, has no line
    series = []
    for values, label, color, dashes, error in lines:
        axes.plot(epochs, values, color=color, ls=dashes, lw=1.2, marker=marker, ms=3, label=label)
        series += [values] if error is None else [values, values - error, values + error]
        if error is not None and len(epochs) > 1:
            axes.fill_between(epochs, values - error, values + error, color=color, alpha=0.2, lw=0)
        elif error is not None:
            axes.errorbar(epochs, values, yerr=error, color=color, lw=1.2)
    style.cut(axes, epochs, np.stack(series))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if len(epochs) == 1:
        axes.set(xlim=(epochs[0] - 1, epochs[0] + 1), xticks=epochs)
