"""The models of ``vaejax fit``: how each is fitted, counted, told and drawn."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vaejax import checks, plots
from vaejax.conjugate import FitResult, factor_analysis, gmm, ppca
from vaejax.report import fit_options
from vaejax.report.exact_table import Table
from vaejax.report.pictures import Drawings
from vaejax.types import Array, Batch, Key, Params

_SIZES = range(1, 6)
_CLASSES, _TOLD = 10, 12


class Kind(NamedTuple):
    """A model, as the command line knows it.

    Attributes:
        name: of its command.
        title: in words.
        noun: what its size counts.
        sizes: ``(options, table) -> `` the sizes to fit, checked.
        fit: ``(options, key, table, size) -> (params, FitResult or None where there is a closed form)``.
        log_prob: ``(params, rows) -> [n]`` nats.
        num_parameters: ``(params, options) -> `` how many numbers are free.
        row_columns: ``(params, rows) -> `` what is told of each row: name to ``[n]``.
        words: ``(params, table) -> `` one line about the parameters, or nothing.
        drawings: ``(params, options, table) -> `` figures of its own.
    """

    name: str
    title: str
    noun: str
    sizes: Callable[[Any, Table], list[int]]
    fit: Callable[[Any, Key, Table, int], tuple[Params, FitResult | None]]
    log_prob: Callable[[Any, Batch], Any]
    num_parameters: Callable[[Any, Any], int]
    row_columns: Callable[[Any, Batch], dict[str, Array]]
    words: Callable[[Any, Table], str]
    drawings: Callable[[Any, Any, Table], Drawings]


def _gmm_sizes(options: fit_options.Gmm, table: Table) -> list[int]:
    count = len(table.parts["train"].x)
    if table.missing:
        raise ValueError(
            f"{table.name} has missing cells, and a Gaussian mixture needs complete rows; remove incomplete rows, leave columns out "
            "with --without, or use vaejax fit ppca or fa, which serve missing cells"
        )
    for size in options.components:
        if checks.positive_int(size, "--components") > count:
            raise ValueError(f"--components {size} is more than the {count} training rows of {table.name}; take fewer")
    checks.positive_int(options.starts, "--starts")
    checks.real(options.prior_count, "--prior-count", minimum=0.0)
    return sorted(set(options.components)) or [size for size in _SIZES if size <= count]


def _gmm_fit(options: fit_options.Gmm, key: Key, table: Table, size: int) -> tuple[Params, FitResult | None]:
    found = gmm.fit_em(
        key, table.parts["train"].x, size, covariance=options.covariance, num_starts=options.starts,
        prior_count=options.prior_count, max_steps=options.max_steps, tolerance=options.tolerance,
    )  # fmt: skip
    return found.params, found


def _gmm_columns(params: gmm.Gmm, rows: Batch) -> dict[str, Array]:
    probs = gmm.posterior(params, rows.x).probs
    return {"component": jnp.argmax(probs, 1), **{f"p_{k}": probs[:, k] for k in range(probs.shape[1])}}


def _gmm_words(params: gmm.Gmm, table: Table) -> str:
    weights = [f"{weight:.3f}" for weight in np.asarray(params.weight)]
    return f"weights of the components: {' '.join(weights[:_TOLD])}{' …' * (len(weights) > _TOLD)}"


def _gmm_drawings(params: gmm.Gmm, options: fit_options.Gmm, table: Table) -> Drawings:
    square = params.covariance.ndim == 3
    scale = table.scale[:, None] * table.scale if square else table.scale**2
    own = gmm.Gmm(params.weight, params.mean * table.scale + table.mean, params.covariance * scale)
    shown = _apart(own)
    return {"mixture": lambda: plots.mixture(own, table.in_own_units("train"), columns=shown, names=table.columns)}


def _apart(params: gmm.Gmm) -> tuple[int, ...]:
    """The two columns whose variance lies between the components more than in others."""
    weight, mean, covariance = (np.asarray(leaf) for leaf in params)
    within = weight @ np.broadcast_to(
        np.diagonal(covariance, axis1=1, axis2=2) if covariance.ndim == 3 else covariance, mean.shape
    )
    between = weight @ (mean - weight @ mean) ** 2
    return tuple(sorted(np.argsort(-between / (between + within), kind="stable")[:2].tolist()))


def _latent_sizes(options: fit_options.Ppca, table: Table, largest: int, why: str, rows: bool = False) -> list[int]:
    count = len(table.parts["train"].x) if rows else len(table.columns)
    limit = f"{count} {'training row' if rows else 'column'}{'s' * (count != 1)}"
    if largest < 1:
        raise ValueError(
            f"{table.name} has {limit}{'' if rows else ' to fit'}, too few for one latent dimension; {why}"
        )
    for wanted in options.latents:
        if checks.positive_int(wanted, "--latents") > largest:
            raise ValueError(f"--latents {wanted} is too many for {limit}, take at most {largest}: {why}")
    return sorted(set(options.latents)) or [q for q in _SIZES if q <= largest]


def _ppca_sizes(options: fit_options.Ppca, table: Table) -> list[int]:
    columns, rows = len(table.columns) - 1, len(table.parts["train"].x) - 2
    why = "some direction of the rows must be left for the noise"
    return _latent_sizes(options, table, min(columns, rows), why, rows < columns)


def _ppca_fit(options: fit_options.Ppca, key: Key, table: Table, size: int) -> tuple[Params, FitResult | None]:
    train = table.parts["train"]
    if train.mask is None:
        return ppca.fit_ml(train.x, size), None
    found = ppca.fit_em(key, train, size, max_steps=options.max_steps, tolerance=options.tolerance)
    return found.params, found


def _fa_sizes(options: fit_options.Fa, table: Table) -> list[int]:
    size = len(table.columns)
    # Lawley & Maxwell 1971: W and ψ must not have more free numbers than the covariance.
    largest = max((q for q in range(size) if (size - q) ** 2 >= size + q), default=0)
    return _latent_sizes(
        options, table, largest, "more factors have more free numbers than the covariance that they explain"
    )


def _fa_fit(options: fit_options.Fa, key: Key, table: Table, size: int) -> tuple[Params, FitResult | None]:
    train = table.parts["train"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = factor_analysis.fit_em(key, train, size, max_steps=options.max_steps, tolerance=options.tolerance)
    for warning in caught:
        warnings.warn(_named(warning.message, table), warning.category, stacklevel=2)
    return found.params, found


def _named(warning: Warning | str, table: Table) -> str:
    """What it says, columns by their names, ways out by those of the command line."""
    if not isinstance(warning, factor_analysis.Heywood):
        return str(warning)
    names = ", ".join(repr(table.columns[column]) for column in warning.columns[:_TOLD])
    return (
        f"the factors explain {names} whole (Heywood case), and the log-likelihood need have no maximum; take fewer --latents, more rows, "
        "or vaejax fit ppca"
    )


def _latent_columns(posterior: Any) -> dict[str, Array]:
    mean = posterior.mean()
    sd = jnp.broadcast_to(jnp.sqrt(posterior.variance()), mean.shape)
    return {f"{name}_{j}": values[:, j] for name, values in (("z", mean), ("sd", sd)) for j in range(mean.shape[1])}


def _ppca_words(params: ppca.Ppca, table: Table) -> str:
    held = float(np.sum(np.asarray(params.weight) ** 2))
    share = held / (held + len(table.columns) * float(params.variance))
    return f"noise σ = {float(params.variance) ** 0.5:.4g}{_units(table)}; the latents hold {100 * share:.1f} % of the variance"


def _shared(params: factor_analysis.FactorAnalysis) -> np.ndarray:
    """The share of each column's variance that the factors explain, ``[d]``."""
    held = np.sum(np.asarray(params.weight) ** 2, 1)
    return held / (held + np.asarray(params.noise))


def _fa_words(params: factor_analysis.FactorAnalysis, table: Table) -> str:
    told = [f"{name} {value:.2f}" for name, value in zip(table.columns, _shared(params))]
    return f"variance that the factors share: {', '.join(told[:_TOLD])}{', …' * (len(told) > _TOLD)}"


def _units(table: Table) -> str:
    return " (standardised columns)" if (table.scale != 1).any() else ""


def _latent_drawings(module: Any) -> Callable[[Any, Any, Table], Drawings]:
    def drawings(params: Any, options: fit_options.Ppca, table: Table) -> Drawings:
        train, latents = table.parts["train"], params.weight.shape[1]
        labels = None if table.labels is None else table.labels["train"]
        if labels is not None and len(np.unique(labels)) > _CLASSES:
            labels = None  # more colours than can be told apart
        made: Drawings = {
            "latent": lambda: plots.latent_scatter(
                module.as_model(params), params, train, labels=labels, label_names=table.label_names
            )
        }
        if train.mask is None:
            made["scree"] = lambda: plots.scree(train.x, latents, params if module is ppca else None)
        return made

    return drawings


KINDS: dict[type, Kind] = {
    fit_options.Gmm: Kind(
        "gmm", "Gaussian mixtures", "components", _gmm_sizes, _gmm_fit, lambda params, rows: gmm.log_prob(params, rows.x),
        lambda params, options: gmm.num_parameters(params, options.covariance), _gmm_columns, _gmm_words, _gmm_drawings,
    ),
    fit_options.Ppca: Kind(
        "ppca", "Probabilistic PCA", "latents", _ppca_sizes, _ppca_fit, ppca.log_prob, lambda params, _: ppca.num_parameters(params),
        lambda params, rows: _latent_columns(ppca.posterior(params, rows)), _ppca_words, _latent_drawings(ppca),
    ),
    fit_options.Fa: Kind(
        "fa", "Factor analysis", "latents", _fa_sizes, _fa_fit, factor_analysis.log_prob,
        lambda params, _: factor_analysis.num_parameters(params),
        lambda params, rows: _latent_columns(factor_analysis.posterior(params, rows)), _fa_words, _latent_drawings(factor_analysis),
    ),
}  # fmt: skip
