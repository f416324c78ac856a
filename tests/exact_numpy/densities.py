"""Log-densities, their gradients in the parameters, entropies and moments."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from tests.exact_numpy.table import SHAPES, along, double, row, single, slope
from vaejax import dists
from vaejax.dists.backend import distrax
from vaejax.dists.factors import Factors
from vaejax.dists.relaxed import Relaxed


def log_softmax(x):
    return x - special.logsumexp(x, -1, keepdims=True)


def white(loc, tril, z):
    """L⁻¹ (z − m) of z [K, B, d]."""
    return np.stack([np.linalg.solve(np.tril(t), (z[:, b] - loc[b]).T).T for b, t in enumerate(tril)], 1)


def full_normal(loc, tril, z):
    log_det = np.log(np.diagonal(tril, axis1=-2, axis2=-1)).sum(-1)
    return -0.5 * (white(loc, tril, z) ** 2).sum(-1) - log_det - 0.5 * z.shape[-1] * np.log(2 * np.pi)


def binomial(n, logits, x):
    return (
        special.gammaln(n + 1) - special.gammaln(x + 1) - special.gammaln(n - x + 1) + x * logits
    ) - n * np.logaddexp(0, logits)


def kumaraswamy(a, b, x):
    return np.log(a * b) + (a - 1) * np.log(x) + (b - 1) * np.log1p(-(x**a))


def poisson(log_rate, x):
    return x * log_rate - np.exp(log_rate) - special.gammaln(x + 1)


def relaxed_binary(temperature, logits, y):
    centered = temperature * y - logits
    return np.log(temperature) + centered - 2 * np.logaddexp(0, centered)


def relaxed_categories(temperature, logits, y):
    n, exponent = logits.shape[-1], logits - temperature * y
    constant = special.gammaln(n) + (n - 1) * np.log(temperature)
    return constant + exponent.sum(-1) - n * special.logsumexp(exponent, -1)


def factorized(family, ndims=1):
    return lambda *parameters: distrax.Independent(family(*parameters), ndims)


def cases(rng, shape):
    """Name -> (distribution of the parameters, parameters, values, log-density of entries or of events)."""
    samples, batch, size = shape

    def real(*lead):
        return single(rng.normal(size=(*lead, batch, size)))

    positive = single(np.exp(0.3 * rng.normal(size=(batch, size))))
    tril = np.tril(0.3 * rng.normal(size=(batch, size, size)) / np.sqrt(size), -1) + np.eye(size) * 1.3
    unit = single(rng.uniform(0.05, 0.95, (samples, batch, size)))
    one_hot = np.eye(size, dtype="f")[rng.integers(0, size, (samples, batch, 3))]
    logits = single(rng.normal(size=(batch, 3, size)))
    counts = single(rng.integers(0, 6, (samples, batch, size)))
    bits = single(rng.integers(0, 2, (samples, batch, size)))
    y = log_softmax(rng.normal(size=(samples, batch, 3, size)))
    entries = {
        "diagonal_normal": (dists.diagonal_normal, (real(), positive), real(samples), stats.norm.logpdf),
        "Bernoulli": (dists.Bernoulli, (real(),), bits, lambda z, l: z * l - np.logaddexp(0, l)),
        "Binomial": (partial(dists.Binomial, 5), (real(),), counts, lambda z, l: binomial(5, l, z)),
        "Poisson": (factorized(dists.Poisson), (real(),), counts, lambda z, l: poisson(l, z)),
        "Cauchy": (factorized(dists.Cauchy), (real(), positive), real(samples), stats.cauchy.logpdf),
        "LogNormal": (
            factorized(dists.LogNormal),
            (real(), positive),
            np.exp(real(samples)),
            lambda z, m, s: stats.lognorm.logpdf(z, s, scale=np.exp(m)),
        ),
        "Kumaraswamy": (
            factorized(dists.Kumaraswamy),
            (positive, 2 * positive),
            unit,
            lambda z, a, b: kumaraswamy(a, b, z),
        ),
        "Relaxed, binary": (
            lambda l: Relaxed(Factors(False, l, 1), 0.5),
            (real(),),
            real(samples),
            lambda z, l: relaxed_binary(0.5, l, z),
        ),
    }
    summed = {name: (*parts, lambda f, z, *p: f(z, *p).sum(-1)) for name, parts in entries.items()}

    def whole(f, z, *p):
        return f(z, *p)

    return summed | {
        "MultivariateNormal": (
            dists.MultivariateNormal,
            (real(), single(tril)),
            real(samples),
            lambda z, m, t: full_normal(m, t, z),
            whole,
        ),
        "OneHotCategorical": (
            partial(dists.OneHotCategorical, event_ndims=2),
            (logits,),
            one_hot,
            lambda z, l: (z * log_softmax(l)).sum((-1, -2)),
            whole,
        ),
        "Relaxed, categories": (
            lambda l: Relaxed(Factors(True, l, 2), 0.5),
            (logits,),
            single(y),
            lambda z, l: relaxed_categories(0.5, l, z).sum(-1),
            whole,
        ),
    }


@row()
def log_prob(rng, shape):
    for name, (family, parameters, z, exact, total) in cases(rng, shape).items():
        value = jax.jit(lambda p, z, family=family: family(*p).log_prob(z))(parameters, z)
        yield name, value, total(exact, double(z), *double(*parameters, 0.0)[:-1])


@row()
def gradient(rng, shape):
    weight = rng.normal(size=shape[:2]) / shape[0]
    for name, (family, parameters, z, exact, total) in cases(rng, shape).items():

        def weighted(p, z, family=family):
            return jnp.sum(single(weight) * family(*p).log_prob(z))

        gradients = jax.jit(jax.grad(weighted))(parameters, z)
        for place in range(len(parameters)):
            direction = [rng.normal(size=p.shape) * (i == place) for i, p in enumerate(parameters)]
            if name == "MultivariateNormal":
                direction[1] = np.tril(direction[1])
            reference = slope(
                lambda *p, z=z, exact=exact, total=total: (double(single(weight)) * total(exact, double(z), *p)).sum(),
                parameters,
                tuple(direction),
            )
            yield f"{name}, parameter {place}", along(gradients, tuple(direction)), reference


@row(few=())
def entropies_and_moments(rng, shape):
    for name, (family, parameters, *_) in cases(rng, shape).items():
        p = double(*parameters, 0.0)[:-1]
        if name == "MultivariateNormal":
            covariance = p[1] @ np.swapaxes(p[1], -1, -2)
            exact = {
                "entropy": 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1],
                "covariance": covariance,
                "variance": np.diagonal(covariance, axis1=-2, axis2=-1),
            }
        elif name == "OneHotCategorical":
            log_p = log_softmax(p[0])
            exact = {"entropy": -(np.exp(log_p) * log_p).sum((-1, -2)), "mean": np.exp(log_p)}
        elif name == "Bernoulli":
            exact = {"entropy": stats.bernoulli.entropy(special.expit(p[0])).sum(-1), "mean": special.expit(p[0])}
        elif name == "diagonal_normal":
            exact = {"entropy": stats.norm.entropy(*p).sum(-1)}
        else:
            continue
        for method, reference in exact.items():
            call = jax.jit(lambda p, family=family, method=method: getattr(family(*p), method)())
            yield f"{name}.{method}", call(parameters), reference


@row()
def full_normal_draws(rng, shape):
    """loc + L · noise of given noise."""
    _, (loc, tril), noise, *_ = cases(rng, shape)["MultivariateNormal"]
    value = jax.jit(lambda m, t, e: dists.MultivariateNormal(m, t).from_standard(e))(loc, tril, noise)
    yield "from_standard", value, double(loc) + np.einsum("bij,kbj->kbi", double(tril), double(noise))


@row(few=((37, 13, 5),), shapes=(*SHAPES, (20, 37, 784), (5, 20, 1003)))
def likelihoods(rng, shape):
    """Families of decoders, with and without missing entries."""
    samples, batch, size = shape
    raw, two = (single(rng.normal(size=(samples, batch, size, *tail))) for tail in ((), (2,)))
    bits, counts, labels = (single(rng.integers(0, n, (batch, size))) for n in (2, 5, 3))
    logits, reals = single(rng.normal(size=(samples, batch, size, 3))), single(rng.normal(size=(batch, size)))
    mask = rng.random((batch, size)) < 0.7

    def softplus(x):
        return np.logaddexp(0, x)

    r, t, l = double(raw, two, logits)
    rows = {
        "bernoulli": (dists.likelihoods.bernoulli(), raw, bits, bits * r - softplus(r)),
        "binomial": (dists.likelihoods.binomial(4), raw, counts, binomial(4, r, double(counts))),
        "poisson": (dists.likelihoods.poisson(), raw, counts, poisson(r, double(counts))),
        "categorical": (
            dists.likelihoods.categorical(3),
            logits,
            labels,
            np.take_along_axis(log_softmax(l), np.broadcast_to(labels.astype(int)[..., None], (*l.shape[:-1], 1)), -1)[
                ..., 0
            ],
        ),
        "normal, fixed": (dists.likelihoods.normal(0.5), raw, reals, stats.norm.logpdf(double(reals), r, 0.5)),
        "normal, per example": (
            dists.likelihoods.normal("per_example"),
            two,
            reals,
            stats.norm.logpdf(double(reals), t[..., 0], 1e-3 + softplus(t[..., 1])),
        ),
    }
    for name, (family, outputs, x, exact) in rows.items():
        params = family.init((size,))
        plain = jax.jit(lambda raw, x, f=family, p=params: f.distribution(p, raw, 1).log_prob(x))(outputs, x)
        yield name, plain, exact.sum(-1)
        masked = jax.jit(lambda raw, x, m, f=family, p=params: dists.masked_log_prob(f.distribution(p, raw, 1), x, m))
        yield f"{name}, masked", masked(outputs, x, mask), (exact * mask).sum(-1)
