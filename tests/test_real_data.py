"""On real data, where they are: MNIST through plain arrays, item responses with missing values."""

import jax
import numpy as np
import optax
import pytest

import vaejax
from benchmarks.studies.mnist import flat
from vaejax import evaluate, train

# Lower bounds from few samples, of models hardly trained: the warning is right.
pytestmark = pytest.mark.filterwarnings("ignore::vaejax.evaluate.UntrustworthyEstimate")


@pytest.mark.slow
def test_mnist_through_plain_arrays(data_dir, key):
    """Two epochs on 20,000 digits: far from converged, far below the best independent-pixel model (about 206 nats)."""
    images, unseen = flat(vaejax.data.load("mnist", data_dir))
    assert images.shape == (60000, 784)
    assert images.dtype == np.uint8
    model = vaejax.models.vae(x_shape=784, latent_size=20, hidden_sizes=(100,))
    preprocess = vaejax.data.dynamic_binarization(levels=255)
    result = train.fit(
        key,
        model,
        images[:20000],
        estimator=vaejax.estimators.pathwise(model, vaejax.objectives.elbo),
        optimizer=optax.adam(3e-3),
        num_epochs=2,
        batch_size=100,
        preprocess=preprocess,
    )
    test = preprocess(jax.random.key(1), unseen[:500])
    evidence = evaluate.log_marginal(model, result.state.params, key, test, num_samples=200)
    bound = evaluate.elbo(model, result.state.params, key, test, num_samples=20)
    summary = evaluate.mean_estimate(evidence.estimate, evidence.standard_error)
    assert -150 < summary.mean < -100
    assert summary.mean > float(bound.estimate.mean()) + 5 * summary.monte_carlo_error


def test_item_responses_with_missing_values(data_dir, key):
    """Fraction subtraction (536 students, 20 items): a two-skill VAE beats independent items on held-out students, also
    when a tenth of the training responses is missing."""
    responses = np.loadtxt(
        data_dir / "fraction" / "fraction20_responses.csv", delimiter=",", skiprows=1, dtype=np.float32
    )
    assert responses.shape == (536, 20)
    order = np.random.default_rng(0).permutation(536)
    fitted, held_out = responses[order[:436]], responses[order[436:]]
    mask = np.random.default_rng(1).random(fitted.shape) > 0.1
    rate = np.clip(fitted.mean(0), 0.01, 0.99)
    independent = (held_out * np.log(rate) + (1 - held_out) * np.log1p(-rate)).sum(1)
    model = vaejax.models.vae(x_shape=20, latent_size=2, hidden_sizes=(32,))
    for data in (fitted, vaejax.Batch(np.where(mask, fitted, np.nan), mask=mask)):
        result = train.fit(
            key,
            model,
            data,
            estimator=vaejax.estimators.pathwise(model, vaejax.objectives.elbo),
            optimizer=optax.adam(3e-3),
            num_epochs=60,
            batch_size=50,
        )
        evidence = evaluate.log_marginal(model, result.state.params, key, held_out, num_samples=1000)
        gain = np.asarray(evidence.estimate) - independent
        assert gain.mean() > 5 * gain.std() / np.sqrt(len(gain))
