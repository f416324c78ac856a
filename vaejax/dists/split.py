"""A posterior whose draws and whose density have parameters of their own, so that each role can be differentiated apart."""

from typing import Any

from vaejax.dists.noise import draw_with_noise
from vaejax.types import Array, Key


class SplitPosterior:
    """Draws from one distribution, densities from another of the same family (equal in value, different in what is stopped).

    Attributes:
        drawn: the distribution that is sampled, and whose closed-form KL counts.
        scored: the distribution whose log-density is taken.
        noise: how the draws hang together (`uniform_noise`).
        given: draws to use in place of new ones.
    """

    def __init__(self, drawn: Any, scored: Any, noise: str = "independent", given: Any = None):
        self.drawn, self.scored, self.noise, self.given = drawn, scored, noise, given

    def sample_and_log_prob(self, *, seed: Key, sample_shape: tuple[int, ...] = ()) -> tuple[Any, Array]:
        """The draws, and their log-density under ``scored``."""
        if self.given is not None:
            z = self.given
        elif self.noise == "independent":
            z, log_prob = self.drawn.sample_and_log_prob(seed=seed, sample_shape=sample_shape)
            if self.drawn is self.scored:
                return z, log_prob
        else:
            z = draw_with_noise(self.drawn, self.noise, seed, sample_shape[0])
        return z, self.scored.log_prob(z)

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked of a posterior (mean, entropy, batch_shape, …) is asked of ``drawn``."""
        if name.startswith("__") or name == "drawn":
            raise AttributeError(name)
        return getattr(self.drawn, name)

    def log_prob(self, z: Any) -> Array:
        """The log-density under ``scored``."""
        return self.scored.log_prob(z)
