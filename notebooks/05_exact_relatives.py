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
# # From mixtures to autoencoders: one bound, three models
#
# A Gaussian mixture, probabilistic PCA and a variational autoencoder raise the same quantity, $\mathcal L(q) = \ln p(x) - KL(q \,\|\, p(z|x))$, in turns:
# over $q$ with the model held (the E-step), over the model with $q$ held (the M-step). In the first two $q$ can become the posterior, and KL returns to
# 0 after every E-step. In an autoencoder $q$ is what one network can say of all examples at once, and a KL remains. The same picture of each, on
# iris and on the digits; a minute on two cores. (`VAEJAX_SMALL=1` makes all numbers small; the checks of this repository run the notebook that way.)

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_iris

import vaejax
from vaejax import conjugate, evaluate, plots
from vaejax.conjugate import HalfSteps, bayesian_gmm, gmm, half_steps, linear_vae, ppca

# %matplotlib inline

small = os.environ.get("VAEJAX_SMALL") == "1"
jax.config.update("jax_disable_most_optimizations", small)  # compiles in half the time
jax.config.update("jax_enable_x64", True)
key = jax.random.key(0)

# %% [markdown]
# ## A Gaussian mixture
#
# The latent is the component; the E-step computes responsibilities, the M-step weighted means and covariances. Twenty starts run as one program, and the
# best is kept: the likelihood of a mixture has many maxima.

# %%
iris = load_iris()
found = gmm.fit_em(key, iris.data, 3, num_starts=20)
print(
    f"log-likelihood {found.objective:.3f} after {found.num_steps} steps; the starts reached {np.sort(found.starts)[[0, 10, -1]].round(1)}"
)
plots.mixture(found.params, iris.data, columns=(2, 3), names=iris.feature_names)

# %% [markdown]
# How many components, and of which shape? The Bayesian information criterion weighs the log-likelihood against the number of parameters (smaller is better);
# `equal_shape` lets volumes and directions differ and ties the shape (mclust's VEV).

# %%
numbers = (2,) if small else (1, 2, 3)
for covariance in ("full", "equal_shape") if small else gmm.STRUCTURES:
    fits = [gmm.fit_em(key, iris.data, k, covariance=covariance, prior_count=0.01).params for k in numbers]
    print(f"{covariance:12}", *(f"K={k}: {gmm.bic(p, iris.data, covariance):7.1f}" for k, p in zip(numbers, fits)))

# %% [markdown]
# A prior over the parameters decides by itself: with eight components and a small concentration, coordinate ascent empties those that it does not need.

# %%
bayesian = bayesian_gmm.fit_cavi(key, iris.data, 8, concentration=1e-3, num_starts=40)
print("rows of each component:", np.sort(bayesian_gmm.counts(bayesian.params))[::-1].round(1))

# %% [markdown]
# ### The two halves of a step
#
# Each E-step raises $\mathcal L$ to $\ln p(x)$: the KL becomes 0. Each M-step raises $\mathcal L$ again, and $\ln p(x)$ by more, because the $q$ it held is no
# longer the posterior: the difference is the KL of the next E-step. (Neal & Hinton 1998; Bishop 2006, section 9.4.)

# %%
start = gmm.fit_em(jax.random.key(3), iris.data, 3, num_starts=1, max_steps=1).params
plots.half_steps(half_steps(gmm, start, iris.data, num_steps=6))

# %% [markdown]
# ## Probabilistic PCA
#
# Now the latent is a vector, the posterior a Gaussian, and maximum likelihood an eigenvalue problem: the noise is the mean of the eigenvalues left out.

# %%
digits = vaejax.data.load("digits")
x = jnp.asarray(digits.train.x.reshape(len(digits.train.x), -1), float)
latent_size = 5
best = ppca.fit_ml(x, latent_size)
print(f"log-likelihood of an image: {ppca.log_prob(best, x).mean():.2f} nats; σ = {best.variance**0.5:.3f}")
plots.scree(x, latent_size)

# %% [markdown]
# EM arrives there too, and its halves look as before. It also serves where three entries in ten are missing, which eigenvalues do not.

# %%
start = ppca.fit_em(key, x, latent_size, max_steps=1).params
plots.half_steps(half_steps(ppca, start, x, num_steps=6))

# %%
seen = jax.random.bernoulli(jax.random.key(1), 0.7, x.shape)
partly = ppca.fit_em(key, vaejax.Batch(x, mask=seen), latent_size)
print(f"of the whole images, trained on seven entries in ten: {ppca.log_prob(partly.params, x).mean():.2f} nats")

# %% [markdown]
# ## The same model, its posterior learned
#
# A linear encoder with one scale for all images (Lucas et al. 2019). Its halves are gradient steps: the encoder alone, then the decoder alone, some epochs
# each. The family contains the exact posterior once the columns of $W$ are orthogonal, so the KL after an E-step goes to 0 as training goes on; $\ln p(x)$ and
# $\mathcal L$ are still exact.


# %%
def only(encoder):
    """A rule for `Model.trainable`: the encoder alone, or everything else."""
    return lambda params: {
        name: jax.tree.map(lambda _, mine=(name == "encoder") == encoder: mine, leaf) for name, leaf in params.items()
    }


def in_turns(model, params, data, *, epochs, num_steps, rate, look):
    """HalfSteps of gradient EM; `look(params)` gives (bound, log p)."""
    seen = [look(params)]
    for step in range(2 * num_steps):
        part = model._replace(trainable=only(encoder=step % 2 == 0))
        estimator, optimizer = vaejax.estimators.pathwise(part, vaejax.objectives.elbo), optax.adam(rate)
        state = vaejax.train.init(jax.random.key(step), part, estimator, optimizer, data[:100])._replace(params=params)
        options = {"state": state, "num_epochs": epochs, "batch_size": 100, "progress": False}
        params = vaejax.train.fit(
            jax.random.key(step), part, data, estimator=estimator, optimizer=optimizer, **options
        ).state.params
        seen.append(look(params))
    bound, evidence = (jnp.stack(column) for column in zip(*seen))
    return HalfSteps(bound, evidence - bound, evidence), params


# %%
linear = linear_vae.as_model(latent_size)
steps, params = in_turns(
    linear, linear.init(key, x), x, epochs=2 if small else 15, num_steps=2 if small else 5, rate=3e-3,
    look=lambda p: (linear_vae.bound(p, x).sum(), ppca.log_prob(linear_vae.as_ppca(p), x).sum()),
)  # fmt: skip
print(
    f"{ppca.log_prob(linear_vae.as_ppca(params), x).mean():.2f} nats an image, {ppca.log_prob(best, x).mean():.2f} the maximum"
)
plots.half_steps(steps)

# %% [markdown]
# ## An autoencoder
#
# With networks on both sides nothing is exact: $\mathcal L$ is a mean over draws of $z$, and $\ln p(x)$ an importance-sampled estimate. The likelihood is binomial
# over the 17 grey values (so these nats are not those above). What KL remains after an E-step is the inference gap: no encoder of this family closes it.
# $\ln p(x)$ does not depend on the encoder; where the black line moves at an E-step, it is its estimate that a better encoder improves.

# %%
counts = digits.train.x[: 200 if small else 1000].reshape(-1, 64)
vae = vaejax.models.vae(
    x_shape=64, latent_size=latent_size, hidden_sizes=(64,), likelihood=vaejax.dists.likelihoods.binomial(16)
)
samples = 50 if small else 500


def look(p):
    bound = evaluate.elbo(vae, p, key, counts, num_samples=samples).estimate.sum()
    log_weights = vaejax.log_terms(vae, p, key, counts, num_samples=samples, kl="none").log_weights
    return bound, (jax.nn.logsumexp(log_weights, 0) - np.log(samples)).sum()


steps, params = in_turns(
    vae, vae.init(key, counts), counts, epochs=1 if small else 20, num_steps=2 if small else 6, rate=3e-3,
    look=look,
)  # fmt: skip
print(
    f"per image: bound {steps.bound[-1] / len(counts):.2f}, log-likelihood {steps.log_likelihood[-1] / len(counts):.2f} nats"
)
plots.half_steps(steps)

# %% [markdown]
# The three pictures differ in one thing, the height of the last bars: how much of $\ln p(x)$ the family of $q$ cannot reach. What remains for the autoencoder
# is split into what the family costs and what amortising it costs by `evaluate.inference_gap` ([evaluation](../docs/evaluation.md)); what exact models are good
# for besides is in [docs/conjugate.md](../docs/conjugate.md).

# %%
assert jnp.all(jnp.diff(half_steps(conjugate.ppca, best, x, num_steps=1).bound) > -1e-6)
