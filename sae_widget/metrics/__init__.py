"""Measures of an SAE, each with one definition that everything else uses."""

from sae_widget.metrics.base import (
    explained_variance,
    relative_reconstruction_bias,
    share_of_error,
    spread,
    variance_share,
)
from sae_widget.metrics.firing import (
    FrequencyHistogram,
    dead_count,
    feature_frequency,
    frequency_histogram,
    l0,
)
from sae_widget.metrics.truth import BestMatch, best_match, mmcs, recovered, shrinkage

__all__ = [
    "BestMatch",
    "FrequencyHistogram",
    "best_match",
    "dead_count",
    "explained_variance",
    "feature_frequency",
    "frequency_histogram",
    "l0",
    "mmcs",
    "recovered",
    "relative_reconstruction_bias",
    "share_of_error",
    "shrinkage",
    "spread",
    "variance_share",
]
