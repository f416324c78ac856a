"""vaejax's side of the workloads."""

from typing import Any

import vaejax
from benchmarks.workloads import Workload


def model(work: Workload) -> vaejax.Model:
    """The workload's autoencoder."""
    options: dict[str, Any] = {}
    if work.conv:
        options["encoder"] = vaejax.nets.conv_encoder(work.x_shape, work.hidden, 2 * work.latent)
        options["decoder"] = vaejax.nets.conv_decoder(
            work.latent, work.hidden[::-1], work.x_shape, use_output_bias=False
        )
    if work.bfloat16:
        options["dtype"] = "bfloat16"
    return vaejax.models.vae(x_shape=work.x_shape, latent_size=work.latent, hidden_sizes=work.hidden, **options)


def estimator(work: Workload) -> vaejax.Estimator:
    """Its gradient: of the ELBO with the closed-form KL, or of the importance-weighted bound."""
    objective = vaejax.objectives.iwae if work.draws > 1 else vaejax.objectives.elbo
    return vaejax.estimators.pathwise(model(work), objective, num_samples=work.draws)
