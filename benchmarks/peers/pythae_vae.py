"""Pythae's side: its VAE with networks of the same shapes, its trainer's epoch, and its `get_nll`. Dense workloads only."""

import contextlib
import io
import itertools
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import nn

from benchmarks.workloads import LEARNING_RATE, Workload


def _hidden(sizes: list[int]) -> nn.Sequential:
    return nn.Sequential(*(part for i, o in itertools.pairwise(sizes) for part in (nn.Linear(i, o), nn.Tanh())))


class Encoder(BaseEncoder):
    """x to the mean and the log-variance."""

    def __init__(self, work: Workload):
        BaseEncoder.__init__(self)
        self.hidden = _hidden([work.x_size, *work.hidden])
        self.loc = nn.Linear(work.hidden[-1], work.latent)
        self.log_variance = nn.Linear(work.hidden[-1], work.latent)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        """What its VAE reads."""
        h = self.hidden(x.reshape(len(x), -1))
        return ModelOutput(embedding=self.loc(h), log_covariance=self.log_variance(h))


class Decoder(BaseDecoder):
    """z to probabilities."""

    def __init__(self, work: Workload):
        BaseDecoder.__init__(self)
        self.shape = work.x_shape
        self.hidden = _hidden([work.latent, *work.hidden[::-1]])
        self.out = nn.Linear(work.hidden[0], work.x_size)

    def forward(self, z: torch.Tensor) -> ModelOutput:
        """What its VAE reads."""
        probabilities = torch.sigmoid(self.out(self.hidden(z)))
        return ModelOutput(reconstruction=probabilities.reshape(len(z), *self.shape))


def model(work: Workload) -> VAE:
    config = VAEConfig(input_dim=work.x_shape, latent_dim=work.latent, reconstruction_loss="bce")
    return VAE(config, encoder=Encoder(work), decoder=Decoder(work))


def epoch(work: Workload, data: np.ndarray) -> Callable[[], Any]:
    """One epoch of its trainer: batches from its own loader."""
    config = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        num_epochs=1,
        per_device_train_batch_size=work.batch,
        learning_rate=LEARNING_RATE,
        no_cuda=not torch.cuda.is_available(),
    )
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        trainer = BaseTrainer(
            model=model(work),
            train_dataset=BaseDataset(torch.as_tensor(np.asarray(data)), torch.ones(len(data))),
            training_config=config,
        )
        trainer.prepare_training()

    def run() -> float:
        return float(trainer.train_step(1))

    return run


def log_marginal(work: Workload, x: np.ndarray, samples: int) -> Callable[[], Any]:
    """Its ``get_nll``: one example after another, batches of draws."""
    made = model(work)
    if torch.cuda.is_available():
        made = made.cuda()
    held = torch.as_tensor(np.asarray(x), device=next(made.parameters()).device)

    def run() -> float:
        with torch.no_grad():
            return float(np.mean(made.get_nll(held, n_samples=samples, batch_size=min(100, samples))))

    return run
