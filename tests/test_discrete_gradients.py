"""Every estimator for latents without a path against enumerated gradients: unbiased where it says so, biased where it says so."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from benchmarks import enumerable
from tests.helpers import assert_gradient, gradient, slow_unless, tree_allclose
from vaejax import estimators
from vaejax.dists import Bernoulli, OneHotCategorical
from vaejax.estimators import baselines, variance
from vaejax.estimators.rebar import RebarState
from vaejax.objectives import elbo, iwae

BOTH = {"bernoulli", "categorical", "chain", "continuous"}
loo = functools.partial(estimators.score_function, num_samples=4, baseline=baselines.leave_one_out())
# name -> (constructor, the kinds of latents it serves)
UNBIASED = {
    "score_function": (estimators.score_function, BOTH),
    "score_function, constant": (
        functools.partial(estimators.score_function, baseline=baselines.constant(-3.0)),
        BOTH,
    ),
    "score_function, leave one out": (loo, BOTH),
    "score_function, leave one out, local": (functools.partial(loo, rao_blackwell=True), BOTH),
    "score_function, local": (functools.partial(estimators.score_function, rao_blackwell=True), BOTH),
    "vimco": (functools.partial(estimators.vimco, num_samples=4), BOTH),
    "muprop": (estimators.muprop, BOTH),
    "rebar": (estimators.rebar, BOTH),
    "relax": (functools.partial(estimators.relax, critic=(5,)), BOTH),
    "arm": (estimators.arm, {"bernoulli", "chain"}),
    "disarm": (estimators.disarm, {"bernoulli", "chain"}),
    "arsm": (estimators.arsm, {"categorical", "chain", "continuous"}),
    "measure_valued": (estimators.measure_valued, BOTH),
    "unordered_set": (functools.partial(estimators.unordered_set, num_samples=3), {"bernoulli", "categorical"}),
}
BIASED = {
    "concrete": functools.partial(estimators.concrete, temperature=1.0),
    "straight_through": estimators.straight_through,
    "gumbel_straight_through": estimators.gumbel_straight_through,
}


@pytest.fixture(scope="module")
def models():
    with jax.enable_x64(True):
        return {name: build() for name, build in enumerable.BUILDERS.items()}


EXACT: dict = {}


def exact_gradient(made, where):
    return EXACT.setdefault((id(made), where), enumerable.exact_gradient(made, where))


def sure(estimator, params, key, exact, state=None):
    """As many draws as bring the standard error of each part to 4% of the exact gradient's norm, by a look at the first few."""
    block, pilot_key = 2000, jax.random.fold_in(key, 1)
    state = estimator.init(params, key, enumerable.X) if state is None else state
    pilot = variance(estimator, params, pilot_key, enumerable.X, num_draws=2 * block, state=state, block_size=block)
    norms = {part: np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(exact[part]))) for part in pilot.norm}
    needed = max(float(pilot.total_variance[part]) / (0.04 * norms[part]) ** 2 for part in norms)
    blocks = int(np.ceil(max(needed / block, 5)))
    return variance(estimator, params, key, enumerable.X, num_draws=blocks * block, state=state, block_size=block)


SERVED = [(e, m) for e, (_, kinds) in UNBIASED.items() for m, own in enumerable.KINDS.items() if own <= kinds]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "model"), SERVED)
def test_unbiased_at_two_points(name, model, models, key, x64):
    made = models[model]
    estimator = UNBIASED[name][0](made.model, elbo)
    for where in ("near", "far"):
        exact = exact_gradient(made, where)
        assert_gradient(sure(estimator, made.points[where], key, exact), exact)


@pytest.mark.parametrize("model", slow_unless(lambda model: model != "6 Bernoullis", enumerable.KINDS))
def test_enumeration_is_exact(model, models, key, x64):
    made = models[model]
    for where in ("near", "far"):
        estimator = estimators.enumerate_latents(made.model, elbo, num_samples=1)
        exact, p = exact_gradient(made, where), made.points[where]
        if model == "mixed":
            assert_gradient(sure(estimator, p, key, exact), exact)
        else:
            found = gradient(estimator, p, key, enumerable.X)
            tree_allclose(found.grads, exact, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(found.objective, made.elbo(p), rtol=1e-10)


@pytest.mark.parametrize("name", BIASED)
def test_declared_biased_is_biased(name, models, key, x64):
    made = models["6 Bernoullis"]
    exact = exact_gradient(made, "far")
    found = estimators.certify(
        BIASED[name](made.model, elbo), exact, made.points["far"], key, enumerable.X, num_draws=20_000, repeats=0
    )
    assert found.z["encoder"] > 10
    assert found.bias["encoder"] > 0.02
    assert found.standard_error["encoder"] < 0.05


@vaejax.objectives.objective(averages_draws=True)
def log_likelihood(terms, *, step=0):
    return terms.log_likelihood.mean(0)


@vaejax.objectives.objective(averages_draws=True)
def minus_kl(terms, *, step=0):
    return (terms.log_prior - terms.log_posterior).mean(0)


def concrete_bias(made, objective, temperature, key, **options):
    """Of the encoder's gradient, with its standard error, as shares of the exact one's norm; and the mean gradient itself."""
    params = made.points["far"]
    exact = estimators.enumerate_latents(made.model, objective).estimate(params, (), key, enumerable.X)[0].grads
    estimator = estimators.concrete(made.model, objective, temperature=temperature, **options)
    found = variance(estimator, params, key, enumerable.X, num_draws=40_000, block_size=4000)
    gaps = jax.tree.map(jnp.subtract, found.mean["encoder"], exact["encoder"])
    norm = float(optax.tree.norm(exact["encoder"]))
    return float(optax.tree.norm(gaps)) / norm, float(found.standard_error["encoder"]) / norm, found.mean["encoder"]


@pytest.mark.slow
def test_where_the_bias_of_concrete_comes_from(models, key, x64):
    """The likelihood's part falls with T; the relaxed KL's is the same at every T, the discrete KL's is none."""
    made, temperatures = models["6 Bernoullis"], (2.0, 0.5, 0.1)

    def biases(objective, **options):
        return [concrete_bias(made, objective, t, key, **options) for t in temperatures]

    for falling in (biases(log_likelihood), biases(elbo, kl="discrete")):
        share, error, _ = zip(*falling)
        assert share[0] > 2 * share[1] > 6 * share[2]
        assert share[0] > 20 * error[0]
        assert share[2] < 0.02 + 3 * error[2]
    of_kl = biases(minus_kl)
    for _, _, mean in of_kl[1:]:
        tree_allclose(mean, of_kl[0][2], rtol=1e-6, atol=1e-9)
    assert of_kl[0][0] > 50 * of_kl[0][1]
    whole = biases(elbo)
    assert min(share for share, _, _ in whole) > 1


STATEFUL = {
    "nvil": functools.partial(estimators.nvil, baseline=baselines.network((5,))),
    "moving_average": functools.partial(estimators.score_function, baseline=baselines.moving_average()),
    "network": functools.partial(estimators.score_function, baseline=baselines.network((5,))),
    "rebar": estimators.rebar,
    "relax": functools.partial(estimators.relax, critic=(5,)),
}


def updated(estimator, state, params, key, steps=300):
    def one(state, k):
        return estimator.estimate(params, state, k, enumerable.X)[1], None

    return jax.jit(lambda state: jax.lax.scan(one, state, jax.random.split(key, steps))[0])(state)


def random_state(state, key):
    leaves, tree = jax.tree.flatten(state)
    drawn = [
        jax.random.normal(k, leaf.shape, leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        for leaf, k in zip(leaves, jax.random.split(key, len(leaves)))
    ]
    drawn = jax.tree.unflatten(tree, drawn)
    if isinstance(state, RebarState):
        fixed = tuple(one._replace(eta=jnp.asarray(0.7), log_temperature=jnp.log(0.3)) for one in drawn.tuned)
        return drawn._replace(tuned=fixed)
    return jax.tree.map(lambda own, new: jnp.abs(new) if own.shape == () else new, state, drawn)


STATES = [(name, model) for name in STATEFUL for model in ("6 Bernoullis", "two layers of 3")] + [
    (name, model) for name in ("rebar", "relax") for model in ("2 categories of 4", "mixed")
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "model"), STATES)
def test_stateful_ones_at_three_states(name, model, models, key, x64):
    made = models[model]
    estimator, params = STATEFUL[name](made.model, elbo), made.points["far"]
    first = jax.tree.map(
        lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, estimator.init(params, key, enumerable.X)
    )
    exact = exact_gradient(made, "far")
    for state in (first, updated(estimator, first, params, key), random_state(first, key)):
        assert_gradient(sure(enumerable.unscaled(estimator), params, key, exact, state), exact)


@pytest.mark.parametrize("model", ["6 Bernoullis", "2 categories of 4"])
@pytest.mark.slow
def test_no_two_estimators_are_the_same_by_accident(model, models, key, x64):
    made = models[model]
    serving = {name: constructor for name, (constructor, kinds) in UNBIASED.items() if enumerable.KINDS[model] <= kinds}
    # A moving average starts at 0 and a network near it: at the start, both are the plain score function.
    constructors = {**serving, **BIASED, "nvil": STATEFUL["nvil"]}
    # Several keys: where the other latents of four draws are all alike, a signal of one's own is that of all.
    several, flat = jax.random.split(key, 5), {}
    for name, constructor in constructors.items():
        one = functools.partial(gradient, constructor(made.model, elbo), made.points["far"])
        grads = jax.jit(jax.vmap(lambda k, one=one: one(k, enumerable.X).grads["encoder"]))(several)
        flat[name] = np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)])
    names = list(flat)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if {a, b} == {"vimco", "score_function, leave one out"}:
                continue  # on the ELBO they are one and the same, by theorem
            assert np.abs(flat[a] - flat[b]).max() > 1e-6, (a, b)


TEMPERED = ("rebar", "relax", "concrete", "gumbel_straight_through")
EXTREME = [
    (kind, name, temperature)
    for kind in ("bernoulli", "categorical")
    for name in [n for n, (_, kinds) in UNBIASED.items() if kind in kinds] + [*BIASED, "nvil"]
    for temperature in ((0.05, 5.0) if name in TEMPERED else (None,))
]


@pytest.mark.parametrize(
    ("kind", "name", "temperature"), slow_unless(lambda kind, name, t: kind == "bernoulli" and t != 5.0, EXTREME)
)
def test_extreme_logits_and_temperatures(kind, name, temperature, key):
    """float32, logits of ±50: finite objectives, gradients and states, over a vmap of keys, in one trace."""
    constructor = {**{n: c for n, (c, _) in UNBIASED.items()}, **BIASED, "nvil": STATEFUL["nvil"]}[name]
    options = {} if temperature is None else {"temperature": temperature}
    family = Bernoulli if kind == "bernoulli" else functools.partial(OneHotCategorical, event_ndims=2)
    logits = jnp.array([[-50.0, 0.0, 50.0, 20.0], [50.0, 50.0, -50.0, -50.0]], jnp.float32)
    logits = logits if kind == "categorical" else logits.reshape(8)
    model = vaejax.Model(
        init=lambda key, batch: logits,
        posterior=lambda p, x: family(jnp.broadcast_to(p, (*x.shape[:-1], *p.shape))),
        prior=lambda p: family(jnp.zeros_like(p)),
        likelihood=lambda p, z: Bernoulli(2 * z.reshape(*z.shape[: z.ndim - p.ndim], 8) - 1),
    )
    estimator, traces = constructor(model, elbo, **options), []
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (3, 8)), jnp.float32)
    state = estimator.init(logits, key, x)

    @jax.jit
    def several(params, state, keys):
        traces.append(None)
        return jax.vmap(lambda k: estimator.estimate(params, state, k, x))(keys)

    for sign in (1.0, -1.0, 0.1):
        found = several(sign * logits, state, jax.random.split(key, 20))
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert len(traces) == 1


@pytest.mark.slow
def test_vimco_and_the_score_function_on_iwae_against_enumerated_tuples(models, key, x64):
    """The exact gradient of IWAE with K = 2: a sum over pairs of states."""
    made = models["2 categories of 4"]
    p = made.points["near"]
    states = jnp.stack(enumerable.states_of("2 categories of 4"))

    def bound(params):
        z = jnp.broadcast_to(states[:, None], (len(states), len(enumerable.X), *states.shape[1:]))
        log_q = made.model.posterior(params, enumerable.X).log_prob(z)
        log_w = made.model.likelihood(params, z).log_prob(enumerable.X) + made.model.prior(params).log_prob(z) - log_q
        pairs = jnp.logaddexp(log_w[:, None], log_w[None]) - jnp.log(2)
        return -jnp.mean(jnp.sum(jnp.exp(log_q[:, None] + log_q[None]) * pairs, (0, 1)))

    exact = jax.grad(bound)(p)
    for estimator in (
        estimators.vimco(made.model, iwae, num_samples=2),
        estimators.vimco(made.model, iwae, num_samples=2, mean="arithmetic"),
        estimators.score_function(made.model, iwae, num_samples=2),
    ):
        assert_gradient(sure(estimator, p, key, exact), exact)
