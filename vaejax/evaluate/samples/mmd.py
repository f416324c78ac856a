"""Maximum mean discrepancy of two sets of examples, with a permutation test."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vaejax import checks
from vaejax.evaluate.randomness import generator
from vaejax.evaluate.samples.feature_space import feature_pair
from vaejax.evaluate.summary import jackknife
from vaejax.types import Key

# Entries of the kernel matrix, and of the permuted sets, held at once: 32 MB.
_ENTRIES = 2**22
_FOR_MEDIAN = 2000
# Units that are permuted: 80 MB for each division.
_MAX_UNITS = 10_000_000


class MMD(NamedTuple):
    """A squared maximum mean discrepancy.

    Attributes:
        value: the unbiased estimate of MMD², between −2 and 2: 0 in the mean for sets from one distribution, negative as often as not.
        standard_error: by the jackknife over examples of both sets; too large (up to √2 times) where the distributions are the same.
        p_value: the share of random divisions of all examples into sets of n and m, the given one counted, with a value as large; NaN
            without a key. Its own standard error is √(p (1 − p) / R) for R permutations.
        bandwidth: of the kernel, in units of the features.
        num_permutations: R; 0 without a key.
    """

    value: float
    standard_error: float
    p_value: float
    bandwidth: float
    num_permutations: int

    def __str__(self) -> str:
        test = f"; p = {self.p_value:.2g}, {self.num_permutations} permutations" if self.num_permutations else ""
        return f"MMD² {self.value:.4g} ± {self.standard_error:.2g} (bandwidth {self.bandwidth:.3g}{test})"


def mmd(
    a: Any,
    b: Any,
    *,
    features: Callable | None = None,
    bandwidth: float | None = None,
    key: Key | None = None,
    num_permutations: int = 200,
) -> MMD:
    """The unbiased MMD² of two sets of examples: E k(a, a′) + E k(b, b′) − 2 E k(a, b), a ≠ a′, b ≠ b′, with k = exp(−‖x − y‖² / 2h²).

    It is 0 in the mean for the same distribution and, this kernel being characteristic, for no others; but what it sees with given numbers
    of examples depends on the features and on h. The kernel matrix is worked on by rows, some at a time: time grows with (n + m)², memory
    with n + m.

    Args:
        a: examples ``[n, *event]``; a `Batch` may carry weights: an example of weight 2 counts, and is permuted, as two.
        b: examples ``[m, *event]``, likewise.
        features: ``[k, *event] -> [k, d]``, called on blocks of examples, each of which it treats on its own; None flattens.
        bandwidth: h; None takes the median distance between examples of both sets (of 2,000 of them, evenly spaced). To compare
            values, fix it.
        key: typed key of the permutation test; without one there is none.
        num_permutations: R; p-values are at least 1/(R + 1).

    Returns:
        `MMD`.

    Raises:
        TypeError, ValueError: no arrays of real numbers; NaN; events or features that differ; fewer than three examples; a bandwidth
            that is not positive, or a median of 0; weights above 10,000,000 in sum, with a key.

    Source:
        Gretton et al. 2012, eq. 3 and section 8 (the median); Phipson & Smyth 2010 (the p-value); Arvesen 1969 (the jackknife).

    Examples:
        >>> import jax, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> a, b = rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 1.0
        >>> mmd(a, b, key=jax.random.key(0)).p_value < 0.01
        True
    """
    checks.positive_int(num_permutations, "num_permutations")
    if bandwidth is not None:
        checks.real(bandwidth, "bandwidth", minimum=0.0, open_minimum=True)
    rng = None if key is None else generator(key)
    a, b = feature_pair(a, b, features, minimum=3)
    count, both, weight = len(a.x), np.concatenate([a.x, b.x]), np.concatenate([a.weight, b.weight])
    both -= both.mean(0)  # squared distances lose no digits to a common offset
    width = _median_distance(both, weight) if bandwidth is None else float(bandwidth)
    squares = _unit_squares(weight)
    members, alone_a = (
        np.where(np.arange(len(both)) < count, weight, 0.0)[:, None],
        squares[:count].sum(keepdims=True),
    )
    if rng is not None:
        random_members, random_alone = _random_divisions(weight, count, rng, num_permutations)
        members = np.concatenate([members, random_members], axis=1)
        alone_a = np.concatenate([alone_a, random_alone])
    to_a, total = _row_sums(both, width, members, weight)
    values = _values(to_a, total, members, weight, alone_a, squares.sum())
    p_value = float("nan")
    if rng is not None:
        # Divisions that are the given one under another name must not miss it by rounding.
        p_value = float(np.mean(values >= values[0] - 1e-12))
    error = _jackknife(to_a[:, 0], total, count, weight)
    return MMD(float(values[0]), error, p_value, width, members.shape[1] - 1)


def _unit_squares(weight: np.ndarray) -> np.ndarray:
    """Returns Σ (size of a unit)² of each example, whose units have weight 1 except the last one."""
    whole = np.ceil(weight) - 1
    return whole + (weight - whole) ** 2


def _random_divisions(
    weight: np.ndarray, count: int, rng: np.random.Generator, num_permutations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divides the units of all examples at random, R times, some divisions at a time.

    An example of weight w has ⌈w⌉ units of weight 1, except the last one, which has what is left of w.

    Returns:
        The weight of each example in the first set, ``[N, R]``, and the sum of the squared sizes of
        the units in that set, ``[R]``.

    Raises:
        ValueError: there are more units than can be permuted.
    """
    counts = np.ceil(weight)
    if counts.sum() > _MAX_UNITS:
        raise ValueError(
            f"the weights must sum to at most {_MAX_UNITS:,} for a permutation test, got {weight.sum():.6g}. "
            "Leave out key=, or pass smaller weights"
        )
    counts = counts.astype(int)
    row, starts = np.repeat(np.arange(len(weight)), counts), np.cumsum(counts) - counts
    size = np.ones(len(row))
    size[starts + counts - 1] = weight - (counts - 1)
    in_first = (row < count).astype(float)
    members, squares = [], []
    block = max(1, _ENTRIES // len(row))
    for start in range(0, num_permutations, block):
        inside = np.repeat(in_first[:, None], min(block, num_permutations - start), axis=1)
        rng.permuted(inside, axis=0, out=inside)
        squares.append(size**2 @ inside)
        inside *= size[:, None]
        members.append(np.add.reduceat(inside, starts))
    return np.concatenate(members, axis=1), np.concatenate(squares)


def _median_distance(x: np.ndarray, weight: np.ndarray) -> float:
    from scipy.spatial.distance import pdist

    # The examples at even steps among their occurrences.
    count = max(int(weight.sum()), 2)
    steps = np.linspace(0, count - 1, min(count, _FOR_MEDIAN)).astype(int)
    some = x[np.searchsorted(np.cumsum(weight), steps + 0.5)]
    median = float(np.median(pdist(some)))
    if median == 0:
        raise ValueError(
            "the median distance between examples is 0: most of them are alike; give bandwidth=, in units of the features"
        )
    return median


def _row_sums(
    x: np.ndarray, width: float, members: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Each example's kernel with the others, summed over the members of each first set ``[N, R + 1]`` and over all ``[N]``, weighted."""
    from sklearn.metrics.pairwise import rbf_kernel

    total, to_a = np.empty(len(x)), np.empty(members.shape)
    block = max(1, _ENTRIES // len(x))
    for first in range(0, len(x), block):
        rows = slice(first, min(first + block, len(x)))
        kernel = rbf_kernel(x[rows], x, gamma=0.5 / width**2)
        kernel[np.arange(len(kernel)), np.arange(first, first + len(kernel))] = 0.0
        total[rows], to_a[rows] = kernel.sum(1) if weight is None else kernel @ weight, kernel @ members
    return to_a, total


def _values(
    to_a: np.ndarray, total: np.ndarray, members: np.ndarray, weight: np.ndarray, alone_a: Any, alone: Any
) -> np.ndarray:
    """MMD² for each division.

    ``members``: the weight of each example in the first set. ``alone_a``, ``alone``: Σ of the squared sizes of the units there and of all,
    which are the pairs of a unit with itself; units of one example differ by nothing, so that their kernel is 1.
    """
    rest = weight[:, None] - members
    within_a = (members * to_a).sum(0)
    across = total @ members - within_a
    within_b = weight @ total - within_a - 2 * across
    n, m = members.sum(0), rest.sum(0)
    pairs_a, pairs_b = n**2 - alone_a, m**2 - (alone - alone_a)
    within_a = within_a + (members**2).sum(0) - alone_a
    within_b = within_b + (rest**2).sum(0) - (alone - alone_a)
    return within_a / pairs_a + within_b / pairs_b - 2 * (across + (members * rest).sum(0)) / (n * m)


def _jackknife(to_a: np.ndarray, total: np.ndarray, count: int, weight: np.ndarray) -> float:
    """The delete-one jackknife of both sets: exact, since leaving one out takes its row from the sums."""
    to_b = total - to_a
    errors = []
    for own, other, w, m in (
        (to_a[:count], to_b[:count], weight[:count], weight[count:].sum()),
        (to_b[count:], to_a[count:], weight[count:], weight[:count].sum()),
    ):
        # The other occurrences of the same example are as near as can be.
        n, own = w.sum(), own + w - 1
        within = (w @ own - 2 * own) / ((n - 1) * (n - 2))
        across = (w @ other - other) / ((n - 1) * m)
        errors.append(jackknife(within - 2 * across, w))
    return float(np.hypot(*errors))
