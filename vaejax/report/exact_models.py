"""The models of ``vaejax fit``: how each is fitted, counted, told and drawn."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vaejax import checks, plots
from vaejax.conjugate import FitResult, factor_analysis, gmm, ppca, varimax
from vaejax.report import fit_options
from vaejax.report.exact_sheets import Sheet, components, in_own_units, loadings
from vaejax.report.exact_table import Table
from vaejax.report.pictures import Drawings
from vaejax.types import Array, Batch, Key, Params

_SIZES = range(1, 6)
_CLASSES, _TOLD, _DRAWN = 10, 12, 60


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
        sheet: ``(params, options, table) -> `` the parameters as a table.
        most: ``table -> `` the largest size that its rows and columns allow.
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
    sheet: Callable[[Any, Any, Table], Sheet]
    most: Callable[[Table], int]
    drawings: Callable[[Any, Any, Table], Drawings]


def _gmm_sizes(options: fit_options.Gmm, table: Table) -> list[int]:
    count = _num_rows(table)
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


def _gmm_drawings(params: gmm.Gmm, options: fit_options.Gmm, table: Table) -> Drawings:
    own = in_own_units(params, table)
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


def _num_rows(table: Table) -> int:
    return len(table.parts["train"].x)


def _columns(table: Table) -> str:
    return f"{len(table.columns)} column{'s' * (len(table.columns) != 1)}"


def _latent_sizes(options: fit_options.Ppca, table: Table, largest: int, why: str, rows: bool = False) -> list[int]:
    count = _num_rows(table) if rows else len(table.columns)
    limit = f"{count} training row{'s' * (count != 1)}" if rows else _columns(table)
    if largest < 1:
        raise ValueError(
            f"{table.name} has {limit}{'' if rows else ' to fit'}, too few for one latent dimension; {why}"
        )
    for wanted in options.latents:
        if checks.positive_int(wanted, "--latents") > largest:
            raise ValueError(f"--latents {wanted} is too many for {limit}, take at most {largest}: {why}")
    return sorted(set(options.latents)) or [q for q in _SIZES if q <= largest]


def _ppca_most(table: Table) -> int:
    return min(len(table.columns) - 1, _num_rows(table) - 2)


def _ppca_sizes(options: fit_options.Ppca, table: Table) -> list[int]:
    why = "some direction of the rows must be left for the noise"
    return _latent_sizes(options, table, _ppca_most(table), why, _ppca_most(table) < len(table.columns) - 1)


def _ppca_fit(options: fit_options.Ppca, key: Key, table: Table, size: int) -> tuple[Params, FitResult | None]:
    train = table.parts["train"]
    if train.mask is None:
        return ppca.fit_ml(train.x, size), None
    found = ppca.fit_em(key, train, size, max_steps=options.max_steps, tolerance=options.tolerance)
    return found.params, found


def _fa_most(table: Table) -> int:
    return factor_analysis.max_factors(len(table.columns))


def _fa_sizes(options: fit_options.Fa, table: Table) -> list[int]:
    checks.positive_int(options.starts, "--starts")
    if len(table.columns) < 3:
        other = "; use vaejax fit ppca" if len(table.columns) == 2 else ""
        raise ValueError(f"{table.name} has {_columns(table)} to fit, and factor analysis needs at least 3{other}")
    why = "more factors have more free numbers than the covariance that they explain"
    return _latent_sizes(options, table, _fa_most(table), why)


def _fa_fit(options: fit_options.Fa, key: Key, table: Table, size: int) -> tuple[Params, FitResult | None]:
    train = table.parts["train"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = factor_analysis.fit_em(
            key, train, size, max_steps=options.max_steps, tolerance=options.tolerance, num_starts=options.starts
        )
    for warning in caught:
        warnings.warn(_named(warning.message, table, size), warning.category, stacklevel=2)
    params = found.params
    if options.rotation == "varimax" and size > 1:
        params = params._replace(weight=varimax(params.weight))
    return params, found


def _named(warning: Warning | str, table: Table, size: int) -> str:
    """What it says, columns by their names, ways out by those of the command line."""
    if not isinstance(warning, factor_analysis.Heywood):
        return str(warning)
    names = ", ".join(repr(table.columns[column]) for column in warning.columns[:_TOLD])
    return (
        f"the factors explain {names} whole (Heywood case), and the log-likelihood need have no maximum; take "
        f"{'fewer --latents, ' if size > 1 else ''}more rows, leave columns out (--without), or use vaejax fit ppca"
    )


def _latent_columns(posterior: Any) -> dict[str, Array]:
    mean = posterior.mean()
    sd = jnp.broadcast_to(jnp.sqrt(posterior.variance()), mean.shape)
    return {f"{name}_{j}": values[:, j] for name, values in (("z", mean), ("sd", sd)) for j in range(mean.shape[1])}


def _ppca_words(params: ppca.Ppca, table: Table) -> str:
    size, count = params.weight.shape
    squares, variance = float(np.sum(np.asarray(params.weight) ** 2)), float(params.variance)
    # As in a scree plot: what lies along the directions kept, noise included.
    share = (squares + count * variance) / (squares + size * variance)
    kept = "the direction kept holds" if count == 1 else f"the {count} directions kept hold"
    return f"noise σ = {variance**0.5:.4g}{_units(table)}; {kept} {100 * share:.1f} % of the variance"


def _ppca_sheet(params: ppca.Ppca, options: fit_options.Ppca, table: Table) -> Sheet:
    return loadings(params.weight, params.variance, table, "principal axes")


def _fa_sheet(params: factor_analysis.FactorAnalysis, options: fit_options.Fa, table: Table) -> Sheet:
    turned = options.rotation == "varimax" and params.weight.shape[1] > 1
    return loadings(params.weight, params.noise, table, "varimax" if turned else "not rotated")


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
        if len(table.columns) <= _DRAWN:
            made["loadings"] = lambda: plots.loadings(params, columns=table.columns)
        if train.mask is None and module is ppca:
            made["scree"] = lambda: plots.scree(train.x, latents, params)
        return made

    return drawings


KINDS: dict[type, Kind] = {
    fit_options.Gmm: Kind(
        "gmm", "Gaussian mixtures", "components", _gmm_sizes, _gmm_fit, lambda params, rows: gmm.log_prob(params, rows.x),
        lambda params, options: gmm.num_parameters(params, options.covariance), _gmm_columns, lambda params, table: "",
        lambda params, options, table: components(params, table), _num_rows, _gmm_drawings,
    ),
    fit_options.Ppca: Kind(
        "ppca", "Probabilistic PCA", "latents", _ppca_sizes, _ppca_fit, ppca.log_prob, lambda params, _: ppca.num_parameters(params),
        lambda params, rows: _latent_columns(ppca.posterior(params, rows)), _ppca_words, _ppca_sheet, _ppca_most,
        _latent_drawings(ppca),
    ),
    fit_options.Fa: Kind(
        "fa", "Factor analysis", "latents", _fa_sizes, _fa_fit, factor_analysis.log_prob,
        lambda params, _: factor_analysis.num_parameters(params),
        lambda params, rows: _latent_columns(factor_analysis.posterior(params, rows)), lambda params, table: "", _fa_sheet, _fa_most,
        _latent_drawings(factor_analysis),
    ),
}  # fmt: skip
