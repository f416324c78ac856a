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
# # Bounds and their gradients
#
# A model whose evidence $\log p(x)$ is known, so that every bound can be held against the number it bounds, from 1 to 256 draws. Then the other side
# of more draws: the signal-to-noise ratio of the encoder's gradient, which falls with K for one estimator, rises for another, and does neither where
# $q$ is far away. Everything is Gaussian and small: one to two minutes on two cores, most of it compilation. (`VAEJAX_SMALL=1` makes all numbers
# small; the checks of this repository run the notebook that way.)

# %%
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

import vaejax
from vaejax.dists import Bernoulli, diagonal_normal, standard_normal
from vaejax.estimators import doubly_reparameterized, pathwise, sticking_the_landing, variance
from vaejax.objectives import cubo, elbo, iwae, jackknife, miwae, renyi, tvo

# %matplotlib inline

small = os.environ.get("VAEJAX_SMALL") == "1"
jax.config.update("jax_disable_most_optimizations", small)  # compiles in half the time
repeats = 500 if small else 20_000  # independent estimates of each bound at each K
bound_counts = [1, 4, 256] if small else [1, 2, 4, 8, 16, 32, 64, 128, 256]
gradient_counts = [1, 16] if small else [1, 4, 16, 64, 256]
far_counts = [1, 16] if small else [1, 16, 256]
black, orange, sky, green = "#000000", "#E69F00", "#56B4E9", "#009E73"
blue, vermillion, purple = "#0072B2", "#D55E00", "#CC79A7"


def finish(axes, counts=None, **labels):
    """Labels, no box, and K = 1, 2, 4 … on a logarithmic axis where there are counts."""
    if counts:
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xlabel("draws K")
    axes.set(**labels)
    axes.title.set_fontsize(9)
    axes.spines[["top", "right"]].set_visible(False)


# %% [markdown]
# ## A model whose evidence is known
#
# Two latents, three data: $z \sim N(0, I)$, $x|z \sim N(Wz + b, I)$. The columns of $W$ are orthogonal, so the posterior is a diagonal Gaussian and
# the family of $q$ contains it. Our $q$ misses it on purpose: its mean is 0.7 posterior standard deviations off, and it is 1.4 times as wide. Too
# wide is the safe side: the χ² bound exists only where $\sigma_q^2 > \sigma_\mathrm{post}^2/2$ in every dimension.
#
# With $w = p(x, z)/q(z)$, the function $\log E_q[(w/p(x))^s]$ has a closed form, and all population values (K = ∞), less $\log p(x)$, follow
# from it: the Rényi and χ bounds are its values divided by $s$, the terms of the TVO its slopes, the ELBO its slope at 0.


# %%
W = np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 0.0]])
b = np.array([0.5, 0.0, -0.5])
x = np.array([[2.0, -0.5, 1.0]])


def build(likelihood, latent_size):
    """q does not look at x: its mean and log σ are the parameters themselves."""

    def posterior(params, x):
        shape = (*x.shape[:-1], latent_size)
        loc, log_scale = (jnp.broadcast_to(params[name], shape) for name in ("loc", "log_scale"))
        return diagonal_normal(loc, log_scale=log_scale)

    return vaejax.Model(lambda key, batch: None, posterior, lambda params: standard_normal(latent_size), likelihood)


def encoder(mean, variance):
    return {"loc": jnp.asarray(mean), "log_scale": jnp.asarray(0.5 * np.log(variance))}


def log_moment(s, q, post):
    """log E_q[(w/p(x))^s], q and posterior given by their means and variances; finite where `mixed` is positive."""
    mixed = s * q[1] + (1 - s) * post[1]
    logs = (1 - s) * np.log(post[1]) + s * np.log(q[1]) - jnp.log(mixed)
    return 0.5 * jnp.sum(logs - s * (1 - s) * (post[0] - q[0]) ** 2 / mixed)


model = build(lambda params, z: diagonal_normal(z @ W.T + b, 1.0), 2)
post_variance = 1 / (1 + np.sum(W**2, axis=0))
post_mean = post_variance * (W.T @ (x[0] - b))
q_mean, q_variance = post_mean + 0.7 * np.sqrt(post_variance), 1.4**2 * post_variance
params = encoder(q_mean, q_variance)

covariance = W @ W.T + np.eye(3)
evidence = -0.5 * ((x[0] - b) @ np.linalg.solve(covariance, x[0] - b) + np.linalg.slogdet(2 * np.pi * covariance)[1])

moment = functools.partial(log_moment, q=(q_mean, q_variance), post=(post_mean, post_variance))
points = vaejax.objectives.log_uniform_partition(5)
slopes = np.array([jax.grad(moment)(float(s)) for s in points])
population = {
    "ELBO": evidence + slopes[0],
    "Rényi α = 0.5": evidence + moment(0.5) / 0.5,
    "TVO left": evidence + np.diff(points) @ slopes[:-1],
    "TVO right": evidence + np.diff(points) @ slopes[1:],
    "CUBO n = 2": evidence + moment(2.0) / 2,
}
print(f"log p(x) = {evidence:.3f} nats; at K = ∞")
for name, value in population.items():
    print(f"{name:16}{value:8.3f}")

# %% [markdown]
# ## The bounds against K
#
# Each point is a mean over 20 000 independent estimates of K draws each, with its standard error (mostly smaller than the mark). MIWAE and the
# jackknife need K > 1. Dotted lines: the population value, where that is not $\log p(x)$.

# %%
objectives = {
    "ELBO": elbo,
    "Rényi α = 0.5": functools.partial(renyi, alpha=0.5),
    "TVO left": functools.partial(tvo, side="left"),
    "MIWAE, 2 groups": functools.partial(miwae, groups=2),
    "IWAE": iwae,
    "jackknife": functools.partial(jackknife, order=1),
    "TVO right": functools.partial(tvo, side="right"),
    "CUBO n = 2": functools.partial(cubo, n=2),
}


@functools.partial(jax.jit, static_argnums=1)
def estimates(key, count):
    """Every objective on the same draws; copies of one x in the batch are independent estimates."""
    terms = vaejax.log_terms(model, params, key, jnp.tile(x, (repeats, 1)), num_samples=count, kl="none")
    left_out = ("MIWAE, 2 groups", "jackknife") if count == 1 else ()
    return {name: function(terms) for name, function in objectives.items() if name not in left_out}


drawn = {count: jax.tree.map(np.asarray, estimates(jax.random.key(count), count)) for count in bound_counts}


def curve(name):
    """K, mean and standard error."""
    found = [(count, drawn[count][name]) for count in bound_counts if name in drawn[count]]
    return np.array([(count, v.mean(), v.std(ddof=1) / np.sqrt(repeats)) for count, v in found], float).T


shown = (1, 2, 4, 16, 256)
print("mean ± s.e. at K =" + "".join(f"{count:>17}" for count in shown))
for name in objectives:
    found = {int(count): f"{mean:.4f} ± {error:.4f}" for count, mean, error in curve(name).T}
    print(f"{name:18}" + "".join(f"{found.get(count, '–'):>17}" for count in shown))

# %%
marks = dict(zip(objectives, zip((orange, purple, sky, green, blue, black, orange, vermillion), "svDPo^Xd")))


def draw_bounds(names):
    figure = Figure(figsize=(6, 3.3), layout="constrained")
    axes = figure.subplots()
    for name in names:
        colour, marker = marks[name]
        count, mean, error = curve(name)
        axes.errorbar(count, mean, error, color=colour, marker=marker, ms=4, lw=1.2, label=name)
        if name in population and name != "ELBO":
            axes.axhline(population[name], color=colour, ls=":", lw=1)
    axes.axhline(evidence, color=black, ls="--", lw=1, label="log p(x)")
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.1))
    finish(axes, bound_counts, ylabel="nats")
    display(figure)


draw_bounds(["IWAE", "MIWAE, 2 groups", "TVO left", "Rényi α = 0.5", "ELBO"])

# %% [markdown]
# Lower bounds. More draws do nothing for the ELBO. IWAE starts there and rises to $\log p(x)$; MIWAE with two groups is IWAE with half the draws. The
# left TVO and the Rényi bound with α = 0.5 rise too, each to a value of its own below $\log p(x)$.

# %%
draw_bounds(["CUBO n = 2", "TVO right", "jackknife", "IWAE"])

# %% [markdown]
# CUBO and the right TVO are upper bounds in population only. With one draw both are the ELBO; the mean of CUBO's estimate lies below $\log p(x)$ at K
# = 1 and 2, that of the right TVO also at K = 4. An estimate of an upper bound that comes out low certifies nothing. The jackknife is no bound at
# all, at any K: here its mean lies above $\log p(x)$ at K = 2, 4 and 8, and it may lie below elsewhere. What it offers is less bias.
#
# ## The rate
#
# The gap of IWAE is $\mathrm{Var}\,w\,/\,(2K\,p(x)^2)$ up to terms in $K^{-2}$ (Nowozin 2018). The jackknife cancels the first term. Drawn are the
# means more than three standard errors from $\log p(x)$; the jackknife soon has none.

# %%
weight_variance = float(jnp.expm1(moment(2.0)))
count, mean, error = curve("IWAE")
print(f"Var w / p(x)² = {weight_variance:.3f}")
print(
    f"gap of IWAE at K = {count[-1]:.0f}: {evidence - mean[-1]:.5f} ± {error[-1]:.5f}, predicted {weight_variance / (2 * count[-1]):.5f}"
)

figure = Figure(figsize=(5.5, 3), layout="constrained")
axes = figure.subplots()
axes.set_yscale("log")
for name in ("MIWAE, 2 groups", "IWAE", "jackknife"):
    colour, marker = marks[name]
    count, mean, error = curve(name)
    gap = np.abs(evidence - mean)
    clear = gap > 3 * error
    axes.errorbar(count[clear], gap[clear], error[clear], color=colour, marker=marker, ms=4, lw=1.2, label=name)
axes.plot(
    bound_counts, weight_variance / (2 * np.array(bound_counts)), color="0.4", ls=":", label="first term for IWAE"
)
axes.legend(frameon=False, fontsize=8)
finish(axes, bound_counts, ylabel="|mean − log p(x)|, nats")
display(figure)

# %% [markdown]
# ## Draw by draw
#
# The two TVO sums enclose IWAE on every set of draws, not only in the mean: on K drawn weights the integrand rises with β, and its integral is
# exactly the IWAE estimate. (At K = 1 all three are the same number, up to float32 rounding.) Each of them may lie on either side of $\log p(x)$. The
# first 60 estimates at K = 4:

# %%
for count in (1, 4, 256):
    left, middle, right = (drawn[count][name] for name in ("TVO left", "IWAE", "TVO right"))
    least = f"IWAE − left ≥ {np.min(middle - left):8.1e}, right − IWAE ≥ {np.min(right - middle):8.1e}"
    print(f"K = {count:3}: {least} in {repeats} estimates")

figure = Figure(figsize=(6, 3), layout="constrained")
axes = figure.subplots()
names = ("TVO right", "IWAE", "TVO left")
order = np.argsort(drawn[4]["IWAE"][:60])
right, middle, left = (drawn[4][name][:60][order] for name in names)
axes.vlines(range(60), left, right, color="0.75", lw=1)
for name, values in zip(names, (right, middle, left)):
    axes.plot(values, marks[name][1], color=marks[name][0], ms=4, label=name)
axes.axhline(evidence, color=black, ls="--", lw=1, label="log p(x)")
axes.legend(frameon=False, fontsize=8, loc="lower right")
finish(axes, xlabel="estimate, sorted by IWAE", ylabel="nats")
display(figure)

# %% [markdown]
# ## Signal and noise in the encoder's gradient
#
# A tighter bound need not be easier to climb. The signal-to-noise ratio of a gradient estimate $g$ is $\|E g\| / \sqrt{\mathrm{tr\,Cov}\,g}$. For the
# pathwise gradient of IWAE the mean falls as $K^{-1}$ and the standard deviation as $K^{-1/2}$, so the ratio falls as $K^{-1/2}$ (Rainforth et al.
# 2018). The doubly reparameterised gradient of the same bound (Tucker et al. 2019) weighs each path by the square of its normalised weight; its
# standard deviation falls as $K^{-3/2}$, and its ratio rises as $K^{1/2}$.
#
# The target is $N(0, I_2)$: the prior, with a likelihood that ignores $z$. The encoder is $q = N(0.3, 1.1^2)$ in both dimensions.


# %%
def target(size):
    return build(lambda params, z: diagonal_normal(jnp.zeros_like(z[..., :1]), 1.0), size)


def ratio(estimator, params, num_draws):
    found = variance(
        estimator, params, jax.random.key(0), np.zeros((1, 1)), num_draws=num_draws, groups=lambda name: "encoder"
    )
    return float(found.signal_to_noise["encoder"])


near = encoder(np.full(2, 0.3), np.full(2, 1.1**2))
methods = {"pathwise": pathwise, "doubly_reparameterized": doubly_reparameterized}
few = 2**9 if small else 2**12
many = 2**11 if small else 2**17  # a ratio below 1/√draws cannot be told from 0, and the pathwise one gets small
num_draws = {"pathwise": many, "doubly_reparameterized": few}
ratios = {
    name: [ratio(method(target(2), iwae, num_samples=count), near, num_draws[name]) for count in gradient_counts]
    for name, method in methods.items()
}
fits = {name: np.polyfit(np.log(gradient_counts), np.log(values), 1) for name, values in ratios.items()}
print("signal-to-noise ratio, K =" + "".join(f"{count:9}" for count in gradient_counts) + "   exponent")
for name, values in ratios.items():
    print(f"{name:26}" + "".join(f"{value:9.4f}" for value in values) + f"{fits[name][0]:+11.3f}")
print(f"1/√draws of the pathwise row: {many**-0.5:.4f}")

# %%
looks = {"pathwise": (vermillion, "s"), "doubly_reparameterized": (blue, "o")}

figure = Figure(figsize=(6.5, 3), layout="constrained")
axes = figure.subplots()
axes.set_yscale("log")
for name, (colour, marker) in looks.items():
    axes.plot(gradient_counts, ratios[name], marker, color=colour, ms=5, label=name)
    line = np.exp(np.polyval(fits[name], np.log(gradient_counts)))
    axes.plot(gradient_counts, line, color=colour, lw=1, label=f"fit $K^{{{fits[name][0]:+.2f}}}$")
axes.axhline(many**-0.5, color="0.5", ls=":", lw=1, label="1/√draws, pathwise")
axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
finish(axes, gradient_counts, ylabel="signal-to-noise ratio")
display(figure)

# %% [markdown]
# The fitted exponents are −0.547 and +0.502. The pathwise one is a little too steep: its first step leads from K = 1, which is not large yet, and its
# last point lies only three times above the dotted line. The two estimators have the same mean. At K = 256 one estimate of the first kind is noise,
# and one of the second has a twelfth of the signal as its error.
#
# ## Far away, in 20 dimensions
#
# Both rates hold for large K, and large means large against $E\,w^2/p(x)^2$. With the target $N(0, I_{20})$ that is out of reach for an encoder such
# as training starts from. Two of them, in every dimension: $N(2, 0.5^2)$ is too narrow, its $E\,w^2$ is infinite, and the rates are promised at no K;
# for $N(2, 1.1^2)$ the moment is finite and printed below. The dotted lines are the rates of the last section, from the value at K = 1.

# %%
ones = np.ones(20)
places = {"q = N(2, 0.5²)": encoder(2 * ones, 0.5**2 * ones), "q = N(2, 1.1²)": encoder(2 * ones, 1.1**2 * ones)}
second = log_moment(2.0, q=(2 * ones, 1.1**2 * ones), post=(0 * ones, ones))
print(f"q = N(2, 1.1²): E w²/p(x)² = {float(jnp.exp(second)):.1e}")

far = {place: {name: [] for name in methods} for place in places}
far_target = target(20)
for name, method in methods.items():
    for count in far_counts:
        estimator = method(far_target, iwae, num_samples=count)
        for place, where in places.items():
            far[place][name].append(ratio(estimator, where, few))

print("signal-to-noise ratio, K =" + " " * 16 + "".join(f"{count:9}" for count in far_counts) + "   exponent")
for place, found in far.items():
    for name, values in found.items():
        exponent = np.polyfit(np.log(far_counts), np.log(values), 1)[0]
        print(f"{place}  {name:26}" + "".join(f"{value:9.3f}" for value in values) + f"{exponent:+11.3f}")

figure = Figure(figsize=(6.5, 3), layout="constrained")
panels = figure.subplots(1, 2, sharey=True)
for axes, (place, found) in zip(panels, far.items()):
    axes.set_yscale("log")
    for (name, (colour, marker)), slope in zip(looks.items(), (-0.5, 0.5)):
        axes.plot(far_counts, found[name], marker, color=colour, ms=5, label=name)
        line = found[name][0] * np.array(far_counts, float) ** slope
        axes.plot(far_counts, line, color=colour, ls=":", lw=1, label=f"$K^{{{slope:+.1f}}}$")
    finish(axes, far_counts, title=place)
panels[0].set_ylabel("signal-to-noise ratio")
panels[0].legend(frameon=False, fontsize=8, loc="lower left")
display(figure)

# %% [markdown]
# Neither exponent holds. From 1 to 256 draws the pathwise ratio does not fall but rises a little, with both encoders; the doubly reparameterised one
# falls a little with the narrow encoder and rises a little with the wide one. With the narrow one the plain gradient is even the better of the two,
# by 2.3 to 0.9 at K = 256. Where $q$ is that far away, the rates are no reason to choose either estimator, nor a larger or smaller K.
#
# The effective sample size says why (medians of 200 sets of weights, with the range from the 10th to the 90th percentile):


# %%
@functools.partial(jax.jit, static_argnums=2)
def effective(params, key, size):
    """Of 200 sets of weights, at every K up to the last."""
    log_weights = vaejax.log_terms(
        target(size), params, key, jnp.zeros((200, 1)), num_samples=bound_counts[-1]
    ).log_weights
    moments = [vaejax.numerics.weight_moments(log_weights[:count]) for count in bound_counts]
    return jnp.stack([vaejax.numerics.effective_sample_size(m) for m in moments])


figure = Figure(figsize=(5.5, 2.8), layout="constrained")
axes = figure.subplots()
axes.set_yscale("log")
cases = {
    "2 dimensions, q = N(0.3, 1.1²)": near,
    **{f"20 dimensions, {place}": where for place, where in places.items()},
}
medians = {}
for (name, where), colour, marker in zip(cases.items(), (blue, orange, vermillion), "osd"):
    sizes = np.asarray(effective(where, jax.random.key(0), len(where["loc"])))
    medians[name] = np.median(sizes, axis=1)
    axes.plot(bound_counts, medians[name], color=colour, marker=marker, ms=4, lw=1.2, label=name)
    axes.fill_between(bound_counts, *np.quantile(sizes, [0.1, 0.9], axis=1), color=colour, alpha=0.2, lw=0)
for name, values in medians.items():
    print(f"{name:31} effective draws of {bound_counts[-1]}: {values[-1]:.2f}")
axes.legend(frameon=False, fontsize=8)
finish(axes, bound_counts, ylabel="effective sample size")
display(figure)

# %% [markdown]
# In two dimensions 219 of 256 draws count. In twenty, one or two carry the whole sum: IWAE is not far from its largest log-weight less log K, and a
# further draw mostly changes nothing or takes the place of the one that counts. Both rates come from averaging over K draws, and there is hardly
# an average here.
#
# ## Sticking the landing
#
# The pathwise gradient of the ELBO contains the score $\nabla_\phi \log q_\phi(z)$, whose mean is 0 and whose variance is not. Without it (Roeder et
# al. 2017) the gradient at the exact posterior vanishes for every single draw. Back to the first model, with one draw of $z$ per estimate and $q$ the
# exact posterior:

# %%
exact = encoder(post_mean, post_variance)
estimators = {
    "sticking_the_landing": sticking_the_landing(model, elbo),
    "pathwise": pathwise(model, functools.partial(elbo, kl="monte_carlo")),
    "pathwise, closed-form KL": pathwise(model, elbo),
}


@functools.partial(jax.jit, static_argnums=0)
def gradients(estimator, params, x):
    """Many independent ones, in the mean and in log σ of q."""
    keys = jax.random.split(jax.random.key(0), 1000 if small else 20_000)
    return jax.vmap(lambda key: estimator.estimate(params, (), key, x)[0].grads)(keys)


def total_variances(estimator, params, x):
    return {name: float(jnp.sum(jnp.var(g, axis=0))) for name, g in gradients(estimator, params, x).items()}


print("norm of the gradient at the exact posterior")
for name, estimator in estimators.items():
    norms = jnp.linalg.norm(jnp.concatenate([*gradients(estimator, exact, x).values()], axis=1), axis=1)
    print(f"{name:26} median {float(jnp.median(norms)):7.2g}, largest of {len(norms)} {float(norms.max()):7.2g}")

# %% [markdown]
# Zero up to rounding, and not zero. Now away from the exact posterior, on a straight line in mean and log σ through our $q$ (at 1) to twice as far:


# %%
def between(t):
    return jax.tree.map(lambda start, end: start + t * (end - start), exact, params)


distances = np.linspace(0, 2, 9)
totals = {
    name: [sum(total_variances(estimator, between(t), x).values()) for t in distances]
    for name, estimator in estimators.items()
}
print("total variance at distance" + "".join(f"{t:8.2f}" for t in distances))
for name, values in totals.items():
    print(f"{name:26}" + "".join(f"{value:8.2f}" for value in values))

figure = Figure(figsize=(5.5, 3), layout="constrained")
axes = figure.subplots()
for (name, values), colour, marker in zip(totals.items(), (green, vermillion, orange), "^sv"):
    axes.plot(distances, values, color=colour, marker=marker, ms=4, lw=1.2, label=name)
axes.legend(frameon=False, fontsize=8)
finish(
    axes,
    xlabel="distance from the exact posterior (our q at 1)",
    ylabel="total variance of the gradient",
    ylim=(0, None),
)
display(figure)

# %% [markdown]
# Without the score the variance grows from zero, so that training can settle. It is no free gain: from about 1.5 on, the pathwise gradient with the
# closed-form KL has less variance. The pathwise gradient that samples its KL has the most everywhere on this line.
#
# ## Noise that covers the space
#
# The K draws need not be independent. Antithetic draws come in pairs $\pm\varepsilon$; the points of a scrambled Sobol sequence spread evenly. Each
# draw by itself has the right distribution, so a mean over draws such as the ELBO stays unbiased. Total variance of the pathwise gradient of the ELBO
# (closed-form KL), on the linear-Gaussian model and on the same latents with a Bernoulli likelihood for binary data:

# %%
binary = build(lambda params, z: Bernoulli(3.0 * (z @ W.T + b)), 2)
tasks = {"Gaussian": (model, x), "Bernoulli": (binary, np.array([[1.0, 0.0, 1.0]]))}
noises = ("independent", "antithetic", "sobol")
noise_counts = [16] if small else [4, 16, 64]
spreads = {
    (task, noise, count): total_variances(pathwise(where, elbo, num_samples=count, noise=noise), params, data)
    for task, (where, data) in tasks.items()
    for noise in noises
    for count in (noise_counts if task == "Bernoulli" else [16])
}
print("total variance at K = 16" + "".join(f"{noise:>13}" for noise in noises))
for task in tasks:
    for name, words in (("loc", "mean of q"), ("log_scale", "log σ of q")):
        print(f"{task + ', ' + words:24}" + "".join(f"{spreads[task, noise, 16][name]:13.2g}" for noise in noises))

# %%
figure = Figure(figsize=(6.5, 2.8), layout="constrained")
panels = figure.subplots(1, 2, sharey=True)
for axes, name, words in zip(panels, ("loc", "log_scale"), ("mean of q", "log σ of q")):
    axes.set_yscale("log")
    for noise, colour, marker in zip(noises, (black, orange, blue), "osd"):
        values = [spreads["Bernoulli", noise, count][name] for count in noise_counts]
        axes.plot(noise_counts, values, color=colour, marker=marker, ms=4, lw=1.2, label=noise)
    finish(axes, noise_counts, title=f"Bernoulli, gradient in the {words}")
panels[0].set_ylabel("total variance")
panels[0].legend(frameon=False, fontsize=8)
display(figure)

# %% [markdown]
# On the Gaussian model the gradient in the mean of $q$ is linear in ε, so a pair $\pm\varepsilon$ cancels its noise exactly (what is left is
# rounding). In log σ the gradient is mostly even in ε: the second draw of a pair repeats the first, and the variance doubles. The Bernoulli model
# shows the same, less purely: antithetic draws help the mean more than tenfold and hurt log σ a little. The Sobol points help both, and their
# variance falls faster than 1/K; at K = 4 antithetic draws are still ahead of them in the mean. None of it is promised for IWAE: under its logarithm,
# dependent draws make another bound.
