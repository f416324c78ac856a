"""The spread of pathwise gradients, near the optimum and far from it: the tables of docs/estimators.md.

    python -m benchmarks gradient_variance [--draws 20000]

The target posterior is known: z ~ N(2, 3²) (or N(0, I)), and x says nothing about z. So is the optimum: q = that target.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from vaejax.dists import diagonal_normal, standard_normal
from vaejax.estimators import (
    doubly_reparameterized,
    pathwise,
    piwae,
    sticking_the_landing,
    taylor_control_variate,
    variance,
)
from vaejax.objectives import elbo, iwae, miwae

X = jnp.zeros((1, 1))
COUNTS = [1, 4, 16, 64, 256]


def model(size: int, loc: float = 0.0, scale: float = 1.0) -> vaejax.Model:
    """A model whose posterior is its prior, N(loc, scale²) in each dimension; q's mean and log-scale are the params."""
    return vaejax.Model(
        init=lambda key, batch: {"loc": jnp.zeros(size), "log_scale": jnp.zeros(size)},
        posterior=lambda p, x: diagonal_normal(jnp.broadcast_to(p["loc"], (len(x), size)), log_scale=p["log_scale"]),
        prior=lambda p: (
            diagonal_normal(jnp.full(size, loc), jnp.full(size, scale)) if scale != 1 else standard_normal(size)
        ),
        likelihood=lambda p, z: diagonal_normal(jnp.zeros((*z.shape[:-1], 1)), jnp.ones(())),
    )


def at(size: int, loc: float, scale: float) -> dict:
    return {"loc": jnp.full(size, loc), "log_scale": jnp.full(size, np.log(scale))}


def spreads(draws: int) -> None:
    """Standard deviations of one gradient, target N(2, 3²)."""
    target = model(1, 2.0, 3.0)
    monte_carlo = functools.partial(elbo, kl="monte_carlo")
    rows = {
        "ELBO, K=1: pathwise, closed-form KL": pathwise(target, elbo),
        "ELBO, K=1: pathwise, Monte Carlo KL": pathwise(target, monte_carlo),
        "ELBO, K=1: sticking_the_landing": sticking_the_landing(target, elbo),
        "ELBO, K=1: taylor_control_variate": taylor_control_variate(target, monte_carlo),
        **{
            f"ELBO, K=16: sticking_the_landing, {noise}": sticking_the_landing(
                target, elbo, num_samples=16, noise=noise
            )
            for noise in ("independent", "antithetic", "sobol")
        },
        "IWAE, K=10: pathwise": pathwise(target, iwae, num_samples=10),
        "IWAE, K=10: doubly_reparameterized": doubly_reparameterized(target, iwae, num_samples=10),
        "MIWAE, K=10 in 2 groups: pathwise (PIWAE's encoder)": piwae(
            target, encoder=functools.partial(miwae, groups=2), decoder=iwae, num_samples=10
        ),
    }
    places = {"near: N(1.8, 2.8²)": at(1, 1.8, 2.8), "far: N(−3, 1²)": at(1, -3.0, 1.0)}
    print(f"standard deviation of one gradient of the loss, target N(2, 3²), over {draws} draws: μ, log σ")
    print(f"{'':52}", *(f"{name:>28}" for name in places))
    for name, estimator in rows.items():
        cells = []
        for params in places.values():
            spread = variance(estimator, params, jax.random.key(0), X, num_draws=draws, block_size=1000).variance
            cells.append(f"{float(spread['loc'][0]) ** 0.5:14.2g}{float(spread['log_scale'][0]) ** 0.5:14.2g}")
        print(f"{name:52}", *cells, flush=True)


def ratios(draws: int) -> None:
    """Signal-to-noise ratios of the gradient against K, and their exponents."""
    cases = {"N(0, I₂) from N(0.3, 1.1²)": (2, at(2, 0.3, 1.1)), "N(0, I₂₀) from N(1.5, 0.7²)": (20, at(20, 1.5, 0.7))}
    print(
        f"\nsignal-to-noise ratio of the IWAE gradient against K = {COUNTS}, over up to {4 * draws} draws, and its exponent"
    )
    for case, (size, params) in cases.items():
        for estimator in (pathwise, doubly_reparameterized):
            found = []
            for count in COUNTS:
                made = estimator(model(size), iwae, num_samples=count)
                total = 4 * draws if estimator is pathwise else draws
                measured = variance(
                    made, params, jax.random.key(1), X, num_draws=total, block_size=500, groups=lambda name: "all"
                )
                found.append(float(measured.signal_to_noise["all"]))
            slope = np.polyfit(np.log(COUNTS), np.log(found), 1)[0]
            print(
                f"{case:30} {estimator.__name__:24}",
                *(f"{r:8.3g}" for r in found),
                f"   exponent {slope:+.2f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20_000)
    options = parser.parse_args()
    spreads(options.draws)
    ratios(options.draws)


if __name__ == "__main__":
    main()
