# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart
#
# A VAE on scikit-learn's 8×8 digits, from data to test log-likelihood, with every picture on the way: half a minute on two cores.
# (`VAEJAX_SMALL=1` in the environment makes all numbers small; the checks of this repository run the notebook that way.)

# %%
import os
import warnings

import jax
import numpy as np
import optax

import vaejax
from vaejax import plots

small = os.environ.get("VAEJAX_SMALL") == "1"
epochs, samples = (3, 50) if small else (200, 1000)

# %% [markdown]
# ## Data
#
# Grey levels 0 … 16, split by position into training, validation and test images. The binomial likelihood takes them as they are: 16 coin
# flips a pixel.

# %%
digits = vaejax.data.load("digits")
print(vaejax.data.describe(digits))

# %% [markdown]
# ## Model and training
#
# $p(z) = N(0, I)$, $p(x|z)$ binomial with logits from one network, $q(z|x)$ a diagonal Gaussian from another. `pathwise` differentiates a draw of
# the ELBO through $z = \mu + \sigma\varepsilon$. Nothing is hidden: the state that comes back is a plain tuple of arrays.

# %%
model = vaejax.models.vae(
    x_shape=(8, 8),
    latent_size=2,
    hidden_sizes=(256, 256),
    likelihood=vaejax.dists.likelihoods.binomial(16),
)
steps = epochs * (len(digits.train.x) // 50)
result = vaejax.train.fit(
    jax.random.key(0),
    model,
    digits.train,
    validation=digits.validation,
    estimator=vaejax.estimators.pathwise(model, vaejax.objectives.elbo),
    optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, steps)),
    num_epochs=epochs,
    batch_size=50,
)
params = result.best_params
print("best validation ELBO in epoch", result.best_epoch, "of", epochs)

# %%
plots.curves(result.history, objective="ELBO")

# %% [markdown]
# ## Reconstructions
#
# Each test image above the mean of $p(x|z)$ for one draw $z \sim q(z|x)$. Two numbers an image keep the shape of a digit and lose its details.

# %%
plots.reconstructions(model, params, jax.random.key(1), jax.tree.map(lambda a: a[:20], digits.test))

# %% [markdown]
# ## Samples, both ways
#
# Means of $p(x|z)$ are what papers show. The model's own images are draws $x \sim p(x|z)$, noise included; only those are samples.

# %%
plots.prior_samples(model, params, jax.random.key(2), num_rows=3)

# %%
plots.prior_samples(model, params, jax.random.key(2), num_rows=3, ancestral=True)

# %% [markdown]
# ## The latent space
#
# Posterior means of the test images, by digit, and what the decoder makes of the whole plane.

# %%
plots.latent_scatter(model, params, digits.test, labels=digits.labels["test"])

# %%
plots.manifold(model, params, num=12)

# %%
plots.interpolation(model, params, jax.tree.map(lambda a: a[:8], digits.test))

# %% [markdown]
# ## How good is the density?
#
# The ELBO is a bound. Importance sampling with the posterior as proposal comes closer: still a lower bound in the mean, with its two errors
# told apart, between images and of the Monte Carlo. How far to trust it, the weights themselves tell: where the tail of an image's weights is
# too heavy (Pareto k̂ above a threshold) the number is too low by more than its Monte Carlo error. A warning counts such images; here they are
# printed.

# %%
bound = vaejax.evaluate.elbo(model, params, jax.random.key(3), digits.test, num_samples=100)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", vaejax.evaluate.UntrustworthyEstimate)
    evidence = vaejax.evaluate.log_marginal(model, params, jax.random.key(4), digits.test, num_samples=samples)
print("test ELBO           ", vaejax.evaluate.mean_estimate(bound))
print("test log-likelihood ", vaejax.evaluate.mean_estimate(evidence))
print("effective samples, median", round(float(np.median(evidence.effective_sample_size)), 1), "of", samples)
print(
    f"Pareto k̂ too large for {np.mean(evidence.pareto_k > vaejax.evaluate.pareto_threshold(samples)):.0%} of the images"
)

# %% [markdown]
# Two latent dimensions are for looking. With sixteen the same digits reach about −89 nats: `vaejax train digits` in a terminal does that, keeps
# checkpoints, resumes when interrupted and draws these figures by itself.
