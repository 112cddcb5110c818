"""Where each pane has its place on the page."""

from __future__ import annotations

import ipywidgets as W


def arrange(panes: dict[str, W.Widget]) -> list[W.Widget]:
    """The form and the card beside everything that is drawn; one column on a narrow page."""

    def column(flex: str, least: str, *names: str) -> W.VBox:
        layout = W.Layout(flex=flex, min_width=least, grid_gap="8px", overflow="visible")
        return W.VBox([panes[name] for name in names], layout=layout)

    columns = W.Box(
        [
            column("1 1 320px", "300px", "controls", "card"),
            column("1000 1 380px", "0", "chart", "health", "tokens", "bars", "heatmap"),
        ],
        layout=W.Layout(flex_flow="row wrap", align_items="flex-start", width="100%", grid_gap="8px"),
    )
    return [panes["status"], columns]
