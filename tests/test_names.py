"""sae_widget.names: a name belongs to one SAE and comes back with it."""

from dataclasses import replace

from sae_widget.names import NameBook
from sae_widget.state import ExplorerState
from tests.hand_made import features


def test_names_stay_with_their_sae():
    state = ExplorerState()
    book = NameBook(state)
    one, other = (replace(features(), key=key) for key in ("one", "other"))
    state.features = one
    state.feature_names = {7: "times"}
    state.features = replace(one, version=2)
    assert state.feature_names == {7: "times"}  # the same SAE, some steps later
    state.features = other
    assert state.feature_names == {}
    state.feature_names = {7: "something else"}
    state.features = None
    state.features = one
    assert state.feature_names == {7: "times"}
    book.expect("a file", {3: "saved"})
    state.features = replace(one, key="a file")
    assert state.feature_names == {3: "saved"}
    state.features = other
    assert state.feature_names == {7: "something else"}


def test_names_given_here_go_before_those_of_a_file():
    state = ExplorerState()
    book = NameBook(state)
    state.features = replace(features(), key="a file")
    state.feature_names = {7: "given here"}
    state.features = replace(features(), key="other")
    book.expect("a file", {7: "saved", 3: "saved"})
    state.features = replace(features(), key="a file")
    assert state.feature_names == {7: "given here"}
