"""Training: state, step, epoch, fit, and what is kept on disk."""

from vaejax.train.callbacks import every
from vaejax.train.checkpoint import load_params, save_params
from vaejax.train.epoch import make_epoch
from vaejax.train.finite import NonFiniteError
from vaejax.train.fit import FitResult, fit
from vaejax.train.optimizers import evaluation_params
from vaejax.train.runs import find_checkpoint
from vaejax.train.state import init
from vaejax.train.step import make_train_step, step
from vaejax.train.storage import CheckpointError

__all__ = [
    "CheckpointError",
    "FitResult",
    "NonFiniteError",
    "evaluation_params",
    "every",
    "find_checkpoint",
    "fit",
    "init",
    "load_params",
    "make_epoch",
    "make_train_step",
    "save_params",
    "step",
]
