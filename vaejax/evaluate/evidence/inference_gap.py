"""Where the ELBO loses: to the family of q, and to one encoder for all examples."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaejax import checks, compilation
from vaejax.estimators import sticking_the_landing
from vaejax.estimators.base import peek_posterior
from vaejax.evaluate.blocks import in_blocks
from vaejax.evaluate.encoding import encode
from vaejax.evaluate.evidence.bounds import BOUND_AND_WEIGHTS
from vaejax.evaluate.evidence.chains import fingerprint, unmovable
from vaejax.evaluate.evidence.families import Family, at_own, full_covariance, mean_field
from vaejax.evaluate.evidence.importance import elbo_of, log_marginal_of, warn_untrustworthy
from vaejax.evaluate.evidence.lines import Evidence, exceeds
from vaejax.evaluate.stream import BLOCK, check_hashable, compiled
from vaejax.evaluate.summary import MeanEstimate, mean_estimate, moments
from vaejax.objectives import elbo
from vaejax.types import Array, Batch, EmptyState, Key, Model, Params, on_device


class InferenceGap(NamedTuple):
    """The gap between log p(x) and the ELBO, split in two, for each example.

    Attributes:
        log_marginal: ``[n]`` log p(x), nats: by importance sampling from the optimised q, or as given (``source``).
        optimised: ``[n]`` ELBO of the optimised q.
        amortised: ``[n]`` ELBO of the encoder's q.
        approximation: ``[n]`` log p(x) − optimised: what the best q of the family misses, KL(q* ‖ p(z|x)); too small by as much as
            log p(x) is too low.
        amortisation: ``[n]`` optimised − amortised: what the encoder misses beside it.
        standard_error: the Monte Carlo standard errors of these five, ``[n]`` each, by name.
        pareto_k: ``[n]`` of the importance weights of the optimised q.
        source: of ``log_marginal``: ``"given"`` or ``"importance sampling from q*"``.
        steps: ``[P]`` the steps at which the search was looked at.
        trace: ``[P]`` mean ELBO at those, by the draws of the gradient: level at its end, or more steps are needed.
        weight: ``[n]`` the weights of the batch, by which means over the examples are weighted; None without.
    """

    log_marginal: Array
    optimised: Array
    amortised: Array
    approximation: Array
    amortisation: Array
    standard_error: dict[str, Array]
    pareto_k: Array
    source: str
    steps: np.ndarray
    trace: np.ndarray
    weight: np.ndarray | None = None

    def mean(self, name: str) -> MeanEstimate:
        """The mean over examples of one of the five, with both errors."""
        return mean_estimate(getattr(self, name), self.standard_error[name], weight=self.weight)

    def __str__(self) -> str:
        names = ("log_marginal", "optimised", "amortised", "approximation", "amortisation")
        lines = [f"{name:13} {self.mean(name)} nats" for name in names]
        return "\n".join([*lines, *(f"- {note}" for note in self.notes)])

    @property
    def notes(self) -> tuple[str, ...]:
        """What the numbers rest on."""
        said = [f"log p(x) is {self.source}: where that is a lower bound in the mean, so is the approximation gap"]
        half = len(self.trace) // 2
        if len(self.trace) > 3:
            risen = float(self.trace[-1] - self.trace[half])
            said.append(
                f"the mean ELBO rose by {risen:.3f} nats over the second half of the search; if that is not small, take more steps"
            )
        return tuple(said)


def inference_gap(
    model: Model,
    params: Params,
    key: Key,
    batch: Any,
    *,
    family: str | Family = "mean_field",
    evidence: Any = None,
    num_steps: int = 1000,
    learning_rate: float = 0.03,
    num_draws: int = 10,
    num_samples: int = 5000,
    block_size: int = BLOCK,
    directory: Any = None,
    progress: bool | None = None,
) -> InferenceGap:
    """log p(x) − ELBO = [log p(x) − L(q*)] + [L(q*) − L(q)]: approximation gap and amortisation gap of each example.

    q* maximises the ELBO of its own example among the family, from the encoder's q on, by Adam with a cosine schedule and
    sticking-the-landing gradients. The bounds are then evaluated with other draws. A search that has not ended makes the approximation gap
    too large and the amortisation gap too small: look at ``trace``.

    Args:
        model: with continuous latents in one array ``[*event]``.
        params: its parameters; they stay.
        key: typed key.
        batch: a `Batch` or an array ``[n, *event]``.
        family: ``"mean_field"``, ``"full_covariance"``, or a `Family` of one's own (a flow).
        evidence: log p(x) of the same examples, a result with ``estimate`` and ``standard_error`` such as `ais` gives. Without it,
            or where it is below importance sampling from q* by two paired standard errors, the latter is taken.
        num_steps: of the search.
        learning_rate: at its beginning.
        num_draws: of each gradient.
        num_samples: draws of each evaluation.
        block_size: examples searched side by side, between two looks at the disk and the bar.
        directory: keeps what is done (`in_blocks`).
        progress: a bar; None shows it on a terminal only.

    Raises:
        TypeError: discrete latents, or an encoder whose q knows neither mean nor variance.
        ValueError: an unknown family, evidence of other examples, latents in several arrays.

    Source:
        Cremer, Li & Duvenaud 2018, section 3.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> params, x = model.init(jax.random.key(0), None), jax.numpy.ones((3, 4))
        >>> gap = inference_gap(model, params, jax.random.key(1), x, num_steps=50, num_samples=200)
        >>> bool((gap.amortisation > 0).all())
        True
    """
    checks.key(key)
    check_hashable(model)
    for value, name in ((num_steps, "num_steps"), (num_draws, "num_draws"), (num_samples, "num_samples")):
        checks.positive_int(value, name)
    checks.real(learning_rate, "learning_rate", minimum=0.0, open_minimum=True)
    batch = on_device(checks.batch(batch, "batch", model))
    batch, weight = batch._replace(weight=None), None if batch.weight is None else np.asarray(batch.weight)
    chosen = _family(model, params, key, batch, family)
    given = _given(evidence, len(batch.x))
    search = _Search(num_steps, num_draws, num_samples)

    def run(key: Key, block: Batch) -> dict[str, Any]:
        search_key, best_key, own_key = jax.random.split(key, 3)
        own, trace = _optimise(model, chosen, search, params, search_key, block, learning_rate)
        best = _measured(
            at_own(model, chosen), num_samples, params, best_key, block._replace(context=(own, block.context))
        )
        encoder = _measured(model, num_samples, params, own_key, block)
        found = {"optimised": best[0].estimate, "optimised_error": best[0].standard_error}
        found |= {"amortised": encoder[0].estimate, "amortised_error": encoder[0].standard_error}
        found |= {"log_marginal": best[1].estimate, "log_marginal_error": best[1].standard_error}
        return found | {"pareto_k": best[1].pareto_k, "trace": trace}

    kept = None if directory is None else (params, search, learning_rate, _recognised(model, chosen, params, batch))
    found = in_blocks(
        run, key, batch, block_size=block_size, directory=directory, settings=kept,
        progress=progress, description="optimising q",
    )  # fmt: skip
    return _split(found, given, search, weight)


class _Search(NamedTuple):
    num_steps: int
    num_draws: int
    num_samples: int


def _family(model: Model, params: Params, key: Key, batch: Batch, family: str | Family) -> Family:
    seen = peek_posterior(model, params, key, batch)
    reason = unmovable(seen)
    if reason is not None:
        raise TypeError(f"{reason}; the inference gap is split for continuous latents only")
    if seen.batch_ndims != 1:
        raise ValueError(
            f"inference_gap needs a batch [n, *event], got {seen.batch_ndims} batch axes; reshape the data"
        )
    if isinstance(family, Family):
        return family
    checks.one_of(family, "family", ("mean_field", "full_covariance"))
    if not hasattr(seen.latents, "shape"):
        raise ValueError(
            f"the family {family!r} is for latents in one array, got {len(jax.tree.leaves(seen.latents))}; give a vaejax.evaluate.Family"
        )
    event_ndims = seen.latents.ndim - 2
    if family == "mean_field":
        return mean_field(event_ndims)
    if event_ndims != 1:
        raise ValueError(f"full_covariance is for latents [d], got {event_ndims} event axes; use 'mean_field'")
    return full_covariance()


def _given(evidence: Any, count: int) -> Evidence | None:
    if evidence is None:
        return None
    evidence = getattr(evidence, "evidence", evidence)  # a report quotes one of its own
    if not hasattr(evidence, "estimate") or not hasattr(evidence, "standard_error"):
        raise TypeError(
            f"evidence must have estimate and standard_error, as results of vaejax.evaluate do, got {type(evidence).__name__}; give "
            "arrays as vaejax.evaluate.Evidence(estimate, standard_error)"
        )
    given = Evidence(np.asarray(evidence.estimate), np.asarray(evidence.standard_error))  # of this batch's weights
    if given.estimate.shape != (count,) or given.standard_error.shape != (count,):
        raise ValueError(f"evidence must be of the same {count} examples, got shape {list(given.estimate.shape)}")
    return given


def _recognised(model: Model, family: Family, params: Params, batch: Batch) -> Any:
    """The family as a computation, and where it begins: by these a search is known again in another process."""
    first = jax.tree.map(lambda leaf: leaf[:1], batch)
    own = family.begin(encode(model, params, first))
    return own, fingerprint(at_own(model, family), params, first._replace(context=(own, first.context)))


def _split(
    found: dict[str, np.ndarray], given: Evidence | None, search: _Search, weight: np.ndarray | None
) -> InferenceGap:
    trace = moments(found.pop("trace"), weight).mean
    best, source = Evidence(found["log_marginal"], found["log_marginal_error"], weight), "importance sampling from q*"
    if given is not None and not exceeds(best, given):
        best, source = given, "given"
    if best is not given:
        warn_untrustworthy(found["pareto_k"], search.num_samples, weight)
    found |= {"log_marginal": best.estimate, "log_marginal_error": best.standard_error}
    # Put on the device, not copied by a computation: k̂ and errors may be undefined.
    each = {name: jax.device_put(value) for name, value in found.items()}
    errors = {name: each[f"{name}_error"] for name in ("log_marginal", "optimised", "amortised")}
    errors["approximation"] = jnp.hypot(errors["log_marginal"], errors["optimised"])
    errors["amortisation"] = jnp.hypot(errors["optimised"], errors["amortised"])
    looks = np.linspace(0, search.num_steps, len(trace) + 1)[1:]
    return InferenceGap(
        each["log_marginal"], each["optimised"], each["amortised"],
        each["log_marginal"] - each["optimised"], each["optimised"] - each["amortised"],
        errors, each["pareto_k"], source, looks, trace, weight,
    )  # fmt: skip


def _measured(model: Model, num_samples: int, params: Params, key: Key, batch: Batch) -> Any:
    kept = compiled(BOUND_AND_WEIGHTS, model, num_samples, None, params, key, batch)
    return elbo_of(kept[0], num_samples), log_marginal_of(kept[1], num_samples)


@functools.partial(compilation.static_jit, num_static=3, compiler=jax.jit)
def _optimise(
    model: Model, family: Family, search: _Search, params: Params, key: Key, batch: Batch, learning_rate: Any
) -> tuple[Any, Array]:
    """The numbers of each example's q after the search, and its ELBO on the way, ``[n, P]``."""

    def on_params(function: Callable) -> Callable:
        @functools.wraps(function)
        def with_params(own: Any, *args: Any, **options: Any) -> Any:
            return function(params, *args, **options)

        return with_params

    free = model._replace(
        posterior=lambda own, x: family.build(own),
        prior=on_params(model.prior),
        likelihood=on_params(model.likelihood),
        trainable=None,
        refresh=None,
    )
    estimator = sticking_the_landing(free, elbo, num_samples=search.num_draws)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, search.num_steps), eps=1e-10)

    def step(state: tuple[Any, Any], index: Array) -> tuple[tuple[Any, Any], Array]:
        own, moments = state
        estimate, _ = estimator.estimate(own, EmptyState(), jax.random.fold_in(key, index), batch)
        updates, moments = optimizer.update(estimate.grads, moments, own)
        return (optax.apply_updates(own, updates), moments), estimate.objective

    own = family.begin(encode(model, params, batch))
    (own, _), values = jax.lax.scan(step, (own, optimizer.init(own)), jnp.arange(search.num_steps))
    looks = min(search.num_steps, 20)
    return own, jnp.stack([part.mean(0) for part in jnp.array_split(values, looks)], axis=-1)
