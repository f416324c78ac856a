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
# # Gradients through discrete latents
#
# A draw of a Bernoulli does not move when its probability moves a little: there is no path to differentiate. What has been published instead differs in
# bias, in noise and in cost. First the toy problem on which REBAR, RELAX and ARM were shown, where every variance can be worked out by hand; then six
# Bernoullis under a decoder, where the exact gradient is a sum of 64 terms. About ten minutes on two cores, most of it the race. (`VAEJAX_SMALL=1` makes all numbers
# small; the checks of this repository run the notebook that way.)

# %%
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import display
from matplotlib.figure import Figure

import vaejax
from vaejax import estimators
from vaejax.dists import Bernoulli
from vaejax.estimators import baselines
from vaejax.objectives import elbo

# %matplotlib inline

small = os.environ.get("VAEJAX_SMALL") == "1"
jax.config.update("jax_disable_most_optimizations", small)  # compiles in half the time
jax.config.update("jax_enable_x64", True)
colours = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#882255", "#0072B2", "#D55E00", "#CC79A7", "#999999")


def finish(axes, **labels):
    axes.set(**labels)
    axes.title.set_fontsize(9)
    axes.spines[["top", "right"]].set_visible(False)


# %% [markdown]
# ## The toy problem
#
# Minimise $E\,(b - t)^2$ over $\varphi$, with $b \sim \mathrm{Bernoulli}(\sigma(\varphi))$. The gradient is $(1 - 2t)\,\sigma(\varphi)(1 - \sigma(\varphi))$:
# below $t = \frac12$ the way down is $\varphi \to -\infty$, where the loss is $t^2$. At $t = 0.499$ the two outcomes differ by 0.002, and a gradient of 0.0005
# has to be found in noise. (Tucker et al. 2017; Grathwohl et al. 2018; Yin & Zhou 2019.)
#
# As a model of vaejax: the loss takes the place of a log-likelihood, and the objective is that alone.


# %%
class Loss:
    """−(b − t)² where a log-likelihood is expected."""

    def __init__(self, b, t):
        self.b, self.t = b, t

    def log_prob(self, x):
        return -((self.b[..., 0] - self.t) ** 2)


@vaejax.objectives.objective(averages_draws=True)
def reward(terms, *, step=0):
    return terms.log_likelihood.mean(0)


def toy(t):
    return vaejax.Model(
        init=lambda key, batch: jnp.zeros(()),
        posterior=lambda phi, x: Bernoulli(jnp.broadcast_to(phi, x.shape)),
        prior=lambda phi: Bernoulli(jnp.zeros(1)),
        likelihood=lambda phi, z: Loss(z, t),
    )


x = jnp.zeros((1, 1))
two = functools.partial(estimators.score_function, num_samples=2, baseline=baselines.leave_one_out())
tuner = optax.adam(0.01)
methods = {
    "REINFORCE": estimators.score_function,
    "leave one out, K=2": two,
    "MuProp": estimators.muprop,
    "REBAR": functools.partial(estimators.rebar, optimizer=tuner),
    "RELAX": functools.partial(estimators.relax, critic=(10,), optimizer=tuner),
    "ARM": estimators.arm,
    "DisARM": estimators.disarm,
    "measure-valued": estimators.measure_valued,
    "Concrete, T = 0.5": functools.partial(estimators.concrete, temperature=0.5),
}
looks = dict(zip(methods, colours))


def moments(constructor, t, phi, num_draws):
    """Mean and variance of one gradient."""
    estimator = constructor(toy(t), reward)
    keys = jax.random.split(jax.random.key(0), num_draws)

    @jax.jit
    def at(phi):
        state = estimator.init(phi, jax.random.key(1), x)
        grads = jax.vmap(lambda k: estimator.estimate(phi, state, k, x)[0].grads)(keys)
        return grads.mean(), grads.var()

    return np.array(jax.lax.map(at, jnp.atleast_1d(phi)))


draws = 2000 if small else 200_000
print("at φ = 0, t = 0.45:   mean (exact 0.0250)   ln variance")
for name, constructor in methods.items():
    mean, spread = moments(constructor, 0.45, 0.0, draws)[:, 0]
    print(f"{name:20} {mean:16.4f} {np.log(spread) if spread > 1e-25 else -np.inf:17.3f}")

# %% [markdown]
# By hand: REINFORCE −4.139, ARM −8.476, leave one out $(1 - 2t)^2/16$, that is −7.378. DisARM, which is ARM with its uniform noise integrated out, and the
# measure-valued gradient are exact here: a pair $b = 0$, $b = 1$ says everything there is to say about one Bernoulli. MuProp's expansion about
# $\sigma(\varphi)$ leaves the second-order term. Concrete is the one biased estimator of the list.
#
# ## Noise along the way
#
# The same for every $\varphi$ on the way down, at $t = 0.45$ (REBAR and RELAX before any tuning, η = 1, T = 0.5):

# %%
grid = np.linspace(-6, 2, 5 if small else 33)
figure = Figure(figsize=(6.5, 3.4), layout="constrained")
axes = figure.subplots()
axes.set_yscale("log")
for name, constructor in methods.items():
    spread = moments(constructor, 0.45, grid, 500 if small else 20_000)[1]
    if spread.max() > 1e-20:
        axes.plot(grid, spread, color=looks[name], lw=1.4, label=name)
exact = (0.1 * jax.nn.sigmoid(grid) * jax.nn.sigmoid(-grid)) ** 2
axes.plot(grid, exact, color="0.5", ls=":", label="the gradient, squared")
axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
finish(axes, xlabel="φ", ylabel="variance of one gradient", ylim=(1e-8, 1))
display(figure)

# %% [markdown]
# Where a curve lies below the dotted one, a single draw knows which way is down. The measure-valued gradient has no variance anywhere: it evaluates both
# states. ARM, DisARM and leave-one-out all but coincide; DisARM drops to zero at $\varphi = 0$, where its pair is always one of each. MuProp and the untuned
# REBAR and RELAX do not see that 0.25 of the loss is constant.
#
# ## The race
#
# $t = 0.499$, Adam at 0.01 from $\varphi = 0$, one draw (two for leave-one-out) a step, the control variates tuned by Adam at 0.01 on the square of the
# gradient; medians over 20 seeds. On the right the variance of one gradient where each run stands, for its current control variate.

# %%
t, seeds = 0.499, 4 if small else 20
steps, marks = (200, 4) if small else (20_000, 40)
spread_draws = 20 if small else 400


def race(constructor):
    """φ, ln variance and the state of the control variate at ``marks`` points, for each seed."""
    estimator, optimizer = constructor(toy(t), reward), optax.adam(0.01)

    def one(carry, key):
        phi, opt_state, state = carry
        estimate, state = estimator.estimate(phi, state, key, x)
        updates, opt_state = optimizer.update(estimate.grads, opt_state, phi)
        return (optax.apply_updates(phi, updates), opt_state, state), None

    def stage(carry, key):
        step_key, spread_key = jax.random.split(key)
        keys = jax.random.split(spread_key, spread_draws)
        grads = jax.vmap(lambda k: estimator.estimate(carry[0], carry[2], k, x)[0].grads)(keys)
        seen = (carry[0], jnp.log(grads.var() + 1e-30), carry[2])
        return jax.lax.scan(one, carry, jax.random.split(step_key, steps // marks))[0], seen

    def run(key):
        phi = jnp.zeros(())
        start = (phi, optimizer.init(phi), estimator.init(phi, key, x))
        return jax.lax.scan(stage, start, jax.random.split(key, marks + 1))[1]

    return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(7), seeds))


runs = {name: race(constructor) for name, constructor in methods.items()}
at_step = np.arange(marks + 1) * (steps // marks)


def gap(phi):
    p = jax.nn.sigmoid(phi)
    return np.asarray(p * (1 - t) ** 2 + (1 - p) * t**2 - t**2)


figure = Figure(figsize=(8, 3.4), layout="constrained")
left, right = figure.subplots(1, 2)
for name, (phi, spread, _) in runs.items():
    left.plot(at_step, t**2 + np.median(gap(phi), axis=0), color=looks[name], lw=1.4, label=name)
    # A variance of zero among 400 draws is none measured.
    middle = np.median(np.where(np.asarray(spread) > -40, spread, np.nan), axis=0)
    right.plot(at_step, middle, color=looks[name], lw=1.4, label=name)
left.axhline(t**2, color="0.5", ls=":", lw=1)
finish(left, xlabel="step", ylabel="loss", title="loss, medians over seeds (dotted: t²)")
finish(right, xlabel="step", ylabel="ln variance", title="ln variance of one gradient")
figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside right center")
display(figure)

quarter = marks // 4
print(
    f"gap of the loss to t²: median (and share of seeds within 1e-4) after {at_step[quarter]} and {at_step[-1]} steps"
)
for name, (phi, _, _) in runs.items():
    found = gap(phi)
    cells = "   ".join(f"{np.median(found[:, i]):9.1e} ({np.mean(found[:, i] < 1e-4):4.0%})" for i in (quarter, -1))
    print(f"{name:20} {cells}")

# %% [markdown]
# ARM, DisARM, the measure-valued gradient and leave-one-out (with its two draws) arrive within some thousand steps: in all four the constant part of
# the loss, 0.25, cancels. (Their variance is drawn until $\sigma(\varphi)$ is so small that 400 draws are all alike.) REINFORCE sees that part in every draw,
# and so does MuProp, whose expansion about the mean has none of it; both walk at random. RELAX arrives late, REBAR does not. Concrete
# stays at $\varphi = 0$: its relaxed loss is least where the relaxed draws are near ½.
#
# ## Why REBAR does not arrive
#
# REBAR's control variate is η times the loss at a relaxed draw. The relaxed loss goes down to 0 between the states and back up to 0.25, while the hard one
# differs by 0.002 between them, so that the control adds more noise than it takes away, and the tuning gives it up: η goes to 0. What is left is
# REINFORCE. RELAX adds a free critic, which can be what the relaxed loss cannot, nearly constant; once it is, its η is given up as well.

# %%
figure = Figure(figsize=(8, 2.8), layout="constrained")
panels = figure.subplots(1, 2)
for name in ("REBAR", "RELAX"):
    tuned = runs[name][2].tuned[0]
    for axes, values in zip(panels, (tuned.eta, jnp.exp(tuned.log_temperature))):
        low, middle, high = np.quantile(np.asarray(values), [0.25, 0.5, 0.75], axis=0)
        axes.plot(at_step, middle, color=looks[name], lw=1.4, label=name)
        axes.fill_between(at_step, low, high, color=looks[name], alpha=0.2, lw=0)
panels[1].set_yscale("log")
panels[0].axhline(0, color="0.5", ls=":", lw=1)
panels[0].legend(frameon=False, fontsize=8)
finish(panels[0], xlabel="step", ylabel="η", title="scale of the relaxed loss (median, quartiles)")
finish(panels[1], xlabel="step", ylabel="T", title="temperature")
display(figure)

# %% [markdown]
# ## Six Bernoullis
#
# A sigmoid belief network with six latents: its gradient can be had exactly, as a sum over 64 states. Each estimator's certificate compares the mean of
# many gradients with it. Bias is in units of the exact gradient's norm, z in standard errors of the mean; the last columns are total variance and
# signal-to-noise ratio, for the encoder's part. What has a state to learn (a baseline, a control variate) learns for 1000 steps first, at these params.

# %%
network = vaejax.models.sigmoid_belief_network(x_shape=8, layer_sizes=6)
data = jnp.asarray(np.random.default_rng(0).integers(0, 2, (4, 8)), float)
params = jax.tree.map(
    lambda leaf: leaf + 0.5 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
    network.init(jax.random.key(0), data),
)
params = {**params, "input_mean": data.mean(0)}
exact = estimators.enumerate_latents(network, elbo).estimate(params, (), jax.random.key(0), data)[0].grads
cases = {
    "score function": estimators.score_function,
    "leave one out, K=2": two,
    "… with local signals": functools.partial(two, rao_blackwell=True),
    "network baseline": functools.partial(
        estimators.score_function, baseline=baselines.added(baselines.network((20,)), baselines.moving_average())
    ),
    "MuProp": estimators.muprop,
    "REBAR": estimators.rebar,
    "RELAX": estimators.relax,
    "ARM": estimators.arm,
    "DisARM": estimators.disarm,
    "measure-valued": estimators.measure_valued,
    "unordered set, K=2": estimators.unordered_set,
    "Concrete, T = 0.5": functools.partial(estimators.concrete, temperature=0.5),
    "straight-through": estimators.straight_through,
    "Gumbel straight-through": estimators.gumbel_straight_through,
}
count = 500 if small else 20_000


def learned(estimator, steps=20 if small else 1000):
    """The estimator's state after some steps at fixed params."""

    def one(state, key):
        return estimator.estimate(params, state, key, data)[1], None

    keys = jax.random.split(jax.random.key(1), steps)
    state = estimator.init(params, keys[0], data)
    return jax.jit(lambda state: jax.lax.scan(one, state, keys)[0])(state)


certificates = {}
print(f"{'':24}    bias      z   variance   signal/noise")
for name, constructor in cases.items():
    made = constructor(network, elbo)
    found = estimators.certify(
        made, exact, params, jax.random.key(2), data, num_draws=count, state=learned(made), repeats=0
    )
    certificates[name] = found
    values = (found.bias["encoder"], found.z["encoder"], found.variance["encoder"], found.signal_to_noise["encoder"])
    print("{:24} {:7.3f} {:6.1f} {:10.4g} {:12.3f}".format(name, *values))

# %%
norm = float(optax.tree.norm(exact["encoder"]))
order = sorted(certificates, key=lambda name: -certificates[name].variance["encoder"])
figure = Figure(figsize=(7.5, 3.6), layout="constrained")
left, right = figure.subplots(1, 2, sharey=True)
for row, name in enumerate(order):
    found = certificates[name]
    colour = colours[6] if found.z["encoder"] > 5 else colours[5]
    left.plot(np.sqrt(found.variance["encoder"]) / norm, row, "o", color=colour, ms=5)
    right.plot(found.bias["encoder"], row, "o", color=colour, ms=5)
    right.plot(found.standard_error["encoder"], row, "|", color="0.4", ms=9)
for axes in (left, right):
    axes.set_xscale("log")
    axes.grid(axis="y", color="0.92")
left.set_yticks(range(len(order)), order, fontsize=8)
finish(left, xlabel="standard deviation of one gradient", title="noise, in norms of the exact gradient")
finish(right, xlabel="|mean − exact|", title="bias, in the same unit (bars: the mean's standard error)")
display(figure)

# %% [markdown]
# The three in red are the biased ones: their mean is many standard errors away from the exact gradient, which more draws would not mend. What the others
# show as bias is the error of a mean of 20 000. The noise is a matter of a factor of two between all estimators that make one more evaluation; what
# matters is to have a baseline at all. Local signals change little with six latents.
#
# ## Where Concrete's bias comes from
#
# Relaxing the latents changes two things. The likelihood is evaluated between its states, which matters less as T falls. And the KL of the discrete
# distributions becomes the KL of two logistics, which is the same at every temperature: no cooling brings it back. With `kl="discrete"` the relaxed draws
# go into the likelihood alone; what is then optimised is no bound, but its bias vanishes.


# %%
@vaejax.objectives.objective(averages_draws=True)
def log_likelihood(terms, *, step=0):
    return terms.log_likelihood.mean(0)


temperatures = [0.2, 1.0] if small else [0.1, 0.2, 0.4, 0.7, 1.0, 2.0]
variants = {
    "likelihood's part": (log_likelihood, {}),
    "ELBO, discrete KL": (elbo, {"kl": "discrete"}),
    "ELBO, relaxed KL": (elbo, {}),
}
figure = Figure(figsize=(7, 3), layout="constrained")
left, right = figure.subplots(1, 2)
for (name, (objective, options)), colour in zip(variants.items(), (colours[5], colours[3], colours[6])):
    truth = estimators.enumerate_latents(network, objective).estimate(params, (), jax.random.key(0), data)[0].grads
    found = [
        estimators.certify(
            estimators.concrete(network, objective, temperature=temperature, **options),
            truth,
            params,
            jax.random.key(3),
            data,
            num_draws=count,
            repeats=0,
        )
        for temperature in temperatures
    ]
    left.plot(temperatures, [f.bias["encoder"] for f in found], "o-", color=colour, ms=4, lw=1.2, label=name)
    right.plot(temperatures, [f.variance["encoder"] for f in found], "o-", color=colour, ms=4, lw=1.2, label=name)
for axes, label in ((left, "bias, in norms of the exact gradient"), (right, "variance of one gradient")):
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(temperatures, [f"{value:g}" for value in temperatures], minor=False)
    axes.minorticks_off()
    finish(axes, xlabel="temperature T", ylabel=label)
left.legend(frameon=False, fontsize=8)
display(figure)

# %% [markdown]
# Less bias is more noise: at T = 0.1 the relaxed draw is nearly a step function, with the slopes to match.
#
# ## More draws
#
# What K draws buy, per draw: the variance times K. Independent draws with a fixed baseline would be a level line. Leave-one-out improves as its
# baseline does, and then stays; draws without replacement keep improving as they use up the 64 states.

# %%
counts = [2, 4] if small else [2, 4, 8, 16, 32]
families = {
    "score function": estimators.score_function,
    "leave one out": functools.partial(estimators.score_function, baseline=baselines.leave_one_out()),
    "… with local signals": functools.partial(
        estimators.score_function, baseline=baselines.leave_one_out(), rao_blackwell=True
    ),
    "unordered set": estimators.unordered_set,
    "DisARM": estimators.disarm,
}
figure = Figure(figsize=(5.5, 3), layout="constrained")
axes = figure.subplots()
axes.set(xscale="log", yscale="log")
for (name, constructor), colour in zip(families.items(), (colours[0], colours[1], colours[6], colours[5], colours[3])):
    # A pair of DisARM is two evaluations.
    draws_of = [k // 2 if name == "DisARM" else k for k in counts]
    spreads = [
        estimators.variance(
            constructor(network, elbo, num_samples=k), params, jax.random.key(4), data, num_draws=max(count // 4, 100)
        ).total_variance["encoder"]
        for k in draws_of
    ]
    axes.plot(counts, np.array(counts) * np.array(spreads), "o-", color=colour, ms=4, lw=1.2, label=name)
axes.set_xticks(counts, [str(k) for k in counts])
axes.minorticks_off()
axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
finish(axes, xlabel="evaluations of the decoder", ylabel="variance × evaluations")
display(figure)
