"""Our list of published SAEs says what SAELens' says."""

from __future__ import annotations

import pytest

from sae_widget.checkpoint.releases import RELEASES

pytestmark = pytest.mark.peers
directory = pytest.importorskip(
    "sae_lens.loading.pretrained_saes_directory", reason="SAELens is in an environment of its own: make test-peers"
)
THEIRS = directory.get_pretrained_saes_directory()


@pytest.mark.parametrize("name", sorted(RELEASES))
def test_a_release_is_as_they_have_it(name: str) -> None:
    ours, theirs = RELEASES[name], THEIRS[name]
    assert ours.repo == theirs.repo_id and theirs.model == "gpt2-small"
    kwargs = (theirs.config_overrides or {}).get("model_from_pretrained_kwargs", {})
    assert ours.centred == kwargs.get("center_writing_weights", False)
    assert ours.folders.keys() == theirs.saes_map.keys()
    if ours.refused:
        assert all(path.endswith(".pt") for path in theirs.saes_map.values())
        return
    assert ours.folders == theirs.saes_map
    known = {sae_id: directory.get_norm_scaling_factor(name, sae_id) for sae_id in ours.folders}
    assert ours.factors == {sae_id: factor for sae_id, factor in known.items() if factor is not None}


def test_every_release_for_gpt2_is_there() -> None:
    assert {name for name, theirs in THEIRS.items() if theirs.model == "gpt2-small"} == set(RELEASES)
