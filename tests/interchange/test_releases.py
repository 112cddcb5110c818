"""Our list of published SAEs says what SAELens' says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sae_widget.checkpoint import load_release
from sae_widget.checkpoint.releases import RELEASES
from tests.interchange.peers import peer
from tests.interchange.test_sae_lens import some_x, theirs_of

pytestmark = pytest.mark.peers
directory = peer("sae_lens.loading.pretrained_saes_directory")
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


def test_a_release_with_a_factor_gives_what_they_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the hub's cache as it is published: the factor not folded, centred activations expected."""
    name, sae_id, commit = "gpt2-small-mlp-tm", "blocks.3.hook_mlp_out", "0" * 40
    snapshots = tmp_path / f"models--{RELEASES[name].repo.replace('/', '--')}" / "snapshots"
    folder = snapshots / commit / RELEASES[name].folders[sae_id]
    theirs = theirs_of("StandardSAE", normalize_activations="expected_average_only_in")
    theirs.save_model(folder)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    theirs.fold_activation_norm_scaling_factor(directory.get_norm_scaling_factor(name, sae_id))
    loaded, x = load_release(name, sae_id), some_x()
    mean = x.mean(dim=-1, keepdim=True)
    with torch.no_grad():
        assert torch.allclose(loaded.encode(x), theirs.encode(x - mean), atol=1e-5)
        assert torch.allclose(loaded(x), theirs(x - mean) + mean, atol=1e-5)
