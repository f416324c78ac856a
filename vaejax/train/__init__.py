"""Training: state, step, epoch, fit, and parameters on disk."""

from vaejax.train.checkpoint import load_params, save_params
from vaejax.train.epoch import make_epoch
from vaejax.train.finite import NonFiniteError
from vaejax.train.fit import FitResult, fit
from vaejax.train.state import init
from vaejax.train.step import make_train_step, step

__all__ = [
    "FitResult",
    "NonFiniteError",
    "fit",
    "init",
    "load_params",
    "make_epoch",
    "make_train_step",
    "save_params",
    "step",
]
