"""What the latents of a trained model do, in one report: KL by dimension, active units, collapse, the aggregate posterior."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from vaejax import checks
from vaejax.estimators.base import peek_posterior
from vaejax.evaluate.latent.active_units import ActiveUnits, KlPerDimension, active_units, known_kl, opened_examples
from vaejax.evaluate.latent.aggregate import Aggregate, aggregate
from vaejax.evaluate.summary import MeanEstimate, check_weight, count_in_words
from vaejax.types import Key, Model, Params

# Rows of the table in print.
_ROWS = 20
# What counts as near: nats below log N, and standard errors.
_NEAR_CEILING = 1.0
_ERRORS = 2.0


class Collapse(NamedTuple):
    """Which dimensions are (ε, δ)-collapsed, each ``[D]``.

    Attributes:
        share: of the examples with KL(q(z_d|x) ‖ p(z_d)) < ε.
        standard_error: √(share (1 − share)/n); where all n agree it is 0, and the share may still be off by some 3/n.
        collapsed: share ≥ 1 − δ, as a bool.
        epsilon: nats.
        delta: the share of examples that may be above.
    """

    share: np.ndarray
    standard_error: np.ndarray
    collapsed: np.ndarray
    epsilon: float
    delta: float


class LatentReport(NamedTuple):
    """What the latents do; `print` shows it as a table.

    Attributes:
        kl: KL by dimension, or None without a closed form for single dimensions, as is ``collapse``.
        active: active units by both definitions; None for latents in more than one array.
        collapse: (ε, δ)-collapse of each dimension.
        aggregate: mean KL, mutual information, KL(q(z) ‖ p(z)) and its parts.
        unused: ``[D]`` the dimensions that carry nothing, as a bool: (ε, δ)-collapsed or inactive by their mean KL; where none is known,
            inactive by the variance of their means. None where ``active`` is.
        verdict: ``"collapsed"``: no dimension has a KL, or the mutual information cannot be told from 0 and no posterior mean moves with x;
            ``"undecided"``: it cannot, but some mean moves, and more examples would tell; ``"partly"``: some dimensions are unused;
            ``"healthy"``: none.
        reason: of the verdict, in words.
        variance_threshold: of ``active``.
        kl_threshold: of ``active``, nats.
    """

    kl: KlPerDimension | None
    active: ActiveUnits | None
    collapse: Collapse | None
    aggregate: Aggregate
    unused: np.ndarray | None
    verdict: str
    reason: str
    variance_threshold: float
    kl_threshold: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What stands in the way of taking the numbers for the population's."""
        found, said = self.aggregate, []
        if found.num_components < found.mean_kl.num_examples:
            said.append(
                f"Each draw saw {found.num_components} components of q(z): I(x; z) is too high in the mean, KL(q(z) ‖ p(z)) too low."
            )
        if found.ceiling - found.mutual_information.mean < _NEAR_CEILING:
            said.append(
                "I(x; z) is near log N; the population's may be above, and what is lacking is in KL(q(z) ‖ p(z)) and the total "
                "correlation: give more examples."
            )
        return tuple(said)

    def __str__(self) -> str:
        return "\n".join(
            [*_whole(self), *self.notes, *_units(self), f"verdict: {self.verdict} ({self.reason})", *_table(self)]
        )


def collapse(kl: Any, *, epsilon: float = 0.01, delta: float = 0.01, weight: Any = None) -> Collapse:
    """Whether P_x[KL(q(z_d|x) ‖ p(z_d)) < ε] ≥ 1 − δ, for each dimension d.

    Args:
        kl: `KlPerDimension`, or its values ``[n, D]`` in nats.
        epsilon: ε, nats.
        delta: δ, between 0 and 1.
        weight: ``[n]``, how many rows each example stands for; None takes the weights of a `KlPerDimension`.

    Returns:
        `Collapse`.

    Raises:
        ValueError: ε or δ out of range, values that are not ``[n, D]`` numbers.

    Source:
        Lucas, Tucker, Grosse & Norouzi 2019 ((ε, δ)-collapse).

    Examples:
        >>> import numpy as np
        >>> collapse(np.array([[0.0, 1.2], [0.001, 0.0]])).collapsed.tolist()
        [True, False]
    """
    epsilon = checks.real(epsilon, "epsilon", minimum=0.0, open_minimum=True)
    delta = checks.real(delta, "delta", minimum=0.0, maximum=1.0)
    values = np.asarray(kl.values if isinstance(kl, KlPerDimension) else kl, np.float64)
    if weight is None and isinstance(kl, KlPerDimension):
        weight = kl.weight
    counts = check_weight(weight, len(values)) if values.ndim == 2 else None
    if counts is not None:
        values, counts = values[counts > 0], counts[counts > 0]
    if values.ndim != 2 or not values.size or np.isnan(values).any():
        raise ValueError(
            f"kl must be [n, D] nats without NaN, got shape {list(values.shape)}; vaejax.evaluate.kl_per_dimension gives it"
        )
    counts = np.ones(len(values)) if counts is None else counts
    below, count = counts @ (values < epsilon), counts.sum()
    share = np.minimum(below / count, 1.0)
    # In counts, so that 99 of 100 are 0.99 whatever 1 − 0.01 rounds to.
    collapsed = count - below <= delta * count * (1 + 1e-12)
    return Collapse(share, np.sqrt(share * (1 - share) / count), collapsed, epsilon, delta)


def latent_report(
    model: Model,
    params: Params,
    key: Key,
    batch: Any,
    *,
    method: str = "full",
    num_samples: int = 2,
    batch_size: int = 1000,
    variance_threshold: float = 0.01,
    kl_threshold: float = 0.01,
    epsilon: float = 0.01,
    delta: float = 0.01,
) -> LatentReport:
    """KL by dimension, active units, collapse, mutual information and the aggregate posterior of a trained model.

    Args:
        model: any latents with a log_prob, under a prior that is the same for all examples.
        params: its parameters.
        key: typed key.
        batch: a `Batch` or an array ``[*batch, *event]``: data that the model was not trained on, some thousand examples.
        method: of `aggregate`.
        num_samples: of `aggregate`.
        batch_size: of `aggregate`.
        variance_threshold: of `active_units`.
        kl_threshold: of `active_units`, nats.
        epsilon: of `collapse`, nats; also what a mutual information that cannot be told from 0 may come to.
        delta: of `collapse`.

    Returns:
        `LatentReport`.

    Raises:
        TypeError, ValueError: as `aggregate`, `active_units` and `collapse`.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> params = jax.tree.map(jax.numpy.zeros_like, model.init(jax.random.key(0), None))
        >>> latent_report(model, params, jax.random.key(1), jax.numpy.eye(4)).verdict
        'collapsed'
    """
    checks.key(key)
    mean_key, draw_key = jax.random.split(key)
    examples = opened_examples(model, params, batch, "latent_report", at_least=2)
    checks.real(epsilon, "epsilon", minimum=0.0, open_minimum=True)
    checks.real(delta, "delta", minimum=0.0, maximum=1.0)
    whole = aggregate(model, params, draw_key, examples, method=method, num_samples=num_samples, batch_size=batch_size)
    kl, active, collapsed, unused = None, None, None, None
    if hasattr(peek_posterior(model, params, mean_key, examples).latents, "shape"):
        thresholds = {"variance_threshold": variance_threshold, "kl_threshold": kl_threshold}
        kl = known_kl(model, params, examples)
        active = active_units(model, params, examples, key=mean_key, **thresholds)
        unused = ~active.by_variance
        if kl is not None:
            collapsed = collapse(kl, epsilon=epsilon, delta=delta)
            unused = collapsed.collapsed | (kl.mean <= kl_threshold)
    verdict, reason = _verdict(whole.mutual_information, active, unused, epsilon)
    return LatentReport(
        kl, active, collapsed, whole, unused, verdict, reason, float(variance_threshold), float(kl_threshold)
    )


def _verdict(
    information: MeanEstimate, active: ActiveUnits | None, unused: np.ndarray | None, epsilon: float
) -> tuple[str, str]:
    # Of these examples: the error of the draws alone, where it is known.
    error = information.monte_carlo_error
    error = information.standard_error if math.isnan(error) else error
    none = information.mean - _ERRORS * error < epsilon
    said = f"mutual information {information.mean:z.3f} ± {error:.3f} nats" + " cannot be told from 0" * none
    if active is None or unused is None:
        return "collapsed" if none else "healthy", f"{said}; latents in several arrays are not told apart"
    how = "by the variance of their means: there is no KL for each" if active.kl is None else "by their KL"
    said = f"{said}; {unused.sum()} of {unused.size} dimensions carry nothing, {how}"
    # Noise alone is no collapse where the means of q(z|x) move.
    if (none and not active.by_variance.any()) or (unused.all() and active.kl is not None):
        return "collapsed", said
    if none:
        return "undecided", said
    return ("partly" if unused.any() else "healthy"), said


def _whole(report: LatentReport) -> list[str]:
    """The quantities of the whole latent."""
    found, mean = report.aggregate, report.aggregate.mean_kl
    drawn = "" if math.isnan(mean.monte_carlo_error) else " (± of the draws alone)"
    closed = None if report.kl is None else report.kl.total
    also = "" if closed is None else f"  in closed form {closed.mean:.3f} ± {closed.standard_error:.3f}"
    lines = [
        f"{count_in_words(mean.num_examples)} examples; nats, mean ± standard error between examples{drawn}",
        _line("mean KL(q(z|x) ‖ p(z))", mean) + also,
        _line("= mutual information I(x; z)", found.mutual_information) + f"  at most log N = {found.ceiling:.2f}",
        _line("+ KL(q(z) ‖ p(z))", found.marginal_kl),
    ]
    if found.total_correlation is not None:
        lines.append(_line("  total correlation of q(z)", found.total_correlation))
    if found.dimension_kl is not None:
        lines.append(_line("  Σ_d KL(q(z_d) ‖ p(z_d))", found.dimension_kl))
    return lines


def _line(name: str, value: MeanEstimate) -> str:
    drawn = "" if math.isnan(value.monte_carlo_error) else f" (± {value.monte_carlo_error:.3f})"
    return f"  {name:31}{value.mean:z9.3f} ± {value.standard_error:.3f}{drawn}"


def _units(report: LatentReport) -> list[str]:
    """Counts of dimensions, with those whose side of the threshold their error leaves open."""
    active, collapsed = report.active, report.collapse
    if active is None:
        return ["active units are not defined for latents in several arrays"]
    size = active.variance.size

    def count(number: int, value: np.ndarray, error: np.ndarray, threshold: float) -> str:
        near = int((np.abs(value - threshold) < _ERRORS * error).sum())
        return f"{number} of {size}" + (f" ({near} within {_ERRORS:g} standard errors of it)" if near else "")

    by_variance = count(
        active.num_by_variance, active.variance, active.variance_standard_error, report.variance_threshold
    )
    lines = [f"active units, Var E[z_d|x] > {report.variance_threshold:g}: {by_variance}"]
    if active.kl is None or collapsed is None:
        return [*lines, "KL(q(z_d|x) ‖ p(z_d)) has no closed form for single dimensions"]
    by_kl = count(active.num_by_kl or 0, active.kl, active.kl_standard_error, report.kl_threshold)  # type: ignore[arg-type]
    rule = f"KL < {collapsed.epsilon:g} nats for at least {100 * (1 - collapsed.delta):g}% of the examples"
    return [
        *lines,
        f"active units, mean KL > {report.kl_threshold:g} nats: {by_kl}",
        f"(ε, δ)-collapsed, {rule}: {collapsed.collapsed.sum()} of {size}",
    ]


def _table(report: LatentReport) -> list[str]:
    """A row for each dimension, those that carry most first."""
    active, collapsed = report.active, report.collapse
    if active is None or report.unused is None:
        return []
    by = active.variance if active.kl is None else active.kl
    order = np.argsort(-by, kind="stable")
    lines = [
        f"{'d':>5}  {'Var E[z_d|x]':>17}" + ("" if collapsed is None else f"  {'mean KL, nats':>17}  share KL < ε")
    ]
    for d in order[:_ROWS]:
        row = f"{d:5}  {active.variance[d]:8.4f} ± {active.variance_standard_error[d]:.4f}"
        if collapsed is not None and active.kl is not None and active.kl_standard_error is not None:
            row += f"  {active.kl[d]:8.4f} ± {active.kl_standard_error[d]:.4f}"
            row += f"  {collapsed.share[d]:6.3f} ± {collapsed.standard_error[d]:.3f}"
        lines.append(row + ("  unused" if report.unused[d] else ""))
    if len(order) > _ROWS:
        rest = report.unused[order[_ROWS:]]
        lines.append(f"  and {len(rest)} that carry less, {rest.sum()} of them unused")
    return lines
