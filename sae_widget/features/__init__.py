"""What the features of an SAE do: statistics over many tokens, activations on one text, where each fires most."""

from sae_widget.features.base import (
    DENSE,
    ENOUGH_TOKENS,
    FEW_FEATURES,
    MAX_PER_TOKEN,
    Counting,
    Features,
    FeatureStats,
    PromptFeatures,
    feature_stats,
    measured,
    order_features,
    prompt_features,
)
from sae_widget.features.contexts import Context, FeatureCardData, neighbours, top_contexts

__all__ = [
    "DENSE",
    "ENOUGH_TOKENS",
    "FEW_FEATURES",
    "MAX_PER_TOKEN",
    "Context",
    "Counting",
    "FeatureCardData",
    "FeatureStats",
    "Features",
    "PromptFeatures",
    "feature_stats",
    "measured",
    "neighbours",
    "order_features",
    "prompt_features",
    "top_contexts",
]
