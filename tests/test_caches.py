"""Models are freed after their last use, and a second identical call does not compile again."""

import dataclasses
import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.helpers import slow_unless
from vaejax import compilation, evaluate, train
from vaejax.estimators import variance

X = np.random.default_rng(0).integers(0, 2, (8, 6)).astype(np.float32)
KEY = jax.random.key(0)


class Parts:
    """A model with what its calls need, made once."""

    def __init__(self, kind="vae"):
        if kind == "vae":
            self.model = vaejax.models.vae(x_shape=6, latent_size=2, hidden_sizes=(4,))
            self.estimator = vaejax.estimators.pathwise(self.model, vaejax.objectives.elbo)
        else:
            self.model = vaejax.models.sigmoid_belief_network(x_shape=6, layer_sizes=(3, 2))
            self.estimator = vaejax.estimators.disarm(self.model, vaejax.objectives.elbo)
        self.optimizer = optax.adam(1e-2)
        self.params = self.model.init(KEY, X)


def fit(parts, **options):
    options = {"num_epochs": 1, "batch_size": 4, "progress": False, "validation": X} | options
    return train.fit(KEY, parts.model, X, estimator=parts.estimator, optimizer=parts.optimizer, **options)


def steps(parts):
    state = train.init(KEY, parts.model, parts.estimator, parts.optimizer, X)
    state, _ = train.make_train_step(parts.estimator, parts.optimizer)(state, X)
    return train.make_epoch(parts.estimator, parts.optimizer, batch_size=4)(state, X)


CALLS = {
    "fit": fit,
    "fit_skip": lambda p: fit(p, nonfinite="skip"),
    "step_and_epoch": steps,
    "elbo": lambda p: evaluate.elbo(p.model, p.params, KEY, X),
    "active_units": lambda p: evaluate.active_units(p.model, p.params, X),
    "simulate": lambda p: evaluate.simulate(p.model, p.params, KEY, 4),
    "inference_gap": lambda p: evaluate.inference_gap(
        p.model, p.params, KEY, X, num_steps=5, num_samples=100, progress=False
    ),
    "variance": lambda p: variance(p.estimator, p.params, KEY, X, num_draws=4),
}
DISCRETE = {
    "elbo": CALLS["elbo"],
    "exact_log_marginal": lambda p: evaluate.exact_log_marginal(p.model, p.params, X),
}
TABLE = [("vae", name) for name in CALLS] + [("sigmoid_belief", name) for name in DISCRETE]


def count_compilations(function):
    compiled = []
    listener = lambda event, duration, **_: compiled.append(event) if "backend_compile" in event else None  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.block_until_ready(function())
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    return len(compiled)


@pytest.mark.filterwarnings("ignore::vaejax.evaluate.UntrustworthyEstimate")
@pytest.mark.parametrize(
    ("kind", "name"), slow_unless(lambda kind, name: name not in ("inference_gap", "variance", "simulate"), TABLE)
)
def test_the_second_call_compiles_nothing_and_the_model_is_freed(kind, name):
    call = (CALLS if kind == "vae" else DISCRETE)[name]
    parts = Parts(kind)
    assert count_compilations(lambda: jax.tree.leaves(call(parts))) > 0
    assert count_compilations(lambda: jax.tree.leaves(call(parts))) == 0
    functions = [parts.model.posterior, parts.model.likelihood, parts.estimator.estimate, parts.optimizer.update]
    refs = [weakref.ref(function) for function in functions]
    functions = parts = None
    gc.collect()
    assert [ref() for ref in refs if ref() is not None] == []


def test_conjugate_models_are_freed():
    params = vaejax.conjugate.ppca.fit_ml(np.random.default_rng(0).normal(size=(20, 5)), 2)
    model = vaejax.conjugate.ppca.as_model(params)
    evaluate.elbo(model, model.init(KEY, None), KEY, jnp.ones((3, 5)))
    ref = weakref.ref(model.posterior)
    del model
    gc.collect()
    assert ref() is None


def test_static_arguments_compare_by_content_and_functions_by_identity():
    traces = []

    def run(f, options, x):
        traces.append(f)
        return f(x) + options[0]

    program = compilation.static_jit(run, num_static=2)
    double, triple = (lambda x: 2 * x), (lambda x: 3 * x)
    assert float(program(double, (1.0,), 2.0)) == 5
    assert float(program(double, (1.0,), 3.0)) == 7
    assert float(program(double, (2.0,), 2.0)) == 6
    assert float(program(triple, (1.0,), 2.0)) == 7
    assert len(traces) == 3
    power = functools.partial(pow, exp=2)
    assert float(program(power, (0.0,), 3.0)) == 9
    assert float(program(functools.partial(pow, exp=2), (0.0,), 4.0)) == 16
    assert float(program(functools.partial(pow, exp=3), (0.0,), 2.0)) == 8
    assert len(traces) == 5
    assert program._cache_size() == 5
    traces.clear()
    del double
    gc.collect()
    assert program._cache_size() == 3


def test_functions_that_cannot_be_hashed_are_compiled_for_the_call_alone():
    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            return 2 * x

    program = compilation.static_jit(lambda f, x: f(x), num_static=1)
    assert float(program(Unhashable(), 2.0)) == 4
    assert program._cache_size() == 0


@dataclasses.dataclass(frozen=True)
class Flip:
    """A preprocessing step that compares by value."""

    on: bool

    def __call__(self, key, batch):
        return batch._replace(x=1 - batch.x)

    def method(self, key, batch):
        return self(key, batch)


def test_programs_of_equal_objects_keep_their_own(key):
    """A cell of a notebook that runs twice makes an equal preprocessing step, and drops the first one."""
    model = vaejax.models.vae(x_shape=4, latent_size=1, hidden_sizes=(4,))
    estimator, x = vaejax.estimators.pathwise(model, vaejax.objectives.elbo), jnp.ones((8, 4))

    def first_value(epoch):
        state = vaejax.train.init(key, model, estimator, optax.sgd(0.0), x)
        return float(epoch(state, data=x)[1]["log_likelihood"][0])

    optimizer = optax.sgd(0.0)
    values = []
    for _ in range(2):
        epoch = vaejax.train.make_epoch(estimator, optimizer, batch_size=4, preprocess=Flip(True))
        gc.collect()
        values.append(first_value(epoch))
    step = Flip(True)
    epochs = [vaejax.train.make_epoch(estimator, optimizer, batch_size=4, preprocess=step.method) for _ in range(2)]
    del epochs[0]
    gc.collect()
    values.append(first_value(epochs[0]))
    plain = first_value(vaejax.train.make_epoch(estimator, optimizer, batch_size=4))
    assert values[0] == values[1] == values[2] != plain
