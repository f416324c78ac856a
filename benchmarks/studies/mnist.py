"""MNIST, binarised afresh at each epoch: training and test log-likelihood with published nets.

    python -m benchmarks mnist [--data-dir DIR] [--nets iwae|kw] [--epochs 60] [--figures OUT]

DIR holds the four original idx files (``mnist/train-images-idx3-ubyte.gz`` …); without it they are looked for where
`vaejax data fetch mnist` puts them.
Targets: Burda et al. 2016, table 1, one layer, k = 1: 86.76 nats after 3280 epochs. The budget here is minutes.
"""

import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from benchmarks.options import load, study

# name: hidden widths, latent size. IWAE: Burda et al. 2016, appendix C; K&W: Kingma & Welling 2014, section 5.
NETS = {"iwae": ((200, 200), 50), "kw": ((500,), 20)}


def flat(mnist: vaejax.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """All 60000 training and 10000 test images, flat; no part of the training images is held out, as in the paper."""
    images = np.concatenate([mnist.train.x, mnist.validation.x])
    return images.reshape(len(images), -1), np.asarray(mnist.test.x).reshape(len(mnist.test.x), -1)


def main() -> None:
    parser = study(__doc__)
    parser.add_argument("--nets", choices=NETS, default="iwae")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figures", type=Path, default=None)
    options = parser.parse_args()
    train, test = flat(load(parser, "mnist", options.data_dir))

    began = time.perf_counter()
    hidden_sizes, latent_size = NETS[options.nets]
    model = vaejax.models.vae(x_shape=784, latent_size=latent_size, hidden_sizes=hidden_sizes)
    steps = options.epochs * (len(train) // options.batch_size)
    result = vaejax.train.fit(
        jax.random.key(options.seed),
        model,
        train,
        estimator=vaejax.estimators.pathwise(model, vaejax.objectives.elbo),
        optimizer=optax.adam(optax.cosine_decay_schedule(options.learning_rate, steps)),
        num_epochs=options.epochs,
        batch_size=options.batch_size,
        preprocess=vaejax.data.dynamic_binarization(levels=255),
    )
    trained = time.perf_counter()
    test_key, elbo_key, evidence_key = jax.random.split(jax.random.key(options.seed + 1), 3)
    binary = jax.jit(functools.partial(vaejax.data.binarize, levels=255))(test_key, jnp.asarray(test))
    bound = vaejax.evaluate.elbo(model, result.state.params, elbo_key, binary, num_samples=10)
    evidence = vaejax.evaluate.log_marginal(
        model, result.state.params, evidence_key, binary, num_samples=options.samples
    )
    print(
        "device", jax.devices()[0].device_kind, "jax", jax.__version__, "nets", options.nets, "epochs", options.epochs
    )
    print("train objective, first and last epoch:", result.history["objective"][[0, -1]])
    print("test ELBO           ", vaejax.evaluate.mean_estimate(bound.estimate, bound.standard_error))
    print("test log-likelihood ", vaejax.evaluate.mean_estimate(evidence.estimate, evidence.standard_error))
    print(f"effective samples, median {np.median(evidence.effective_sample_size):.1f} of {options.samples}")
    print(
        f"seconds: training {trained - began:.1f}, evaluation {time.perf_counter() - trained:.1f}, all {time.perf_counter() - began:.1f}"
    )
    if options.figures is not None:
        images = vaejax.plots.reconstructions(
            model, result.state.params, jax.random.key(2), binary[:10], image_shape=(28, 28)
        )
        samples = vaejax.plots.prior_samples(model, result.state.params, jax.random.key(3), image_shape=(28, 28))
        options.figures.mkdir(parents=True, exist_ok=True)
        images.savefig(options.figures / f"{options.nets}_reconstructions.png")
        samples.savefig(options.figures / f"{options.nets}_samples.png")


if __name__ == "__main__":
    main()
