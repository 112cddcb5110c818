"""Each pane has one place, the status line above all."""

import ipywidgets as W

from sae_widget.views import VIEWS
from sae_widget.views.arrangement import arrange


def test_every_pane_has_one_place_in_the_order_of_a_narrow_page():
    panes = {view.name: W.Label(view.name) for view in VIEWS}
    status, columns = arrange(panes)
    assert status is panes["status"]
    placed = [label.value for column in columns.children for label in column.children]
    assert placed == ["controls", "card", "chart", "health", "tokens", "bars", "heatmap"]
    assert {"status", *placed} == panes.keys()
    for widget in (status, columns, *columns.children, *panes.values()):
        widget.close()
