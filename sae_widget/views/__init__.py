"""The panes of the explorer. A new one is a file here and a name in ``VIEWS``."""

from sae_widget.views.bars import ActivationBars
from sae_widget.views.base import View
from sae_widget.views.card import FeatureCard
from sae_widget.views.chart import LossChart
from sae_widget.views.controls import Controls
from sae_widget.views.health import HealthRow
from sae_widget.views.heatmap import WeightHeatmap
from sae_widget.views.status import StatusLine
from sae_widget.views.tokens import TokenStrip

VIEWS: tuple[type[View], ...] = (
    Controls,
    StatusLine,
    LossChart,
    HealthRow,
    TokenStrip,
    ActivationBars,
    WeightHeatmap,
    FeatureCard,
)
