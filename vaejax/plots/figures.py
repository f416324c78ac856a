"""Figures of a trained model. Each function returns a matplotlib ``Figure`` and shows nothing."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from vaejax import checks
from vaejax.types import Array, Key, Model, Params, as_batch, call, observed

# Two hues that stay apart for colour-blind readers and in grey print (Okabe & Ito 2008).
_BLUE, _ORANGE = "#0072B2", "#D55E00"


def curves(history: Mapping[str, np.ndarray]) -> Figure:
    """The training objective and, where there was validation data, its ELBO; below it the KL.

    Args:
        history: from `vaejax.train.fit`.

    Raises:
        ValueError: for a history without epochs.
    """
    if not len(history.get("epoch", ())):
        raise ValueError("the history holds no epochs; train for at least one")
    figure = Figure(figsize=(5.0, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    epochs = history["epoch"]
    upper.plot(epochs, history["objective"], color=_BLUE, label="training objective")
    if "validation_elbo" in history:
        mean, error = history["validation_elbo"], history["validation_standard_error"]
        upper.plot(epochs, mean, color=_ORANGE, ls="--", label="validation ELBO, ± 1 s.e.")
        upper.fill_between(epochs, mean - error, mean + error, color=_ORANGE, alpha=0.2, lw=0)
    # The first epochs fall from far away and would flatten everything else.
    shown = np.concatenate(
        [history[name][len(epochs) // 20 :] for name in ("objective", "validation_elbo") if name in history]
    )
    shown = shown[np.isfinite(shown)]
    if shown.size:
        margin = 0.05 * (np.ptp(shown) or 1.0)
        upper.set_ylim(shown.min() - margin, shown.max() + margin)
    upper.set_ylabel("nats per example")
    upper.legend(frameon=False, loc="lower right")
    lower.plot(epochs, history["kl"], color=_BLUE)
    lower.set_ylabel("training KL, nats")
    lower.set_xlabel("epoch")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def reconstructions(
    model: Model, params: Params, key: Key, batch: Any, *, image_shape: tuple[int, ...] | None = None
) -> Figure:
    """Examples above the means of p(x|z), one draw z ~ q(z|x) each.

    Args:
        model: the model.
        params: its parameters.
        key: typed key.
        batch: the examples to show, about ten.
        image_shape: ``(height, width)``, or with channels, where the event itself is not an image.
    """
    checks.key(key)
    batch = as_batch(batch)
    posterior = call(model.posterior, params, jnp.asarray(observed(batch)), context=batch.context, mask=batch.mask)
    z = posterior.sample_and_log_prob(seed=key, sample_shape=(1,))[0]
    means = _centre(call(model.likelihood, params, z, context=batch.context, mask=batch.mask))[0]
    shape = image_shape or tuple(batch.x.shape[1:])
    rows = [("data", np.asarray(observed(batch))), ("E[x|z],\nz ~ q(z|x)", np.asarray(means))]
    return _image_grid([(name, images.reshape(-1, *shape)) for name, images in rows])


def prior_samples(
    model: Model,
    params: Params,
    key: Key,
    *,
    num_rows: int = 5,
    num_columns: int = 10,
    image_shape: tuple[int, ...] | None = None,
    ancestral: bool = False,
    context: Any = None,
) -> Figure:
    """Images from z ~ p(z): the means of p(x|z), or with ``ancestral`` draws x ~ p(x|z), noise and all.

    Args:
        model: the model.
        params: its parameters.
        key: typed key.
        num_rows: rows of images.
        num_columns: images in a row.
        image_shape: ``(height, width)``, or with channels, where the event itself is not an image.
        ancestral: draw x instead of showing its mean.
        context: for conditional models, one row for each image: ``[num_rows · num_columns, ...]``, row by row.
    """
    checks.key(key)
    prior_key, likelihood_key = jax.random.split(key)
    prior = call(model.prior, params, context=context)
    # A prior that depends on the context has a batch axis of its own: one draw for each row of it.
    conditional = context is not None and len(prior.batch_shape) > 0
    z = prior.sample_and_log_prob(seed=prior_key, sample_shape=() if conditional else (num_rows * num_columns,))[0]
    likelihood = call(model.likelihood, params, z, context=context)
    images = likelihood.sample(seed=likelihood_key) if ancestral else _centre(likelihood)
    shape = image_shape or tuple(images.shape[1:])
    grid = np.asarray(images).reshape(num_rows, num_columns, *shape)
    figure = _image_grid([("", row) for row in grid])
    figure.suptitle("x ~ p(x|z), z ~ p(z)" if ancestral else "means of p(x|z), z ~ p(z)", fontsize="medium")
    return figure


def _centre(distribution: Any) -> Array:
    """The mean, or the mode of families without one (labels)."""
    try:
        return distribution.mean()
    except NotImplementedError:
        return distribution.mode()


def _image_grid(rows: list[tuple[str, np.ndarray]]) -> Figure:
    shape = rows[0][1].shape[1:]
    if len(shape) not in (2, 3):
        raise ValueError(f"examples of shape {list(shape)} are no images; give image_shape=(height, width)")
    low, high = min(r.min() for _, r in rows), max(r.max() for _, r in rows)
    columns = rows[0][1].shape[0]
    size = (0.6 * columns + 0.6, 0.6 * len(rows) * shape[0] / shape[1] + 0.1)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (name, images) in zip(grid, rows):
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axis, image in zip(axes, images):
            axis.imshow(image, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_color("0.8")
    return figure
