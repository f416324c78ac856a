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
# # The decoder's σ
#
# With $p(x|z) = N(\mu(z), \sigma^2)$ the σ decides what a VAE is. Most code fixes it at 1 (the squared error) without saying so. Beaulac (2019)
# asks what is lost, and blames the likelihood's singularity for what happens when σ is learned. Here five choices stand side by side on
# scikit-learn's digits, grey levels divided by 16: σ fixed at 1, σ fixed at 0.25, one σ learned for all pixels, one for each pixel, and σ(z). Then the
# weight β of the KL. (`VAEJAX_SMALL=1` makes all numbers small; the checks of this repository run the notebook that way.)

# %%
import functools
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import display
from matplotlib.figure import Figure

import vaejax
from vaejax import plots
from vaejax.dists import likelihoods

# %matplotlib inline

small = os.environ.get("VAEJAX_SMALL") == "1"
epochs, samples = (2, 20) if small else (150, 500)

# Few samples make every number below a lower bound; they are compared with each other only.
warnings.simplefilter("ignore", vaejax.evaluate.UntrustworthyEstimate)
digits = vaejax.data.load("digits")
scale = vaejax.data.unit_interval(levels=16)
train, validation, test = (scale(jax.random.key(0), part) for part in digits[:3])
print(vaejax.data.describe(digits))


# %%
def train_vae(likelihood, beta=1.0, latent_size=8):
    model = vaejax.models.vae(x_shape=(8, 8), latent_size=latent_size, hidden_sizes=(200, 200), likelihood=likelihood)
    objective = functools.partial(vaejax.objectives.elbo, beta=beta)
    result = vaejax.train.fit(
        jax.random.key(1),
        model,
        train,
        validation=validation,
        estimator=vaejax.estimators.pathwise(model, objective),
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, epochs * (len(train.x) // 50))),
        num_epochs=epochs,
        batch_size=50,
    )
    return model, result.state.params, result.history


def report(name, model, params):
    evidence = vaejax.evaluate.log_marginal(model, params, jax.random.key(2), test, num_samples=samples)
    bound = vaejax.evaluate.elbo(model, params, jax.random.key(3), test, num_samples=20)
    summary = vaejax.evaluate.mean_estimate(evidence)
    z = model.posterior(params, test.x).mean()[None]
    squared = float(jnp.mean((model.likelihood(params, z).mean()[0] - test.x) ** 2))
    sigma = np.asarray(jnp.sqrt(model.likelihood(params, z).variance()))
    spread = f"σ {sigma.min():.4f} … {sigma.max():.3f}"
    print(f"{name:12} log p(x) {summary}; KL {float(bound.kl.mean()):5.1f}; squared error {squared:.4f}; {spread}")
    return summary.mean


# %% [markdown]
# ## Five decoders

# %%
choices = {
    "σ = 1": likelihoods.normal(1.0),
    "σ = 0.25": likelihoods.normal(0.25),
    "shared": likelihoods.normal("shared"),
    "per pixel": likelihoods.normal("per_dimension"),
    "σ(z)": likelihoods.normal("per_example"),
}
fitted = {name: train_vae(family) for name, family in choices.items()}
scores = {name: report(name, model, params) for name, (model, params, _) in fitted.items()}

# %% [markdown]
# The likelihoods are densities of $x/16$, an image of 64 pixels at a time. σ = 1 says that every pixel is uncertain by the whole grey scale: no picture
# is worth its KL, the posterior collapses onto the prior, and every reconstruction is the mean digit. The squared error as a loss is this model; it
# works in practice only where the KL is weighted down, which is another σ by another name. One learned σ finds the weight by likelihood.
#
# ## What they generate
#
# Means of $p(x|z)$ first, σ = 1, then the shared σ, then σ(z).

# %%
plots.prior_samples(*fitted["σ = 1"][:2], jax.random.key(4), num_rows=2)

# %%
plots.prior_samples(*fitted["shared"][:2], jax.random.key(4), num_rows=2)

# %%
plots.prior_samples(*fitted["σ(z)"][:2], jax.random.key(4), num_rows=2)

# %% [markdown]
# Draws $x \sim p(x|z)$, the model's actual images: drowned in noise at σ = 1, grainy everywhere with a shared σ, clean at the border and grainy on the strokes with
# one σ for each pixel.

# %%
plots.prior_samples(*fitted["σ = 1"][:2], jax.random.key(4), num_rows=2, ancestral=True)

# %%
plots.prior_samples(*fitted["shared"][:2], jax.random.key(4), num_rows=2, ancestral=True)

# %%
plots.prior_samples(*fitted["per pixel"][:2], jax.random.key(4), num_rows=2, ancestral=True)

# %% [markdown]
# μ ± kσ, one $z$ a row (Beaulac's figures 5 and 6): a shared σ moves all pixels together, σ(z) moves the strokes.

# %%
plots.sigma_strips(*fitted["shared"][:2], jax.random.key(5), num_rows=4)

# %%
plots.sigma_strips(*fitted["σ(z)"][:2], jax.random.key(5), num_rows=4)

# %% [markdown]
# ## The singularity
#
# Three pixels of the training digits never vary, and many more are white in most images. The normal density of a value that the mean hits exactly grows without bound as
# its σ falls, so σ(z) goes for the white pixels. The only thing that stops it is the floor that `likelihoods.normal` puts under σ. Lower the floor:

# %%
floors = [1e-1, 3e-2, 1e-2, 3e-3, 1e-3]
seen, unseen, words = [], [], []
for floor in floors:
    model, params, _ = train_vae(likelihoods.normal("per_example", floor=floor))
    unseen.append(report(f"floor {floor:g}", model, params))
    evidence = vaejax.evaluate.log_marginal(model, params, jax.random.key(2), train, num_samples=samples)
    seen.append(vaejax.evaluate.mean_estimate(evidence).mean)
    decoded = model.likelihood(params, model.posterior(params, test.x).mean()[None])
    percent = 100 * float(jnp.mean(jnp.sqrt(decoded.variance()) < 1.5 * floor))
    words.append(f"{percent:.0f} % of pixels\nat the floor")

# %%
figure = Figure(figsize=(5.5, 2.8), layout="constrained")
axes = figure.subplots()
axes.semilogx(floors, seen, "s-", color="#009E73", label="σ(z), training images")
axes.semilogx(floors, unseen, "o-", color="#0072B2", label="σ(z), test images")
axes.axhline(scores["shared"], color="#D55E00", ls="--", label="one shared σ, test images")
axes.set(xlabel="smallest σ allowed", ylabel="log-likelihood, nats")
for floor, value, note in zip(floors, seen, words):
    axes.annotate(note, (floor, value), fontsize=7, ha="center", textcoords="offset points", xytext=(0, 7))
axes.legend(frameon=False, loc="upper right", fontsize=8)
axes.margins(0.2)
display(figure)

# %% [markdown]
# The log-likelihood follows the floor, on training and test images alike, and the squared error gets worse on the way: σ(z) spends itself on being certain of white pixels. The
# number says how small σ may be, and little about digits. Ways out that stay densities of the data: discretise (the binomial likelihood of the quickstart), remove the
# constant pixels and add the noise that rounding took away, or do without σ(z).
#
# ## The weight of the KL
#
# β with one shared σ. With small β the posteriors drift away from the prior (compare the circles), and draws from the prior land where the decoder was
# hardly trained; the squared error is no better for it. With large β the posterior gives up and every image is the mean digit. β ≠ 1 is no bound of log p(x); the log-likelihood printed is still that of the model.

# %%
betas = {beta: train_vae(likelihoods.normal("shared"), beta=beta, latent_size=2) for beta in (0.01, 1.0, 30.0)}
for beta, (model, params, _) in betas.items():
    report(f"β = {beta:g}", model, params)

# %%
plots.latent_scatter(*betas[0.01][:2], test, labels=digits.labels["test"])

# %%
plots.latent_scatter(*betas[1.0][:2], test, labels=digits.labels["test"])

# %%
plots.latent_scatter(*betas[30.0][:2], test, labels=digits.labels["test"])

# %%
plots.prior_samples(*betas[0.01][:2], jax.random.key(6), num_rows=2)

# %%
plots.prior_samples(*betas[1.0][:2], jax.random.key(6), num_rows=2)

# %%
plots.prior_samples(*betas[30.0][:2], jax.random.key(6), num_rows=2)

# %% [markdown]
# A learned σ and β do the same work from two sides: minimising squared error + λ·KL is maximising the ELBO with $\sigma^2 = \lambda/2$. Learning σ chooses that
# weight by likelihood; β on top of it chooses something else.
