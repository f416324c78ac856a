"""What is timed: models, batches and data, the same for vaejax, hand-written JAX, peers and the floor."""

import math
from typing import NamedTuple

import numpy as np

LEARNING_RATE = 1e-3


class Workload(NamedTuple):
    """A binary variational autoencoder and how it is trained.

    Attributes:
        name: as in the tables.
        x_shape: of one example.
        hidden: widths of the encoder's layers (the decoder has them in reverse); channels, where ``conv``.
        latent: dimension of z.
        batch: examples in a step.
        steps: steps in an epoch.
        draws: K; more than one trains the importance-weighted bound, one the ELBO with the closed-form KL.
        conv: 3 × 3 convolutions of stride 2 in place of dense layers; ReLU in place of tanh.
        bfloat16: products of the networks in bfloat16; parameters and densities stay float32.
    """

    name: str
    x_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    latent: int
    batch: int
    steps: int
    draws: int = 1
    conv: bool = False
    bfloat16: bool = False

    @property
    def x_size(self) -> int:
        """Entries of one example."""
        return math.prod(self.x_shape)


KW = Workload("K&W 784-500-20, batch 100", (784,), (500,), 20, 100, 100)
TINY = Workload("tiny 30-32-3, batch 128", (30,), (32,), 3, 128, 500)
CONV = Workload("convolutions 32-64 on 28x28, batch 256", (28, 28), (32, 64), 20, 256, 4, conv=True)
LARGE = Workload("large 4096-4096-4096-64, batch 8192", (4096,), (4096, 4096), 64, 8192, 4)


def iwae(draws: int) -> Workload:
    """The one-layer nets of Burda et al. 2016."""
    return Workload(f"IWAE 784-200-200-50, batch 20, k={draws}", (784,), (200, 200), 50, 20, 100, draws)


TRAINED = {"kw": KW, "iwae1": iwae(1), "iwae5": iwae(5), "iwae50": iwae(50), "tiny": TINY, "conv": CONV}
EVALUATED = iwae(1)


def quick(work: Workload) -> Workload:
    """The same kind of work, small enough for a test: names say so."""
    return work._replace(
        name=f"(quick, far smaller) {work.name}",
        x_shape=tuple(min(n, 28 if work.conv else 64) for n in work.x_shape),
        hidden=tuple(min(n, 8 if work.conv else 16) for n in work.hidden),
        latent=min(work.latent, 4),
        batch=min(work.batch, 16),
        steps=min(work.steps, 3),
        draws=min(work.draws, 5),
    )


def data(work: Workload) -> np.ndarray:
    """An epoch of binary examples ``[batch · steps, *x_shape]``, float32, a third of the entries 1."""
    generator = np.random.default_rng(0)
    return (generator.random((work.batch * work.steps, *work.x_shape), dtype=np.float32) < 0.3).astype(np.float32)
