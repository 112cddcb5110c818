"""sae_widget.fidelity and activations.splice: an SAE in the place of the activations it was trained on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch._dynamo  # transformers imports it at a model's first run, and that changes the environment

from sae_widget.activations import get_activations, load_model
from sae_widget.activations.adapters import adapter_for
from sae_widget.activations.base import Activations, LanguageModel
from sae_widget.activations.splice import spliced_logits
from sae_widget.bundled import bundled_sae
from sae_widget.config import HOOK_NAMES
from sae_widget.fidelity import Fidelity, measure_fidelity
from sae_widget.sae import StandardSAE
from tests.test_adapters import NAMES, gpt2, gpt_neox

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2": (gpt2, {}),
    "gpt_neox, parallel": (gpt_neox, {"use_parallel_residual": True}),
    "gpt_neox, sequential": (gpt_neox, {"use_parallel_residual": False}),
}
every_kind = pytest.mark.parametrize("kind", sorted(KINDS))
every_place = pytest.mark.parametrize("hook_name", HOOK_NAMES)
D_IN, VOCAB, N_LAYER, N_POS = 24, 90, 4, 11


def model_of(kind: str) -> LanguageModel:
    """Random weights, large enough that no part is near zero."""
    make, changes = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = make(**changes).eval()
        for name, parameter in network.named_parameters():
            torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name or "ln_" in name else 0.0, std=0.3)
    return LanguageModel(kind, kind, network, None, adapter_for(network), D_IN, N_LAYER, 40, VOCAB, None)


def ids(n_windows: int = 5) -> torch.Tensor:
    return torch.randint(VOCAB, (n_windows, N_POS), generator=torch.Generator().manual_seed(1))


def activations_of(model: LanguageModel, tokens: torch.Tensor, layer: int, hook_name: str) -> Activations:
    """Read with a splice that changes nothing, and that writes down what it sees."""
    seen: list[torch.Tensor] = []

    def look(values: torch.Tensor) -> torch.Tensor:
        seen.append(values.reshape(-1, D_IN).clone())
        return values

    spliced_logits(model, tokens, layer, hook_name, look)
    n = tokens.numel()
    return Activations(
        values=seen[0],
        token_ids=tokens.reshape(-1),
        position=torch.arange(n) % tokens.shape[1],
        text_index=torch.arange(n) // tokens.shape[1],
        spans=torch.zeros(n, 2, dtype=torch.int64),
        labels=("",) * n,
        texts=("",),
        notes=(),
        model_name=model.name,
        layer=layer,
        hook_name=hook_name,
    )


def identity_sae(d_in: int = D_IN) -> StandardSAE:
    """``relu(x) - relu(-x)``, which is ``x`` to the last bit."""
    both = torch.cat([torch.eye(d_in), -torch.eye(d_in)])
    return StandardSAE(both.T.contiguous(), torch.zeros(2 * d_in), both, torch.zeros(d_in))


def constant_sae(values: torch.Tensor) -> StandardSAE:
    """Always answers ``values [d_in]``."""
    d_in = len(values)
    return StandardSAE(torch.zeros(d_in, 3), torch.zeros(3), torch.zeros(3, d_in), values)


@every_kind
@every_place
def test_a_splice_that_changes_nothing_gives_the_logits_of_transformers(kind: str, hook_name: str) -> None:
    model, tokens = model_of(kind), ids()
    with torch.no_grad():
        expected = model.network(tokens).logits
    torch.testing.assert_close(spliced_logits(model, tokens, 2, hook_name), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(
        spliced_logits(model, tokens, 2, hook_name), spliced_logits(model, tokens, 2, hook_name, torch.clone)
    )


@every_kind
@pytest.mark.parametrize("hook_name", ["resid_pre", "resid_post", "attn_out", "mlp_out", "final_norm"])
def test_a_splice_equals_a_hook(kind: str, hook_name: str) -> None:
    """Hooks are sound in one thread, so they say what a changed place does to everything behind it."""
    model, tokens = model_of(kind), ids()
    body, blocks, attention = NAMES[model.network.config.model_type]
    inner = getattr(model.network, body)
    block = getattr(inner, blocks)[1]
    factor = torch.linspace(-1, 2, D_IN)

    def first(output: Any) -> Any:
        return (output[0] * factor, *output[1:]) if isinstance(output, tuple) else output * factor

    if hook_name == "resid_pre":
        handle = block.register_forward_pre_hook(lambda m, given: (given[0] * factor, *given[1:]))
    else:
        norm = inner.ln_f if hasattr(inner, "ln_f") else inner.final_layer_norm
        hooked = {"resid_post": block, "attn_out": getattr(block, attention), "mlp_out": block.mlp, "final_norm": norm}
        handle = hooked[hook_name].register_forward_hook(lambda m, i, output: first(output))
    with torch.no_grad():
        expected = model.network(tokens).logits
    handle.remove()
    found = spliced_logits(model, tokens, 1, hook_name, lambda values: values * factor)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_middle_of_a_block() -> None:
    """GPT-2 with a middle of zeros: what comes out of the block is its MLP's answer to zeros."""
    model, tokens = model_of("gpt2"), ids()
    block = model.network.transformer.h[N_LAYER - 1]
    with torch.no_grad():
        out = block.mlp(block.ln_2(torch.zeros(D_IN)))
        expected = model.network.lm_head(model.network.transformer.ln_f(out))
    found = spliced_logits(model, tokens, N_LAYER - 1, "resid_mid", torch.zeros_like)
    torch.testing.assert_close(found, expected.expand_as(found), atol=1e-4, rtol=1e-4)


@every_kind
@every_place
@pytest.mark.parametrize("keep_first", [True, False])
def test_identity_recovers_all_and_constants_nothing(kind: str, hook_name: str, keep_first: bool) -> None:
    model = model_of(kind)
    activations = activations_of(model, ids(), 2, hook_name)
    found = measure_fidelity(identity_sae(), model, activations, keep_first=keep_first)
    assert found.recovered_zero == found.recovered_mean == 1.0
    assert found.ce_sae == found.ce_clean and found.kl == 0.0
    assert found.n_tokens == 5 * (N_POS - 1 - keep_first)
    found = measure_fidelity(constant_sae(torch.zeros(D_IN)), model, activations, keep_first=keep_first)
    assert found.recovered_zero == 0.0 and found.ce_sae == found.ce_zero and found.kl > 0
    mean = activations.values[activations.position > 0] if keep_first else activations.values
    found = measure_fidelity(constant_sae(mean.mean(0)), model, activations, keep_first=keep_first)
    assert found.recovered_mean == 0.0 and found.ce_sae == found.ce_mean


def test_numbers_by_the_formulas() -> None:
    """Cross-entropy and KL from the logits that the splice gives, by torch's own functions."""
    model, tokens = model_of("gpt2"), ids()
    activations = activations_of(model, tokens, 1, "resid_pre")
    sae = dataclasses.replace(identity_sae(), b_dec=torch.linspace(0, 0.5, D_IN))
    found = measure_fidelity(sae, model, activations)

    def changed(values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values[:, :1], sae(values.reshape(-1, D_IN)).view(values.shape)[:, 1:]], 1)

    clean = spliced_logits(model, tokens, 1, "resid_pre")[:, 1:-1].reshape(-1, VOCAB)
    other = spliced_logits(model, tokens, 1, "resid_pre", changed)[:, 1:-1].reshape(-1, VOCAB)
    targets = tokens[:, 2:].reshape(-1)
    assert found.ce_clean == pytest.approx(float(torch.nn.functional.cross_entropy(clean, targets)), rel=1e-5)
    assert found.ce_sae == pytest.approx(float(torch.nn.functional.cross_entropy(other, targets)), rel=1e-5)
    kl = torch.nn.functional.kl_div(other.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="batchmean")
    assert found.kl == pytest.approx(float(kl), rel=1e-4) and found.kl > 0
    share = (found.ce_zero - found.ce_sae) / (found.ce_zero - found.ce_clean)
    assert found.recovered_zero == pytest.approx(share)


def test_batches_and_pieces_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    activations = activations_of(model, ids(7), 1, "mlp_out")
    sae = constant_sae(torch.linspace(-1, 2, D_IN))
    whole = measure_fidelity(sae, model, activations)
    monkeypatch.setattr("sae_widget.fidelity.LOGITS", 4 * VOCAB)
    for batch_tokens in (1, 3 * N_POS):
        found = measure_fidelity(sae, model, activations, batch_tokens=batch_tokens)
        assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(whole), rel=1e-4)
    # Two windows whole, two tokens of the third: behind the first one there is nothing left to predict.
    few = measure_fidelity(sae, model, activations, max_tokens=2 * N_POS + 2)
    assert few.n_tokens == 2 * (N_POS - 2)


def test_what_cannot_be_measured_is_said() -> None:
    model = model_of("gpt2")
    activations = activations_of(model, ids(), 1, "resid_pre")
    sae = identity_sae()
    with pytest.raises(ValueError, match="activations are of 'another', but the model is 'gpt2'"):
        measure_fidelity(sae, model, dataclasses.replace(activations, model_name="another"))
    with pytest.raises(ValueError, match=r"values must be \[n_tokens, 7\]"):
        measure_fidelity(identity_sae(7), model, activations)
    with pytest.raises(ValueError, match="no window has a token to predict"):
        measure_fidelity(sae, model, activations, max_tokens=2)
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        measure_fidelity(sae, model, activations, max_tokens=0)
    with pytest.raises(ValueError, match=r"token_ids must be \[batch, 1 to 40\], got shape \[2, 41\]"):
        spliced_logits(model, torch.zeros(2, 41, dtype=torch.int64), 1, "resid_pre")
    with pytest.raises(ValueError, match="hook_name must be one of"):
        spliced_logits(model, ids(), 1, "resid")
    with pytest.raises(ValueError, match=r"edit must keep the shape \[5, 11, 24\], gave \[5, 11\]"):
        spliced_logits(model, ids(), 1, "resid_pre", lambda values: values[..., 0])


def test_where_nothing_can_be_lost_the_share_is_not_defined() -> None:
    model = model_of("gpt2")
    activations = activations_of(model, ids(), 1, "resid_pre")
    nothing = dataclasses.replace(model, network=_FlatHead(model.network))
    found = measure_fidelity(identity_sae(), nothing, activations)
    assert math.isnan(found.recovered_zero) and found.ce_clean == pytest.approx(math.log(VOCAB), rel=1e-5)


class _FlatHead:
    """Every token as likely as every other."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def get_output_embeddings(self) -> Any:
        return lambda normed: torch.zeros(*normed.shape[:-1], VOCAB)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [1, 3, 5])
def test_the_bundled_saes_keep_most_of_the_predictions(layer: int) -> None:
    """0.88 to 0.98 of the loss was measured on 2,000 tokens, by both baselines."""
    import pydoc_data.topics

    model = load_model("bundled")
    text = "\n".join(list(pydoc_data.topics.topics.values())[:4])
    activations = get_activations(model, text, layer, "resid_pre", prepend_bos=True, max_tokens=1024)
    shipped = bundled_sae(layer, "resid_pre", model.n_layer)
    assert shipped is not None
    found = measure_fidelity(shipped[0], model, activations)
    assert isinstance(found, Fidelity) and found.n_tokens == 4 * 254
    assert 0.8 < found.recovered_zero < 1.0 and 0.8 < found.recovered_mean < 1.0
    assert found.ce_clean < found.ce_sae < 4.5 < min(found.ce_zero, found.ce_mean)
    assert 0.02 < found.kl < 1.0
    assert str(found).startswith("0.9") or str(found).startswith("0.8")
