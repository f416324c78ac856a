"""PyTorch's side: modules and its own Adam, eager or through ``torch.compile``."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import handwritten
from benchmarks.workloads import LEARNING_RATE, Workload


class Autoencoder(nn.Module):
    """The workload's networks and its loss."""

    def __init__(self, work: Workload):
        super().__init__()
        self.work = work
        self.encoder, self.decoder = _networks(work)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """−ELBO, or minus the importance-weighted bound; mean over the batch."""
        work = self.work
        loc, log_scale = self.encoder(x).chunk(2, dim=-1)
        noise = torch.randn(work.draws, *loc.shape, device=x.device)
        z = loc + log_scale.exp() * noise
        logits = self.decoder(z.reshape(-1, work.latent)).reshape(work.draws, *x.shape)
        entries = functional.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        log_likelihood = -entries.flatten(2).sum(-1)
        if work.draws == 1:
            kl = 0.5 * (loc**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum(-1)
            return (kl - log_likelihood[0]).mean()
        weights = log_likelihood + (0.5 * noise**2 + log_scale - 0.5 * z**2).sum(-1)
        return math.log(work.draws) - torch.logsumexp(weights, 0).mean()


class _Crop(nn.Module):
    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, 0, : self.shape[0], : self.shape[1]]


def _networks(work: Workload) -> tuple[nn.Module, nn.Module]:
    if work.conv:
        size, channels = handwritten.smallest(work), [1, *work.hidden]
        flat = size * size * channels[-1]
        down: list[nn.Module] = [nn.Unflatten(1, (1, work.x_shape[0]))]
        for i, o in itertools.pairwise(channels):
            down += [nn.Conv2d(i, o, 3, stride=2, padding=1), nn.ReLU()]
        up: list[nn.Module] = [nn.Linear(work.latent, flat), nn.Unflatten(1, (channels[-1], size, size))]
        for i, o in list(itertools.pairwise(channels))[::-1]:
            up += [nn.ReLU(), nn.ConvTranspose2d(o, i, 3, stride=2, padding=1, output_padding=1)]
        encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, 2 * work.latent))
        return encoder, nn.Sequential(*up, _Crop(work.x_shape))

    def dense(sizes: list[int]) -> nn.Module:
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise(sizes):
            layers += [nn.Linear(i, o), nn.Tanh()]
        return nn.Sequential(*layers[:-1])

    sizes = [work.x_size, *work.hidden]
    return dense([*sizes, 2 * work.latent]), dense([work.latent, *sizes[::-1]])


def _trainer(work: Workload, compiled: bool) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.device]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # JAX's default too: products of float32 in TF32, on GPUs that have it.
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")
    module: Any = Autoencoder(work).to(device)
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
    loss_of = torch.compile(module) if compiled else module

    def step(x: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=work.bfloat16):
            loss = loss_of(x)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, device


def _done(loss: torch.Tensor) -> float:
    return float(loss)


def epoch(work: Workload, data: np.ndarray, *, compiled: bool = False) -> Callable[[], Any]:
    """One epoch of shuffled batches, the data on the device."""
    step, device = _trainer(work, compiled)
    held = torch.as_tensor(np.asarray(data), device=device)

    def run() -> float:
        order = torch.randperm(len(held), device=device)
        for i in range(work.steps):
            loss = step(held[order[i * work.batch : (i + 1) * work.batch]])
        return _done(loss)

    return run


def loop(work: Workload, x: np.ndarray, *, compiled: bool = False) -> Callable[[], Any]:
    """As many steps on the same batch."""
    step, device = _trainer(work, compiled)
    held = torch.as_tensor(np.asarray(x), device=device)

    def run() -> float:
        for _ in range(work.steps):
            loss = step(held)
        return _done(loss)

    return run
