"""Which figures a run has, and those that appear while it trains."""

import functools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from vaejax import checks, plots, random
from vaejax.data import Dataset
from vaejax.report.build import Facts, build_preprocess
from vaejax.report.config import RunConfig
from vaejax.report.narrow import shown_columns
from vaejax.terms import log_terms
from vaejax.train import every
from vaejax.types import Batch, Key, Model, Params, TrainState

Drawings = dict[str, Callable[[], Figure]]
_SHOWN, _SCATTERED, _CLASSES = 10, 2000, 10


def drawings(
    model: Model,
    params: Params,
    facts: Facts,
    key: Key,
    test: Batch,
    *,
    labels: Any = None,
    history: Mapping[str, np.ndarray] | None = None,
    train: Batch | None = None,
    cmap: str = "gray_r",
) -> Drawings:
    """The figures that suit a run, by name, each as a function that draws it.

    Args:
        model: the model.
        params: its parameters.
        facts: what the model knows of the data.
        key: typed key.
        test: examples as the model sees them.
        labels: their classes, if known.
        history: from `vaejax.train.fit`, for the curves.
        train: the training examples, whose column means a table's model should have; without them the test ones.
        cmap: colour map of grey images.
    """
    # Some files are sorted by class.
    order = np.asarray(jax.random.permutation(jax.random.key(0), len(test.x)))[:_SCATTERED]
    test, labels = _rows(test, order), None if labels is None else labels[order]
    few, many = _first(test, _SHOWN), _first(test, _SCATTERED)
    pairs = _first(test, min(_SHOWN, len(test.x)) // 2 * 2)
    context = None if not facts.context_size else jnp.arange(50) % facts.context_size
    some_labels = None if labels is None else labels[:_SCATTERED]
    if some_labels is not None and len(np.unique(some_labels)) > _CLASSES:
        some_labels = None  # more colours than can be told apart
    first, second, third = jax.random.split(key, 3)
    made: Drawings = {}
    if history is not None and len(history.get("epoch", ())):
        made["loss"] = lambda: plots.curves(history)
    made["kl_per_latent"] = lambda: plots.kl_per_latent(model, params, many)
    made["latent"] = lambda: plots.latent_scatter(
        model, params, many, labels=some_labels, label_names=facts.label_names
    )
    if len(facts.x_shape) == 1:
        return made | _of_tables(model, params, facts, key, test, test if train is None else train)
    if len(facts.x_shape) not in (2, 3) or (len(facts.x_shape) == 3 and facts.x_shape[-1] not in (1, 3)):
        return made
    made["reconstructions"] = lambda: plots.reconstructions(model, params, first, few, cmap=cmap)
    for name, ancestral in (("samples", False), ("samples_ancestral", True)):
        made[name] = functools.partial(plots.prior_samples, model, params, second, ancestral=ancestral, context=context)
    made["interpolation"] = lambda: plots.interpolation(model, params, pairs, cmap=cmap)
    one = None if context is None else context[:1]
    if facts.likelihood == "normal":
        rows = None if context is None else context[:6]
        made["sigma_strips"] = lambda: plots.sigma_strips(model, params, third, context=rows, cmap=cmap)
    size = model.prior(params).event_shape[-1]
    if size <= 2:  # a plane through more dimensions says little about them
        made["manifold"] = lambda: plots.manifold(model, params, dimensions=(0, 1)[:size], context=one, cmap=cmap)
    return made


def _of_tables(model: Model, params: Params, facts: Facts, key: Key, test: Batch, train: Batch) -> Drawings:
    first, second = jax.random.split(key)
    columns = shown_columns(facts.columns, facts.offset)
    made: Drawings = {"responses": lambda: plots.responses(model, params, first, test, columns=columns)}
    if not facts.context_size:
        made["item_fit"] = lambda: plots.item_fit(model, params, second, train, columns=columns)
        made["item_curves"] = lambda: plots.item_curves(
            model, params, columns=columns, dimension=_strongest(model, params, key, test)
        )
    return made


def _strongest(model: Model, params: Params, key: Key, batch: Batch) -> int:
    """The latent dimension with the largest mean KL."""
    parts = log_terms(model, params, key, batch).kl_parts
    return 0 if parts is None else int(jnp.argmax(jnp.mean(parts.reshape(-1, parts.shape[-1]), axis=0)))


def draw(made: Drawings, names: Any = None) -> dict[str, Figure]:
    """Draws the figures, all or those named.

    Raises:
        ValueError: a name that this run has no figure for.
    """
    return {name: made[checks.one_of(name, "figure", made)]() for name in (made if names is None else names)}


def draw_all(made: Drawings) -> dict[str, Figure]:
    """Draws every figure that can be drawn; what one cannot be drawn for is told in a warning: the numbers matter more."""
    drawn = {}
    for name, function in made.items():
        try:
            drawn[name] = function()
        except (ValueError, TypeError) as error:
            warnings.warn(f"no figure {name}: {error}", stacklevel=2)
    return drawn


def callbacks(model: Model, facts: Facts, dataset: Dataset, config: RunConfig, directory: Path) -> list[Callable]:
    """The picture callback of a run, where its settings ask for one: reconstructions and samples, or a table's responses."""
    if config.training.pictures_every is None:
        return []
    key = random.seed_key(config.training.seed)
    preprocess = build_preprocess(facts)
    shown = _first(dataset.validation if len(dataset.validation.x) else dataset.train, 40)
    batch = shown if preprocess is None else preprocess(key, shown)
    names = {"responses", "reconstructions", "samples"}

    def picture(step: int, state: TrainState, metrics: Mapping[str, Any]) -> None:
        folder = directory / "figures" / "training"
        folder.mkdir(parents=True, exist_ok=True)
        made = drawings(model, state.params, facts, key, batch, cmap=colours(config.name))
        for name, figure in draw_all({k: v for k, v in made.items() if k in names}).items():
            figure.savefig(folder / f"{name}-{metrics['epoch']:06d}.png", dpi=100)

    return [every(config.training.pictures_every, picture)]


def colours(name: str) -> str:
    """The colour map of a dataset's images: ink on paper for handwriting and clothes, light for photographs and one's own."""
    return "gray_r" if name in ("digits", "mnist", "fashion_mnist", "mnist_static") else "gray"


def _rows(batch: Batch, rows: np.ndarray) -> Batch:
    return jax.tree.map(lambda leaf: leaf[rows], batch)


def _first(batch: Batch, count: int) -> Batch:
    return jax.tree.map(lambda leaf: leaf[:count], batch)
