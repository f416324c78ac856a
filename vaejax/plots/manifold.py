"""What a plane of the latent space decodes to."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from matplotlib.figure import Figure

from vaejax import checks
from vaejax.evaluate import encoding
from vaejax.plots import ask, grid, style
from vaejax.types import Model, Params


def manifold(
    model: Model,
    params: Params,
    *,
    num: int = 15,
    image_shape: tuple[int, ...] | None = None,
    dimensions: tuple[int, ...] = (0, 1),
    context: Any = None,
    cmap: str = "gray_r",
) -> Figure:
    """The means of p(x|z) over a grid of standard-normal quantiles: z_i = Φ⁻¹((k + ½)/num) to the right, z_j upwards, any others at 0.

    Neighbouring images are equally far apart in prior probability, not in z.

    Args:
        model: the model; its latent is a vector.
        params: its parameters.
        num: images in a row and in a column.
        image_shape: ``(height, width)``, or with 1 or 3 channels last, where the event itself is not an image.
        dimensions: i and j; a single one gives one row of images.
        context: for conditional models, the one that the figure is drawn for: ``[1, ...]``.
        cmap: colour map of images without colours.

    Raises:
        TypeError, ValueError: ``num`` below 1, dimensions that the latent lacks, a context of more than one row, events that are no images.

    Source:
        Kingma & Welling 2014, appendix A.
    """
    checks.positive_int(num, "num")
    size = vector_size(model, params, context, "manifold")
    chosen = tuple(dimensions)
    if len(chosen) not in (1, 2) or len(set(chosen)) < len(chosen) or not all(0 <= j < size for j in chosen):
        hint = "; a latent of one dimension takes dimensions=(0,)" if size == 1 else ""
        raise ValueError(f"dimensions must be one or two different ones of 0 to {size - 1}, got {chosen}{hint}")
    quantiles = np.asarray(ndtri((jnp.arange(num) + 0.5) / num))
    # Rows from the top: the largest z_j first.
    upwards = quantiles[::-1] if len(chosen) > 1 else np.zeros(1)
    z = np.zeros((len(upwards), num, size), quantiles.dtype)
    z[..., chosen[0]] = quantiles
    if len(chosen) > 1:
        z[..., chosen[1]] = upwards[:, None]
    likelihood = encoding.decode(
        model, params, jnp.asarray(z.reshape(-1, size)), context=ask.repeated(context, len(upwards) * num)
    )
    values, kind = ask.centre(likelihood)
    images = grid.as_images(values, image_shape)
    limits = grid.scale(images, likelihood, cmap)
    others = f"the other latents ({size - len(chosen)}) at 0; " if size > len(chosen) else ""
    title = f"{kind}s of p(x|z) at standard-normal quantiles of z\n{others}{grid.legend(limits, images)}"
    return _mosaic(images.reshape(len(upwards), num, *images.shape[1:]), quantiles, chosen, limits, title)


def vector_size(model: Model, params: Params, context: Any, figure: str) -> int:
    """The length of z.

    Raises:
        ValueError: where z is no vector.
    """
    shape = encoding.latent_shape(model, params, context)
    if len(shape) != 1:
        raise ValueError(
            f"{figure} moves through a latent vector, got latents of shape {list(shape)}; flatten them in the model"
        )
    return shape[0]


def _mosaic(
    images: np.ndarray, quantiles: np.ndarray, dimensions: tuple[int, ...], limits: grid.Scale, title: str
) -> Figure:
    rows, columns, height, width = images.shape[:4]
    picture = np.swapaxes(images, 1, 2).reshape(rows * height, columns * width, *images.shape[4:])
    across = min(5.5, 0.62 * columns + 0.8)
    figure = style.figure(max(across, 3.5), min(7.5, (across - 0.8) * picture.shape[0] / picture.shape[1] + 1.0))
    axes = figure.subplots()
    grid.draw(axes, picture, limits)
    style.panel(axes, title=title, x=f"$z_{{{dimensions[0]}}}$")
    axes.spines[:].set(visible=True, color=style.FAINT, linewidth=0.6)
    # Thin lines between the images, which otherwise run into each other.
    axes.vlines(np.arange(1, columns) * width - 0.5, -0.5, rows * height - 0.5, color=style.FAINT, lw=0.5)
    axes.hlines(np.arange(1, rows) * height - 0.5, -0.5, columns * width - 0.5, color=style.FAINT, lw=0.5)
    step = -(-columns // 15)
    shown = np.arange((columns - 1) % step // 2, columns, step)
    names = [f"{round(float(quantiles[k]), 1) + 0.0:.1f}".replace("-", "−") for k in shown]
    axes.set_xticks(shown * width + (width - 1) / 2, names)
    axes.set_yticks([])
    if len(dimensions) > 1:
        axes.set_ylabel(f"$z_{{{dimensions[1]}}}$", fontsize=style.TEXT)
        axes.set_yticks((rows - 1 - shown) * height + (height - 1) / 2, names)
    return figure
