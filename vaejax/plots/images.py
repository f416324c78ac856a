"""Images: inputs and their reconstructions, draws of the prior, means with their spread, ways from one input to another."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from vaejax import checks
from vaejax.evaluate import encoding
from vaejax.evaluate.simulate import check_context, observations, prior_draws
from vaejax.plots import ask, grid
from vaejax.types import Array, Batch, Key, Model, Params

_ACROSS, _MOST = 10, 60


def reconstructions(
    model: Model,
    params: Params,
    key: Key,
    batch: Any,
    *,
    image_shape: tuple[int, ...] | None = None,
    cmap: str = "gray_r",
) -> Figure:
    """Examples above the means of p(x|z), one draw z ~ q(z|x) each, ten to a line; missing pixels are pink in the upper row.

    Args:
        model: the model.
        params: its parameters.
        key: typed key.
        batch: the examples to show, ``[n, *event]``, about ten.
        image_shape: ``(height, width)``, or with 1 or 3 channels last, where the event itself is not an image.
        cmap: colour map of images without colours; ``"gray"`` for photographs.

    Raises:
        TypeError, ValueError: a raw key; data that are none of the model's; more than 60 examples; events that are no images.
    """
    checks.key(key)
    batch = encoding.opened(model, batch, "reconstructions")
    count = batch.x.shape[0]
    if count > _MOST:
        raise ValueError(
            f"the batch holds {count} examples, a page at most {_MOST}; take some, "
            "with jax.tree.map(lambda leaf: leaf[:10], batch)"
        )
    z = encoding.encode(model, params, batch).sample_and_log_prob(seed=key, sample_shape=())[0]
    likelihood = encoding.decode(model, params, z, context=batch.context, mask=batch.mask)
    values, kind = ask.centre(likelihood)
    inputs, outputs = _inputs(batch, image_shape), grid.as_images(values, image_shape)
    name = "E[x|z]" if kind == "mean" else "mode of p(x|z)"
    rows = []
    for start in range(0, count, _ACROSS):
        part = slice(start, start + _ACROSS)
        rows += [grid.Row(inputs[part], "input x", apart=start > 0), grid.Row(outputs[part], name)]
    return grid.rows_of_images(rows, grid.scale(inputs, likelihood, cmap), title="reconstructions, one z ~ q(z|x) each")


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
    cmap: str = "gray_r",
) -> Figure:
    """Images from z ~ p(z): the means of p(x|z), or with ``ancestral`` draws x ~ p(x|z), noise and all (same key, same z).

    Args:
        model: the model.
        params: its parameters.
        key: typed key.
        num_rows: rows of images.
        num_columns: images in a row.
        image_shape: ``(height, width)``, or with 1 or 3 channels last, where the event itself is not an image.
        ancestral: draw x instead of showing its mean.
        context: for conditional models, one row for each image: ``[num_rows · num_columns, ...]``, row by row.
        cmap: colour map of images without colours.

    Raises:
        TypeError, ValueError: a raw key, sizes below 1, a context of another length, events that are no images.
    """
    checks.key(key)
    checks.positive_int(num_rows, "num_rows")
    count = num_rows * checks.positive_int(num_columns, "num_columns")
    context = check_context(context, count, "each image")
    prior_key, likelihood_key = jax.random.split(key)
    z = prior_draws(model, params, prior_key, count, context)
    likelihood = encoding.decode(model, params, z, context=context)
    values, kind = ask.centre(likelihood)
    means = images = grid.as_images(values, image_shape)
    if ancestral:
        images = grid.as_images(observations(likelihood, likelihood_key)[0], image_shape)
    rows = [grid.Row(row) for row in images.reshape(num_rows, num_columns, *images.shape[1:])]
    title = "draws x ~ p(x|z), z ~ p(z)" if ancestral else f"{kind}s of p(x|z), z ~ p(z)"
    # Draws have the scale of their means, so that a few wild ones do not leave the others grey.
    return grid.rows_of_images(rows, grid.scale(means, likelihood, cmap), title=title)


def sigma_strips(
    model: Model,
    params: Params,
    key: Key,
    *,
    num_rows: int = 6,
    ks: Sequence[float] = (-2, -1, 0, 1, 2),
    image_shape: tuple[int, ...] | None = None,
    context: Any = None,
    cmap: str = "gray_r",
) -> Figure:
    """What a learned σ holds: one z ~ p(z) for each row, its columns μ(z) + k·σ(z).

    Where σ is large the columns differ; a σ that hides what μ failed to learn shows as detail that only the outer columns have.
    The grey scale is that of the means: what lies beyond it is white or black.

    Args:
        model: the model; its likelihood has a standard deviation of its own (normal).
        params: its parameters.
        key: typed key.
        num_rows: draws of z.
        ks: multiples of σ.
        image_shape: ``(height, width)``, or with 1 or 3 channels last, where the event itself is not an image.
        context: for conditional models, ``[num_rows, ...]``.
        cmap: colour map of images without colours.

    Raises:
        TypeError, ValueError: a raw key; a likelihood whose mean fixes its spread; no ks; events that are no images.

    Source:
        Beaulac 2019, figures 5 and 6.
    """
    checks.key(key)
    checks.positive_int(num_rows, "num_rows")
    steps = [float(checks.real(k, "each of ks")) for k in ks]
    if not steps:
        raise ValueError("ks is empty; give multiples of σ such as (-2, -1, 0, 1, 2)")
    context = check_context(context, num_rows, "each row")
    z = prior_draws(model, params, key, num_rows, context)
    likelihood = encoding.decode(model, params, z, context=context)
    mean, deviation = _mean_and_deviation(likelihood)
    strips = np.stack([mean + k * deviation for k in steps], axis=1)
    images = grid.as_images(strips.reshape(-1, *mean.shape[1:]), image_shape)
    rows = [grid.Row(row) for row in images.reshape(num_rows, len(steps), *images.shape[1:])]
    names = tuple(
        "μ" if k == 0 else f"μ {'+' if k > 0 else '−'} {'' if abs(k) == 1 else f'{abs(k):g}'}σ" for k in steps
    )
    # By the means: a σ that is huge somewhere would leave them one grey.
    limits = grid.scale(grid.as_images(mean, image_shape), likelihood, cmap)
    title = "μ(z) + kσ(z) of p(x|z), for each row one z ~ p(z); scale of the means"
    return grid.rows_of_images(rows, limits, title=title, column_names=names)


def _mean_and_deviation(likelihood: Any) -> tuple[np.ndarray, np.ndarray]:
    base = ask.base_of(likelihood)
    if not any(hasattr(base, name) for name in ("scale", "scale_diag", "scale_tril", "covariance")):
        raise ValueError(
            f"the likelihood is {type(base).__name__}, whose mean fixes its standard deviation; sigma_strips draws normal "
            "likelihoods, for others use prior_samples(ancestral=True)"
        )
    mean = likelihood.mean()
    return np.asarray(mean[0]), np.asarray(jnp.broadcast_to(jnp.sqrt(likelihood.variance()), mean.shape)[0])


def interpolation(
    model: Model,
    params: Params,
    batch: Any,
    *,
    num: int = 9,
    image_shape: tuple[int, ...] | None = None,
    key: Key | None = None,
    cmap: str = "gray_r",
) -> Figure:
    """From one input to another: the means of p(x|z) at ``num`` points of the straight line between their posterior means.

    The first and the last decoded image are the reconstructions of the two inputs (from the posterior mean). A context of real numbers is
    interpolated too; of labels, each point has those of the nearer input.

    Args:
        model: the model.
        params: its parameters.
        batch: ``[2n, *event]``: the two ends of the first row, of the second, …
        num: decoded images in a row, ends included.
        image_shape: ``(height, width)``, or with 1 or 3 channels last, where the event itself is not an image.
        key: typed key, for posteriors that know no mean.
        cmap: colour map of images without colours.

    Raises:
        TypeError, ValueError: an odd number of examples, ``num`` below 2, data that are none of the model's, events that are no images.
    """
    if checks.positive_int(num, "num") < 2:
        raise ValueError("num must be at least 2, the two ends, got 1; for single images use reconstructions")
    batch = encoding.opened(model, batch, "interpolation")
    count = batch.x.shape[0]
    if count % 2:
        raise ValueError(f"the batch holds {count} examples, an odd number; give the two ends of each row in turn")
    ends = encoding.posterior_mean(encoding.encode(model, params, batch), key)
    context = jax.tree.map(lambda leaf: _between(leaf, num), batch.context)
    likelihood = encoding.decode(model, params, _between(ends, num), context=context)
    values, kind = ask.centre(likelihood)
    inputs, decoded = _inputs(batch, image_shape), grid.as_images(values, image_shape)
    decoded = decoded.reshape(count // 2, num, *decoded.shape[1:])
    rows = [
        grid.Row(
            np.ma.concatenate([inputs[2 * i : 2 * i + 1], decoded[i], inputs[2 * i + 1 : 2 * i + 2]]),
            framed=(0, num + 1),
        )
        for i in range(count // 2)
    ]
    names = ("input", *(f"{j / (num - 1):.2g}" for j in range(num)), "input")
    title = (
        f"inputs (framed) and {kind}s of p(x|z) on the line between their posterior means, by the fraction of the way"
    )
    return grid.rows_of_images(rows, grid.scale(inputs, likelihood, cmap), title=title, column_names=names)


def _between(leaf: Array, num: int) -> Array:
    """``num`` points from each even row to the odd one after it: ``[n · num, ...]``."""
    start, end = leaf[0::2, None], leaf[1::2, None]
    weight = jnp.linspace(0.0, 1.0, num).reshape(1, num, *(1,) * (leaf.ndim - 1))
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return ((1 - weight) * start + weight * end).reshape(-1, *leaf.shape[1:])
    return jnp.where(weight < 0.5, start, end).reshape(-1, *leaf.shape[1:])


def _inputs(batch: Batch, image_shape: tuple[int, ...] | None) -> np.ndarray:
    """The examples as images, their missing pixels masked."""
    x = np.asarray(batch.x)
    return grid.as_images(x if batch.mask is None else np.ma.array(x, mask=~np.asarray(batch.mask)), image_shape)
