"""Probabilistic PCA and factor analysis as scikit-learn transformers."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from vaejax import checks
from vaejax.conjugate import factor_analysis, ppca
from vaejax.conjugate.scikit.common import FLOATS, Density, computed, finite, key_of, warn_unconverged
from vaejax.types import Batch


class LinearGaussian(Density, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """x = W z + μ + ε, z ~ N(0, I_q), ε ~ N(0, Ψ): what the two have in common."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def transform(self, X: Any) -> np.ndarray:
        """The posterior means E[z|x] of rows ``[n, d]``, ``[n, q]``."""
        return self._of_rows(_posterior_mean, X)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """E[x|z] = W z + μ of latents ``[n, q]``, ``[n, d]``.

        Not the inverse of `transform`, whose means lean towards 0 by what the noise leaves in doubt.
        """
        check_is_fitted(self, "params_")
        z = check_array(X, dtype=FLOATS)
        if z.shape[1] != self.n_components_:
            raise ValueError(
                f"X must be [n, {self.n_components_}], latents as transform returns them, got {list(z.shape)}"
            )
        return (z @ self.components_ + self.mean_).astype(z.dtype, copy=False)

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draws x ``[n, d]`` and their latents z ``[n, q]``."""
        return self._draws(n_samples)

    def get_covariance(self) -> np.ndarray:
        """W Wᵀ + Ψ, ``[d, d]``: the covariance of x under the model."""
        check_is_fitted(self, "params_")
        covariance = self.components_.T @ self.components_
        covariance[np.diag_indices_from(covariance)] += self.noise_variance_
        return covariance

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def _rows(self, X: Any, sample_weight: Any) -> Batch:
        checks.positive_int(self.n_components, "n_components")
        rows = self._opened(X, sample_weight, ensure_min_features=2)
        if self.n_components >= self.n_features_in_:
            raise ValueError(
                f"n_components must be below the n_features = {self.n_features_in_} of X, so that noise is left, got {self.n_components}"
            )
        return rows

    def _remember(self, params: Any) -> None:
        mean, weight, noise = params
        self.params_ = params
        self.mean_, self.components_, self.noise_variance_ = mean, weight.T.copy(), noise[()]
        self.n_components_ = len(self.components_)


class ProbabilisticPCA(LinearGaussian):
    """x = W z + μ + σ ε by maximum likelihood, in closed form: `vaejax.conjugate.ppca.fit_ml`.

    scikit-learn's ``PCA`` has the same model, but divides by n − 1; its ``transform`` projects, where this one gives posterior means.

    Args:
        n_components: q, below the number of columns and below n − 1, so that noise is left.
        random_state: of `sample`: seed, ``RandomState`` or None.

    Attributes:
        mean_: ``[d]`` μ.
        components_: ``[q, d]`` Wᵀ: orthogonal rows, in falling order of length, each with its largest entry positive.
        noise_variance_: σ².
        explained_variance_: ``[q]`` the largest eigenvalues of the covariance, the squared lengths of the components plus σ².
        explained_variance_ratio_: ``[q]`` their shares of all eigenvalues.
        n_components_: q.
        n_features_in_: d.
        params_: `vaejax.conjugate.ppca.Ppca`.

    Source:
        Tipping & Bishop 1999, eqs. 6 to 8.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(500, 1)) * [3.0, 4.0, 0.0] + rng.normal(size=(500, 3))
        >>> model = ProbabilisticPCA(1).fit(x)
        >>> model.transform(x).shape, bool(0.9 < model.noise_variance_ < 1.1)
        ((500, 1), True)
    """

    _module = ppca
    _missing = "vaejax.conjugate.ppca.fit_em(key, Batch(X, mask=~numpy.isnan(X)), n_components) serves missing entries."
    _missing_later = "vaejax.conjugate.ppca.posterior(params_, Batch(X, mask=~numpy.isnan(X))) serves missing entries."

    def __init__(self, n_components: int = 1, *, random_state: Any = None) -> None:
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fits rows.

        Args:
            X: ``[n, d]``, float32 or float64, computed as such; other numbers become float64.
            y: ignored.
            sample_weight: ``[n]``; a row of weight 2 counts as two, one of 0 is left out.

        Raises:
            ValueError: NaN (`vaejax.conjugate.ppca.fit_em` serves missing entries), one row, weights that are negative or all 0, an
                ``n_components`` that leaves no noise.
        """
        rows = self._rows(X, sample_weight)
        self._remember(computed(rows.x.dtype, ppca.fit_ml, rows, self.n_components))
        self.explained_variance_ = np.sum(self.components_**2, axis=1) + self.noise_variance_
        others = (self.n_features_in_ - self.n_components_) * self.noise_variance_
        self.explained_variance_ratio_ = self.explained_variance_ / (self.explained_variance_.sum() + others)
        return self


class FactorAnalysis(LinearGaussian):
    """x = W z + μ + ε, ε ~ N(0, diag ψ), by maximum likelihood with EM: `vaejax.conjugate.factor_analysis.fit_em`.

    The likelihood leaves W free up to a rotation. It is turned so that Wᵀ Ψ⁻¹ W is diagonal and falling, each row of ``components_`` with
    its largest entry positive: then it depends on the seed no more.

    Args:
        n_components: q, below the number of columns.
        tol: relative gain of the log-likelihood below which EM ends; scikit-learn's is absolute, of all rows. Here it is 1e-7 (1e-9 in
            `fit_em`): towards a noise of 0 the gains fall as slowly as 1/t², and many small data sets lead there.
        max_iter: at most.
        min_noise: share of each column's variance below which its noise does not go; ε^¾ of the floats' precision ε if None.
        random_state: of the start and of `sample`: seed, ``RandomState`` or None.

    Attributes:
        mean_: ``[d]`` μ.
        components_: ``[q, d]`` Wᵀ, the loadings.
        noise_variance_: ``[d]`` ψ.
        loglike_: ``[n_iter_ + 1]`` the log-likelihood of all rows before each step and after the last, nats.
        n_iter_: how many were made.
        converged_: whether the last gained less than ``tol``.
        n_components_: q.
        n_features_in_: d.
        params_: `vaejax.conjugate.factor_analysis.FactorAnalysis`.
        result_: `vaejax.conjugate.FitResult`.

    Source:
        Rubin & Thayer 1982; Bishop 2006, section 12.2.4.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(500, 1)) + rng.normal(size=(500, 4)) * [0.5, 1.0, 1.5, 2.0]
        >>> model = FactorAnalysis(1, random_state=0).fit(x)
        >>> model.transform(x).shape, bool((np.diff(model.noise_variance_) > 0).all())
        ((500, 1), True)
    """

    _module = factor_analysis
    _missing = "vaejax.conjugate.factor_analysis.fit_em(key, Batch(X, mask=~numpy.isnan(X)), n_components) serves missing entries."
    _missing_later = (
        "vaejax.conjugate.factor_analysis.posterior(params_, Batch(X, mask=~numpy.isnan(X))) serves missing entries."
    )

    def __init__(
        self,
        n_components: int = 1,
        *,
        tol: float = 1e-7,
        max_iter: int = 10_000,
        min_noise: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.tol = tol
        self.max_iter = max_iter
        self.min_noise = min_noise
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fits rows.

        Args:
            X: ``[n, d]``, float32 or float64, computed as such; other numbers become float64.
            y: ignored.
            sample_weight: ``[n]``; a row of weight 2 counts as two, one of 0 is left out.

        Raises:
            ValueError: NaN (`vaejax.conjugate.factor_analysis.fit_em` serves missing entries), one row, a constant column, weights that
                are negative or all 0, arguments out of range.

        Warns:
            ConvergenceWarning: more steps than ``max_iter`` were wanted.
            vaejax.conjugate.factor_analysis.Heywood: the factors explain a column whole.
        """
        checks.positive_int(self.max_iter, "max_iter")
        checks.real(self.tol, "tol", minimum=0.0)
        rows = self._rows(X, sample_weight)
        settings = {"max_steps": self.max_iter, "tolerance": self.tol, "min_noise": self.min_noise}
        key = key_of(self.random_state, "fit")
        found = computed(rows.x.dtype, factor_analysis.fit_em, key, rows, self.n_components, **settings)
        finite(found.objective)
        self.result_ = found
        self._remember(found.params)
        self.converged_, self.n_iter_ = bool(found.converged), int(found.num_steps)
        self.loglike_ = found.trace[: self.n_iter_ + 1]
        warn_unconverged(found, self.tol, self.max_iter)
        return self


def _posterior_mean(module: Any, params: Any, x: Any) -> Any:
    return module.posterior(params, x).mean()
