"""Training: from activations to a sparse autoencoder, one record for each step."""

from sae_widget.metrics import explained_variance
from sae_widget.training.base import TrainingFault, TrainStep
from sae_widget.training.history import History
from sae_widget.training.trainer import Trainer, train

__all__ = ["History", "TrainStep", "Trainer", "TrainingFault", "explained_variance", "train"]
