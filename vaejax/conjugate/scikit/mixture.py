"""Gaussian mixtures as a scikit-learn estimator."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin

from vaejax import checks
from vaejax.conjugate import FitResult, gmm
from vaejax.conjugate.gmm import Gmm
from vaejax.conjugate.scikit.common import Density, computed, key_of, warn_unconverged

_STARTS = {"k-means++": "k-means++", "random_from_data": "random"}


class GaussianMixture(Density, DensityMixin, BaseEstimator):
    """p(x) = Σ_k π_k N(x; μ_k, Σ_k) by EM from several starts at once, the best kept: `vaejax.conjugate.gmm.fit_em`.

    Args:
        n_components: K.
        covariance_type: "full", "tied", "diag", "spherical" or "equal_shape" (mclust's VEV).
        tol: relative gain of what is maximised below which a start ends; scikit-learn's is absolute, a row.
        max_iter: at most.
        n_init: how many starts.
        init_params: "k-means++", "random_from_data", or the `Gmm` to begin with, such as the ``params_`` of another fit.
        prior_count: pseudo-observations of each component, with variances ``prior_variance`` about its mean. 0 is maximum likelihood,
            which refuses constant or dependent columns and begins collapsed components anew. Here it is 1 (0 in `fit_em`): an estimator
            must fit whatever a fold of a cross-validation holds, fewer rows than columns too.
        prior_variance: a number or ``[d]``; the columns' variances / K^(2/d) if None.
        max_reseeds: how often collapsed components begin anew.
        random_state: seed, ``RandomState`` or None.

    Attributes:
        weights_: ``[K]``.
        means_: ``[K, d]``.
        covariances_: ``[K, d, d]``; tied ``[d, d]``; diag ``[K, d]``; spherical ``[K]``.
        converged_: whether the best start did.
        n_iter_: its steps.
        lower_bound_: what it reached, the log-likelihood with its penalty where ``prior_count`` > 0, a row (of weight 1), nats.
        n_features_in_: d.
        params_: `vaejax.conjugate.gmm.Gmm`.
        result_: `vaejax.conjugate.FitResult`, with the trace and what each start reached.

    Source:
        Bishop 2006, section 9.2; Fraley & Raftery 2007 for the prior.

    Examples:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(400, 2)) + np.repeat([[0.0], [8.0]], 200, axis=0)
        >>> model = GaussianMixture(2, random_state=0).fit(x)
        >>> [round(float(w), 2) for w in model.weights_], np.bincount(model.predict(x)).tolist()
        ([0.5, 0.5], [200, 200])
    """

    _module = gmm

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-6,
        max_iter: int = 200,
        n_init: int = 10,
        init_params: str | Gmm = "k-means++",
        prior_count: float = 1.0,
        prior_variance: Any = None,
        max_reseeds: int = 10,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.prior_count = prior_count
        self.prior_variance = prior_variance
        self.max_reseeds = max_reseeds
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fits rows.

        Args:
            X: ``[n, d]``, float32 or float64, computed as such; other numbers become float64.
            y: ignored.
            sample_weight: ``[n]``; a row of weight 2 counts as two, one of 0 is left out.

        Raises:
            ValueError: NaN, one row, fewer rows than components, weights that are negative or all 0, arguments out of range, an end
                without a finite likelihood; with ``prior_count=0`` constant or dependent columns.

        Warns:
            ConvergenceWarning: more steps than ``max_iter`` were wanted.
            vaejax.conjugate.gmm.Starved: components collapsed.
        """
        settings = self._settings()
        rows = self._opened(X, sample_weight)
        key = key_of(self.random_state, "fit")
        found = computed(rows.x.dtype, gmm.fit_em, key, rows, self.n_components, **settings)
        self.lower_bound_ = float(found.objective) / float(len(rows.x) if rows.weight is None else np.sum(rows.weight))
        self._remember(found)
        warn_unconverged(found, self.tol, self.max_iter)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fits rows and says which component each most probably is of, ``[n]``."""
        return self.fit(X, y, sample_weight).predict(X)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable component of rows ``[n, d]``, ``[n]``."""
        return np.argmax(self.predict_proba(X), axis=1)

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(k|x) of rows ``[n, d]``, ``[n, K]``."""
        return self._of_rows(_responsibilities, X)

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draws ``[n, d]`` and the component of each ``[n]``."""
        x, component = self._draws(n_samples)
        return x, component.astype(int)

    def aic(self, X: Any) -> float:
        """Akaike's criterion 2 p − 2 log p(x) of all rows ``[n, d]``: smaller is better."""
        return self._criterion(X, lambda n: 2.0)

    def bic(self, X: Any) -> float:
        """Schwarz's criterion p log n − 2 log p(x) of all rows ``[n, d]``: smaller is better."""
        return self._criterion(X, np.log)

    def _settings(self) -> dict[str, Any]:
        """Of `fit_em`. What has another name there is checked here, so that errors speak of the arguments of this class."""
        for name in ("n_components", "max_iter", "n_init"):
            checks.positive_int(getattr(self, name), name)
        for name in ("tol", "prior_count"):
            checks.real(getattr(self, name), name, minimum=0.0)
        checks.one_of(self.covariance_type, "covariance_type", gmm.STRUCTURES)
        start = self.init_params
        if not isinstance(start, Gmm):
            start = _STARTS[checks.one_of(str(start), "init_params", _STARTS)]
        return {
            "covariance": self.covariance_type,
            "start": start,
            "num_starts": self.n_init,
            "max_steps": self.max_iter,
            "tolerance": self.tol,
            "prior_count": self.prior_count,
            "prior_variance": self.prior_variance,
            "max_reseeds": self.max_reseeds,
        }

    def _criterion(self, X: Any, price: Any) -> float:
        values = self.score_samples(X)
        free = gmm.num_parameters(self.params_, self.covariance_type)
        return float(price(len(values)) * free - 2 * np.sum(values, dtype=np.float64))

    def _remember(self, found: FitResult) -> None:
        self.result_, self.params_ = found, found.params
        self.weights_, self.means_, self.covariances_ = found.params
        if self.covariance_type == "tied":
            self.covariances_ = self.covariances_[0]
        elif self.covariance_type == "spherical":
            self.covariances_ = self.covariances_[:, 0]
        self.converged_, self.n_iter_ = bool(found.converged), int(found.num_steps)


def _responsibilities(module: Any, params: Gmm, x: Any) -> Any:
    return module.posterior(params, x).probs
