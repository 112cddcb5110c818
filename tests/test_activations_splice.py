"""sae_widget.activations.splice: what is behind the place changes, nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo  # transformers imports it at a model's first run, and that changes the environment

from sae_widget.activations.splice import head, normed_after, resid_before, spliced_logits
from sae_widget.config import HOOK_NAMES

D_IN, N_LAYER, VOCAB, N_POS, AT = 32, 3, 257, 7, 4
IDS = torch.randint(VOCAB, (2, N_POS), generator=torch.Generator().manual_seed(1))


def shifted(values: torch.Tensor) -> torch.Tensor:
    """Another row at one position of each window."""
    changed = values.clone()
    changed[:, AT] += torch.linspace(-1, 3, D_IN)
    return changed


@pytest.mark.parametrize("hook_name", HOOK_NAMES)
def test_tokens_before_the_changed_one_are_predicted_as_before(hook_name: str, tiny_gpt2: Any) -> None:
    clean = spliced_logits(tiny_gpt2, IDS, 1, hook_name)
    found = spliced_logits(tiny_gpt2, IDS, 1, hook_name, shifted)
    assert found.shape == clean.shape == (2, N_POS, VOCAB)
    far = (found - clean).abs().amax(dim=(0, 2))
    assert float(far[:AT].max()) < 1e-5 and float(far[AT]) > 1e-3
    later = float(far[AT + 1 :].max())
    assert later < 1e-5 if hook_name == "final_norm" else later > 1e-4  # no attention is behind the final norm


def test_the_end_of_a_block_is_the_beginning_of_the_next(tiny_gpt2: Any) -> None:
    ends = spliced_logits(tiny_gpt2, IDS, 0, "resid_post", shifted)
    assert torch.equal(ends, spliced_logits(tiny_gpt2, IDS, 1, "resid_pre", shifted))


def test_the_final_norm_is_one_place_whatever_the_layer(tiny_gpt2: Any) -> None:
    with torch.no_grad():
        clean = tiny_gpt2.network(IDS).logits
    for layer in range(N_LAYER):
        found = spliced_logits(tiny_gpt2, IDS, layer, "final_norm")
        torch.testing.assert_close(found, clean, atol=1e-5, rtol=1e-5)
        assert not spliced_logits(tiny_gpt2, IDS, layer, "final_norm", torch.zeros_like).any()


def test_the_parts_put_together_are_the_whole(tiny_gpt2: Any) -> None:
    with torch.no_grad():
        states = tiny_gpt2.network(IDS, output_hidden_states=True).hidden_states
        for layer, hook_name in ((0, "attn_out"), (2, "resid_mid"), (1, "final_norm")):
            shared = resid_before(tiny_gpt2, IDS, layer, hook_name)
            if hook_name != "final_norm":
                torch.testing.assert_close(shared, states[layer], atol=1e-5, rtol=1e-5)
            for edit in (shifted, None):  # one resid for all edits
                normed = normed_after(tiny_gpt2, shared, layer, hook_name, edit)
                assert torch.equal(head(tiny_gpt2, normed), spliced_logits(tiny_gpt2, IDS, layer, hook_name, edit))
        row = head(tiny_gpt2, normed[1, 3])
    torch.testing.assert_close(row, head(tiny_gpt2, normed)[1, 3].detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hook_name", HOOK_NAMES)
def test_an_edit_is_asked_once_and_nothing_learns_from_it(hook_name: str, tiny_gpt2: Any) -> None:
    seen: list[tuple[int, ...]] = []

    def learned(values: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(values.shape))
        return values * torch.ones(D_IN, requires_grad=True)

    before = {name: weight.clone() for name, weight in tiny_gpt2.network.state_dict().items()}
    clean = spliced_logits(tiny_gpt2, IDS, 1, hook_name)
    assert not spliced_logits(tiny_gpt2, IDS, 1, hook_name, learned).requires_grad
    assert seen == [(2, N_POS, D_IN)]
    spliced_logits(tiny_gpt2, IDS, 1, hook_name, torch.zeros_like)
    assert torch.equal(spliced_logits(tiny_gpt2, IDS, 1, hook_name), clean)
    assert all(torch.equal(weight, before[name]) for name, weight in tiny_gpt2.network.state_dict().items())


def refuses(values: torch.Tensor) -> torch.Tensor:
    raise AssertionError("the model was run")


@pytest.mark.parametrize("layer", [True, 1.0, "1", None])
def test_a_layer_that_is_no_whole_number(layer: Any, tiny_gpt2: Any) -> None:
    with pytest.raises(TypeError, match=f"layer must be a whole number, got {layer!r}"):
        spliced_logits(tiny_gpt2, IDS, layer, "resid_pre", refuses)


@pytest.mark.parametrize("layer", [-1, N_LAYER])
def test_a_layer_that_the_model_does_not_have(layer: int, tiny_gpt2: Any) -> None:
    with pytest.raises(ValueError, match=f"layer must be between 0 and 2, got {layer}"):
        spliced_logits(tiny_gpt2, IDS, layer, "mlp_out", refuses)


@pytest.mark.parametrize("shape", [(5,), (2, 0), (2, 3, 5), (1, 65)])
def test_token_ids_of_another_shape(shape: tuple[int, ...], tiny_gpt2: Any) -> None:
    ids = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"token_ids must be \[batch, 1 to 64\], got shape \[") as told:
        spliced_logits(tiny_gpt2, ids, 1, "resid_pre", refuses)
    assert str(told.value).endswith(str(list(shape)))
