"""Models with exact evidence: densities, posteriors, bounds, and one E- and M-step with and without missing entries."""

import jax
import numpy as np
from scipy import special, stats

from tests.exact_numpy.table import double, row, single
from vaejax import Batch
from vaejax.conjugate import bayesian_gmm, factor_analysis, gmm, mppca, ppca
from vaejax.dists import MultivariateNormal, OneHotCategorical

COMPONENTS = 3


def spread_means(rng, size):
    """Distances between components that do not grow with d, so that no component is empty."""
    return rng.normal(size=(COMPONENTS, size)) * np.sqrt(8 / size)


def rows_of(rng, shape):
    """``[n, d]`` correlated rows of three clusters, n at most 20,000."""
    count, size = min(shape[0] * shape[1], 20_000), shape[2]
    mixing = np.eye(size) + 0.3 * rng.normal(size=(size, size)) / np.sqrt(size)
    centers = spread_means(rng, size)
    return single(rng.normal(size=(count, size)) @ mixing + centers[rng.integers(0, COMPONENTS, count)])


def mixture(rng, size):
    weight = rng.dirichlet(np.full(COMPONENTS, 5.0))
    covariance = np.stack([stats.wishart.rvs(4 * size, np.eye(size) / (4 * size), random_state=rng) for _ in weight])
    return weight, spread_means(rng, size), covariance.reshape(-1, size, size)


def log_joint(weight, mean, covariance, x):
    normals = (stats.multivariate_normal.logpdf(x, m, c) for m, c in zip(mean, covariance))
    return np.log(weight) + np.stack(list(normals), -1)


def responsibilities(joint):
    return np.exp(joint - special.logsumexp(joint, -1, keepdims=True))


def moments(shares, x):
    """Totals, means and scatters about the means, for responsibilities [n, K]."""
    total = shares.sum(0)
    mean = shares.T @ x / total[:, None]
    away = [x - m for m in mean]
    return total, mean, np.stack([(a * r[:, None]).T @ a for a, r in zip(away, shares.T)])


def equal_shape(total, scatter, sweeps=1000):
    """λ_k D_k A D_kᵀ with |A| = 1 by alternation (Celeux & Govaert 1995)."""
    values, vectors = np.linalg.eigh(scatter)
    size, shape = values.shape[1], np.ones(values.shape[1])
    for _ in range(sweeps):
        volume = (values / shape).sum(1) / (size * total)
        pooled = (values / volume[:, None]).sum(0)
        shape = pooled / np.exp(np.log(pooled).mean())
    return np.einsum("kij,k,j,klj->kil", vectors, volume, shape, vectors)


def low_rank(covariance, rank):
    values, vectors = np.linalg.eigh(covariance)
    floor = values[:, :-rank].mean(1, keepdims=True)
    return np.einsum(
        "kij,kj,klj->kil",
        vectors,
        np.concatenate([floor * np.ones_like(values[:, :-rank]), values[:, -rank:]], 1),
        vectors,
    )


def covariances(total, scatter):
    separate = scatter / total[:, None, None]
    diagonal = np.diagonal(separate, axis1=1, axis2=2)
    return {
        "full": separate,
        "tied": scatter.sum(0, keepdims=True) / total.sum(),
        "diag": diagonal,
        "spherical": diagonal.mean(1, keepdims=True),
        "equal_shape": equal_shape(total, scatter),
        "low_rank": low_rank(separate, 1),
    }


def dense(covariance, size):
    """Any form of covariances as [K, d, d]."""
    if covariance.ndim == 3:
        return np.broadcast_to(covariance, (COMPONENTS, size, size))
    return np.broadcast_to(covariance, (COMPONENTS, size))[:, :, None] * np.eye(size)


def start_of(name, covariance):
    """A covariance of the named form."""
    forms = {"tied": covariance[:1], "diag": np.diagonal(covariance, axis1=1, axis2=2)}
    return forms.get(name, np.diagonal(covariance, axis1=1, axis2=2)[:, :1] if name == "spherical" else covariance)


@row(few=())
def gaussian_mixture(rng, shape):
    yield from em_steps(rng, shape, ("full",))


@row(few=())
def structures(rng, shape):
    yield from em_steps(rng, shape, ("tied", "diag", "spherical", "equal_shape", "low_rank"))


def em_steps(rng, shape, names):
    x, (weight, mean, covariance) = rows_of(rng, shape), mixture(rng, shape[2])
    for name in names:
        params = gmm.Gmm(*map(single, (weight, mean, start_of(name, covariance))))
        whole = double(*params[:2])
        joint = log_joint(*whole, dense(double(params.covariance), shape[2]), double(x))
        total, center, scatter = moments(responsibilities(joint), double(x))
        kind = gmm.low_rank(1) if name == "low_rank" else name
        new = gmm.em_step(params, x, covariance=kind)
        yield f"{name}: weight", new.weight, total / total.sum()
        yield f"{name}: mean", new.mean, center
        yield f"{name}: covariance", new.covariance, covariances(total, scatter)[name]
        if name in ("full", "tied", "diag"):
            yield f"{name}: log_prob", jax.jit(gmm.log_prob)(params, x), special.logsumexp(joint, -1)
        if name == "full":
            log_q = single(rng.normal(size=joint.shape))
            q = responsibilities(double(log_q))
            exact = (q * (joint - np.log(q))).sum(-1)
            yield "bound", jax.jit(lambda p, q, x: gmm.bound(p, OneHotCategorical(q), x))(params, log_q, x), exact
            yield "posterior", jax.jit(lambda p, x: gmm.posterior(p, x).probs)(params, x), responsibilities(joint)


@row(few=())
def mixture_of_ppca(rng, shape):
    x, size = rows_of(rng, shape), shape[2]
    weight, mean, _ = mixture(rng, size)
    loading, variance = rng.normal(size=(COMPONENTS, size, 1)) / np.sqrt(size), rng.uniform(0.5, 2, COMPONENTS)
    params = mppca.Mppca(*map(single, (weight, mean, loading, variance)))
    w, m, l, v = double(*params)
    covariance = l @ np.swapaxes(l, 1, 2) + v[:, None, None] * np.eye(size)
    joint = log_joint(w, m, covariance, double(x))
    yield "log_prob", jax.jit(mppca.log_prob)(params, x), special.logsumexp(joint, -1)
    total, center, scatter = moments(responsibilities(joint), double(x))
    step = gmm.em_step(mppca.to_gmm(params), x, covariance=gmm.low_rank(1))
    new = mppca.from_gmm(step, 1)
    values = np.linalg.eigvalsh(scatter / total[:, None, None])
    yield "mean", new.mean, center
    yield "variance", new.variance, values[:, :-1].mean(1)
    yield (
        "loading",
        new.loading @ np.swapaxes(new.loading, 1, 2),
        low_rank(scatter / total[:, None, None], 1) - values[:, :-1].mean(1)[:, None, None] * np.eye(size),
    )


def latents(mean, weight, noise, x, mask):
    """Posterior means and covariances of each row, and its log-evidence, from its observed entries."""
    size = weight.shape[1]
    precision = np.eye(size) + np.einsum("nd,da,d,db->nab", mask, weight, 1 / noise, weight)
    covariance = np.linalg.inv(precision)
    residual = mask * (x - mean)
    z = np.einsum("nab,db,nd->na", covariance, weight / noise[:, None], residual)
    distance = (residual**2 / noise).sum(-1) - np.einsum("na,nab,nb->n", z, precision, z)
    log_det = np.linalg.slogdet(precision)[1] + mask @ np.log(2 * np.pi * noise)
    return z, covariance, -0.5 * (distance + log_det)


def linear_step(mean, weight, noise, x, mask, shared):
    """One E- and M-step for W and μ together, then the noise."""
    z, covariance, _ = latents(mean, weight, noise, x, mask)
    one = np.concatenate([z, np.ones((len(z), 1))], 1)
    second = one[:, :, None] * one[:, None, :]
    second[:, :-1, :-1] += covariance
    solution = np.stack(
        [np.linalg.solve(np.tensordot(m, second, 1), (m * column) @ one) for m, column in zip(mask.T, x.T)]
    )
    error = mask * (
        (x - one @ solution.T) ** 2 + np.einsum("da,nab,db->nd", solution[:, :-1], covariance, solution[:, :-1])
    )
    new = error.sum() / mask.sum() * np.ones(len(mean)) if shared else error.sum(0) / mask.sum(0)
    return solution[:, -1], solution[:, :-1], new


@row(few=())
def linear_gaussian(rng, shape):
    x, size = rows_of(rng, shape)[:5000], shape[2]
    rank = 1 if size < 8 else 3
    mean, weight = 0.3 * rng.normal(size=size), rng.normal(size=(size, rank))
    noise = rng.uniform(0.5, 1.5, size)
    models = {
        "ppca": (ppca, ppca.Ppca, single(0.8)),
        "factor_analysis": (factor_analysis, factor_analysis.FactorAnalysis, single(noise)),
    }
    for masked in (False, True):
        mask = rng.random(x.shape) < 0.8 if masked else np.ones(x.shape, bool)
        mask[:, 0] = True
        batch = Batch(np.where(mask, x, 0.0), mask=mask) if masked else x
        for name, (module, kind, scale) in models.items():
            label = f"{name}{', masked' * masked}"
            params = kind(single(mean), single(weight), scale)
            m, w, v = double(*params)
            arguments = m, w, np.broadcast_to(v, size), double(x), double(mask)
            z, covariance, evidence = latents(*arguments)
            yield f"{label}: log_prob", jax.jit(module.log_prob)(params, batch), evidence
            posterior = jax.jit(
                lambda p, x, module=module: (lambda q: (q.mean(), q.covariance()))(module.posterior(p, x))
            )(params, batch)
            yield f"{label}: posterior mean", posterior[0], z
            yield f"{label}: posterior covariance", np.broadcast_to(posterior[1], covariance.shape), covariance
            new, exact = module.em_step(params, batch), linear_step(*arguments, shared=name == "ppca")
            for field, value, reference in zip(("mean", "weight", "noise"), new, exact):
                yield f"{label}: new {field}", np.broadcast_to(value, reference.shape), reference
            tril = np.linalg.cholesky(covariance + 0.1 * np.eye(rank))
            bound = jax.jit(lambda p, m, t, x, module=module: module.bound(p, MultivariateNormal(m, t), x))
            s, t = single(z + 0.2), single(tril)
            ratio = np.linalg.solve(covariance, double(t) @ np.swapaxes(double(t), 1, 2))
            shift = double(s) - z
            kl = 0.5 * (
                np.trace(ratio, axis1=1, axis2=2)
                - rank
                - np.linalg.slogdet(ratio)[1]
                + (shift * np.linalg.solve(covariance, shift[..., None])[..., 0]).sum(-1)
            )
            yield f"{label}: bound", bound(params, s, t, batch), evidence - kl


@row(few=())
def bayesian_mixture(rng, shape):
    x, size = rows_of(rng, shape), shape[2]
    _, mean, scatter = mixture(rng, size)
    prior = bayesian_gmm.Prior(*map(single, (0.5, 1.0, np.zeros(size), size + 1.0, np.eye(size))))
    alpha, beta, nu = (
        rng.uniform(5, 50, COMPONENTS),
        rng.uniform(5, 50, COMPONENTS),
        size + rng.uniform(5, 50, COMPONENTS),
    )
    params = bayesian_gmm.BayesianGmm(*map(single, (alpha, beta, mean, nu, nu[:, None, None] * scatter)), prior)
    a, b, m, v, s = double(*params[:5])
    a0, b0, m0, v0, s0 = double(*prior)
    inverse, data = np.linalg.inv(s), double(x)
    digammas = special.digamma(0.5 * (v[:, None] - np.arange(size))).sum(-1)
    log_det = digammas + size * np.log(2) - np.linalg.slogdet(s)[1]
    distance = np.stack([((data - c) @ w * (data - c)).sum(-1) for c, w in zip(m, inverse)], -1)
    log_weight = special.digamma(a) - special.digamma(a.sum())
    joint = log_weight + 0.5 * (log_det - size * np.log(2 * np.pi) - size / b - v * distance)
    yield "posterior", jax.jit(lambda p, x: bayesian_gmm.posterior(p, x).probs)(params, x), responsibilities(joint)
    free = v + 1 - size
    t = [stats.multivariate_t.logpdf(data, m[k], s[k] * (1 + b[k]) / (b[k] * free[k]), free[k]) for k in range(len(a))]
    yield (
        "log_prob",
        jax.jit(bayesian_gmm.log_prob)(params, x),
        special.logsumexp(np.log(a / a.sum()) + np.stack(t, -1), -1),
    )
    normal = 0.5 * (size * (b0 / b - 1 - np.log(b0 / b)) + b0 * v * np.einsum("ki,kij,kj->k", m - m0, inverse, m - m0))

    def normalizer(log_det_scatter, degrees):
        return 0.5 * degrees * (log_det_scatter - size * np.log(2)) - special.multigammaln(0.5 * degrees, size)

    wishart = [
        normalizer(np.linalg.slogdet(s[k])[1], v[k]) - normalizer(np.linalg.slogdet(s0)[1], v0) for k in range(len(a))
    ]
    wishart = np.array(wishart) + 0.5 * (v - v0) * log_det + 0.5 * v * (np.trace(inverse @ s0, axis1=1, axis2=2) - size)
    dirichlet = (
        special.gammaln(a.sum())
        - special.gammaln(a).sum()
        - special.gammaln(a0 * len(a))
        + len(a) * special.gammaln(a0)
    )
    kl = dirichlet + ((a - a0) * log_weight).sum() + (normal + wishart).sum()
    yield "kl_to_prior", jax.jit(bayesian_gmm.kl_to_prior)(params), kl
    yield "elbo", jax.jit(bayesian_gmm.elbo)(params, x), special.logsumexp(joint, -1).sum() - kl
    total, center, spread = moments(responsibilities(joint), data)
    new = bayesian_gmm.em_step(params, x)
    strength = b0 + total
    away = center - m0
    exact = (
        a0 + total,
        strength,
        (b0 * m0 + total[:, None] * center) / strength[:, None],
        v0 + total,
        s0 + spread + (b0 * total / strength)[:, None, None] * away[:, :, None] * away[:, None, :],
    )
    for field, value, reference in zip(new._fields, new, exact):
        yield f"new {field}", value, reference
