"""The latent space: which of its dimensions carry something, and where the examples lie."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from vaejax import checks
from vaejax.dists.backend import distrax
from vaejax.evaluate import encoding
from vaejax.evaluate.latent.active_units import kl_parts
from vaejax.plots import ask, style
from vaejax.types import Array, Key, Model, Params, call


def kl_per_latent(
    model: Model, params: Params, batch: Any, *, threshold: float = 0.01, names: Sequence[Any] | None = None
) -> Figure:
    """How much each latent dimension carries: the mean over examples of KL(q(z_j|x) ‖ p(z_j)), largest first.

    Dimensions above the threshold are called active, and are blue. A batch's weights weight the mean.

    Args:
        model: the model; its posterior and prior have independent dimensions with a closed-form KL.
        params: its parameters.
        batch: examples ``[n, *event]``; some thousand are plenty.
        threshold: nats.
        names: of the dimensions; z_0, z_1, … without.

    Raises:
        TypeError, ValueError: data that are none of the model's; a posterior or prior without a KL for single dimensions; names of
            another number.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=6, latent_size=3, hidden_sizes=(8,))
        >>> x = jax.numpy.ones((5, 6))
        >>> len(kl_per_latent(model, model.init(jax.random.key(0), x), x).axes[0].patches)
        3
    """
    checks.real(threshold, "threshold", minimum=0.0)
    batch = encoding.opened(model, batch, "kl_per_latent")
    posterior = encoding.encode(model, params, batch)
    prior = call(model.prior, params, context=batch.context, mask=batch.mask)
    parts = kl_parts(posterior, prior)
    if parts is None:
        kinds = [type(ask.base_of(d)).__name__ for d in (posterior, prior)]
        raise ValueError(
            f"KL({kinds[0]} ‖ {kinds[1]}) has no closed form for single latent dimensions; kl_per_latent needs independent ones, such as "
            "vaejax.dists.diagonal_normal gives; for the whole latent use vaejax.kl_divergence"
        )
    if names is not None and len(names) != parts.shape[1]:
        raise ValueError(
            f"names holds {len(names)} names, the latent has {parts.shape[1]} dimensions; give one for each"
        )
    labels = [style.plain(str(n)) for n in names] if names is not None else [_name(j) for j in range(parts.shape[1])]
    mean = np.average(parts, axis=0, weights=batch.weight)
    order = np.argsort(-mean, kind="stable")
    active = mean[order] > threshold
    figure = style.figure(min(style.WIDTH, max(3.4, 1.0 + 0.2 * len(mean))), 2.6)
    axes = figure.subplots()
    axes.bar(np.arange(len(mean)), mean[order], color=[style.BLUE if a else style.FAINT for a in active], width=0.8)
    title = f"{active.sum()} of {len(mean)} latents active (mean KL > {threshold:g} nats)\nsum over all: {mean.sum():.3g} nats"
    style.panel(axes, title=title, x="latent dimension, by mean KL", y="mean KL(q(z|x) ‖ p(z)), nats")
    _tick_names(axes, [labels[j] for j in order])
    return figure


def _tick_names(axes: Axes, names: list[str]) -> None:
    """A name under each bar, or where they would run into each other ranks."""
    room = max(5 - len(names), 0) / 2  # few bars stay bars
    axes.set_xlim(-0.7 - room, len(names) - 0.3 + room)
    if len(names) > 32:
        axes.set_xlabel(f"latent dimensions in order of their mean KL (rank, of {len(names)})")
        return
    upright = max(len(name) for name in names) > 8
    axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
    axes.tick_params(axis="x", length=0)


def _name(dimension: int) -> str:
    return f"$z_{{{dimension}}}$"


def latent_scatter(
    model: Model,
    params: Params,
    batch: Any,
    *,
    labels: Any = None,
    label_names: Sequence[str] | None = None,
    dimensions: tuple[int, ...] | None = None,
    max_points: int = 5000,
    key: Key | None = None,
) -> Figure:
    """The posterior means E[z|x] in two dimensions of the latent, or for a single one in a strip; the prior's 1 and 2 sd in grey.

    Args:
        model: the model.
        params: its parameters.
        batch: examples ``[n, *event]``.
        labels: ``[n]``: up to ten classes are told apart by colour and marker; numbers with more values go on a colour scale.
        label_names: of the classes, in the order of their sorted labels.
        dimensions: the two to show (or the one); without, the two with the largest mean KL, or where it has no closed form per
            dimension, the two whose posterior means vary most.
        max_points: more examples than that are thinned at random.
        key: typed key, for posteriors that know no mean.

    Raises:
        TypeError, ValueError: data that are none of the model's; labels of another number, more than ten names of classes;
            dimensions that the latent lacks.
    """
    checks.positive_int(max_points, "max_points")
    batch = encoding.opened(model, batch, "latent_scatter")
    total = batch.x.shape[0]
    labels = None if labels is None else np.asarray(labels)
    if labels is not None and labels.shape != (total,):
        raise ValueError(f"labels must be [{total}], one for each example, got shape {list(labels.shape)}")
    groups, values = _groups(labels, label_names, total)
    if total > max_points:
        kept = np.sort(np.random.default_rng(0).choice(total, max_points, replace=False))
        batch = jax.tree.map(lambda leaf: leaf[kept], batch)
        groups, values = [(n, g[kept]) for n, g in groups], None if values is None else values[kept]
    posterior = encoding.encode(model, params, batch)
    means = np.asarray(encoding.posterior_mean(posterior, key)).reshape(len(batch.x), -1)
    prior = call(model.prior, params, context=batch.context, mask=batch.mask)
    chosen, axis_names = _dimensions(dimensions, means, kl_parts(posterior, prior))
    figure = style.figure(5.5, 4.2 if len(chosen) > 1 else max(1.4, 0.9 + 0.28 * len(groups)))
    axes = figure.subplots()
    points = means[:, chosen] if len(chosen) > 1 else _strip(means[:, chosen[0]], groups)
    _prior_lines(axes, prior, chosen)
    _points(axes, points, groups, values, strip=len(chosen) == 1)
    of = f"{len(batch.x)} of {total} examples" if len(batch.x) < total else f"{total} examples"
    of += f"; {len(chosen)} of {means.shape[1]} latents" if len(chosen) < means.shape[1] else ""
    of += "; grey: prior, 1 and 2 sd" if axes.patches or axes.lines else ""
    style.panel(axes, title=f"posterior means E[z|x] of {of}", x=axis_names[0], y=axis_names[-1] if chosen[1:] else "")
    if len(chosen) > 1:
        axes.set_aspect("equal", adjustable="datalim")
    else:
        axes.set_yticks(range(len(groups)), [style.plain(name) for name, _ in groups])
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
    return figure


def _groups(
    labels: np.ndarray | None, names: Sequence[str] | None, count: int
) -> tuple[list[tuple[str, np.ndarray]], np.ndarray | None]:
    """Named boolean selections, one for each class; or a single one with values for the colour scale."""
    everything = [("", np.ones(count, bool))]
    if labels is None:
        return everything, None
    kinds = np.unique(labels)
    if names is not None and len(names) < len(kinds):
        raise ValueError(f"label_names holds {len(names)} names for {len(kinds)} classes; give one for each")
    if len(kinds) <= len(style.CLASSES):
        called = [str(k) for k in kinds]
        if names is not None:
            # With a name for each integer from 0 on, those of absent classes are passed over.
            coded = np.issubdtype(kinds.dtype, np.integer) and kinds.min() >= 0 and kinds.max() < len(names)
            called = [str(names[k]) for k in (kinds if coded else range(len(kinds)))]
        return [(name, labels == kind) for name, kind in zip(called, kinds)], None
    if names is not None or not np.issubdtype(labels.dtype, np.number):
        raise ValueError(
            f"labels hold {len(kinds)} classes, more than the {len(style.CLASSES)} that a reader can tell apart; merge some, "
            "or give numbers without label_names for a colour scale"
        )
    return everything, labels


def _dimensions(wanted: tuple[int, ...] | None, means: np.ndarray, parts: Array | None) -> tuple[list[int], list[str]]:
    size = means.shape[1]
    if wanted is None:
        by = means.var(axis=0) if parts is None else np.asarray(parts.mean(axis=0))
        chosen = sorted(np.argsort(-by, kind="stable")[:2].tolist())
    else:
        chosen = list(wanted)
        if len(chosen) not in (1, 2) or len(set(chosen)) < len(chosen) or not all(0 <= j < size for j in chosen):
            raise ValueError(f"dimensions must be one or two different ones of 0 to {size - 1}, got {tuple(wanted)}")
    about = ["" if parts is None else f" (mean KL {parts[:, j].mean():.2f} nats)" for j in chosen]
    return chosen, [f"E[{_name(j)}|x]{words}" for j, words in zip(chosen, about)]


def _strip(values: np.ndarray, groups: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """Points with a row for each class, spread a little up and down so that they do not hide each other."""
    rows = sum(np.where(member, row, 0) for row, (_, member) in enumerate(groups))
    return np.stack([values, rows + np.random.default_rng(0).uniform(-0.3, 0.3, len(values))], axis=1)


def _points(
    axes: Axes, points: np.ndarray, groups: list[tuple[str, np.ndarray]], values: np.ndarray | None, *, strip: bool
) -> None:
    size = 14 if len(points) <= 2000 else 6
    if values is not None:
        drawn = axes.scatter(points[:, 0], points[:, 1], s=size, c=values, cmap="cividis", lw=0, zorder=2)
        bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.04, pad=0.02)
        bar.set_label("label", fontsize=style.TEXT)
        bar.ax.tick_params(labelsize=style.SMALL, width=0.6, length=2.5)
        bar.outline.set_linewidth(0.6)
        return
    for (name, member), (face, edge, marker) in zip(groups, style.CLASSES):
        x, y = points[member].T
        axes.scatter(
            x,
            y,
            s=size * (1.8 if marker == "*" else 1.0),
            facecolor=face,
            edgecolor=edge,
            marker=marker,
            alpha=0.8,
            lw=0.4,
            zorder=2,
            label=style.plain(name),
        )
    if len(groups) > 1 and not strip:
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            frameon=False,
            fontsize=style.SMALL,
            handletextpad=0.2,
            markerscale=1.3,
        )


def _prior_lines(axes: Axes, prior: Any, chosen: list[int]) -> None:
    """The prior's 1 and 2 sd: ellipses, or lines in a strip; nothing for priors that are no single diagonal normal."""
    if not isinstance(ask.base_of(prior), distrax.Normal) or tuple(prior.batch_shape):
        return
    centre, sd = (np.asarray(v).reshape(-1)[chosen] for v in (prior.mean(), prior.stddev()))
    for k in (1, 2):
        if len(chosen) > 1:
            axes.add_patch(Ellipse(tuple(centre), *(2 * k * sd), fill=False, color=style.FAINT, lw=1, zorder=1))
        else:
            for side in (-k, k):
                axes.axvline(float(centre[0] + side * sd[0]), color=style.FAINT, lw=1, zorder=1)
