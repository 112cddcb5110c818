"""sae_widget.activations.extract: the right rows, in the right order, equal to transformers' own."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch

from sae_widget.activations import Activations, get_activations, language_model
from sae_widget.activations.base import LanguageModel
from sae_widget.activations.build import language_model as wrap
from sae_widget.config import HOOK_NAMES
from tests.real_size import REAL_TOKENIZER, random_gpt2

LONG = "The quick brown fox jumps over the lazy dog. " * 20


def hidden_states(model: LanguageModel, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return tuple(h[0] for h in model.network(ids[None], output_hidden_states=True).hidden_states)


@pytest.fixture(scope="module")
def real_size() -> LanguageModel:
    return wrap(*random_gpt2(), "random GPT-2")


def test_every_layer_equals_output_hidden_states_at_real_size(real_size: LanguageModel) -> None:
    text = "It was the best of times, it was the worst of times."
    assert (real_size.n_layer, real_size.d_in, real_size.n_positions) == (12, 768, 1024)
    read = get_activations(real_size, text, 0)
    expected = hidden_states(real_size, read.token_ids)
    assert len(expected) == 13
    for layer in range(12):
        found = get_activations(real_size, text, layer).values
        torch.testing.assert_close(found, expected[layer], atol=1e-5, rtol=0)
    last = get_activations(real_size, text, 11, "resid_post").values
    normed = get_activations(real_size, text, 11, "final_norm").values
    torch.testing.assert_close(normed, expected[12], atol=1e-5, rtol=0)
    torch.testing.assert_close(real_size.network.transformer.ln_f(last), expected[12], atol=1e-5, rtol=0)
    assert not torch.allclose(last, expected[12], atol=1e-2)
    with torch.no_grad():
        logits = real_size.network(read.token_ids[None]).logits[0]
    torch.testing.assert_close(real_size.network.lm_head(normed), logits, atol=1e-4, rtol=1e-4)


def test_the_real_vocabulary_reads_the_tutorials_sentence(real_size: LanguageModel) -> None:
    read = get_activations(real_size, "It was the best of times 😀\n", 1, prepend_bos=True)
    assert read.labels[0] == "<|endoftext|>" and read.spans[0].tolist() == [0, 0]
    assert read.labels[-1] == "↵"
    if REAL_TOKENIZER.is_dir():
        assert read.labels[1:7] == ("It", "·was", "·the", "·best", "·of", "·times")
        assert read.token_ids[0] == 50256


@pytest.mark.parametrize("hook_name", HOOK_NAMES)
@pytest.mark.parametrize("prepend_bos", [False, True])
def test_texts_of_many_lengths_come_back_in_order(tiny_gpt2: Any, hook_name: str, prepend_bos: bool) -> None:
    texts = ["abc", "a longer text", "xyz", "é" * 50, "q"]
    read = get_activations(tiny_gpt2, texts, 1, hook_name, prepend_bos=prepend_bos, batch_tokens=20)
    extra = int(prepend_bos)
    for index, text in enumerate(texts):
        rows = read.text_index == index
        alone = get_activations(tiny_gpt2, text, 1, hook_name, prepend_bos=prepend_bos)
        torch.testing.assert_close(read.values[rows], alone.values, atol=1e-5, rtol=1e-5)
        assert read.token_ids[rows].tolist() == alone.token_ids.tolist()
        assert read.spans[rows].tolist() == alone.spans.tolist()
        assert int(rows.sum()) >= len(text.encode()) + extra
    assert read.values.dtype == torch.float32 and read.values.device.type == "cpu"
    assert read.n_tokens == len(read.labels) and read.d_in == 32
    assert (read.model_name, read.layer, read.hook_name) == (tiny_gpt2.name, 1, hook_name)


def test_rows_are_what_the_model_computes_for_their_window(tiny_gpt2: Any) -> None:
    """900 tokens in windows of 63 behind the start token: each window is a reading of its own."""
    read = get_activations(tiny_gpt2, LONG, 2, prepend_bos=True)
    n_windows = -(-len(LONG) // 63)
    assert read.n_tokens == len(LONG) + n_windows
    assert int((read.position == 0).sum()) == n_windows
    assert (read.token_ids[read.position == 0] == tiny_gpt2.bos_id).all()
    begin = 3 * 64
    expected = hidden_states(tiny_gpt2, read.token_ids[begin : begin + 64])[2]
    torch.testing.assert_close(read.values[begin : begin + 64], expected, atol=1e-5, rtol=1e-5)
    assert read.spans[begin].tolist() == [189, 189]
    assert read.spans[begin + 1].tolist() == [189, 190]
    assert read.notes == (f"900 tokens; this model reads 63 at a time, so the text was read in {n_windows} windows.",)


@pytest.mark.parametrize(("n", "windows"), [(1, 1), (63, 1), (64, 1), (65, 2), (128, 2), (5000, 79)])
def test_lengths_around_the_context(tiny_gpt2: Any, n: int, windows: int) -> None:
    read = get_activations(tiny_gpt2, "x" * n, 0)
    assert read.n_tokens == n
    assert int((read.position == 0).sum()) == windows
    assert bool(read.notes) == (windows > 1)
    assert torch.isfinite(read.values).all()


def test_several_long_texts_have_one_note(tiny_gpt2: Any) -> None:
    read = get_activations(tiny_gpt2, ["x" * 70, "y", "z" * 130], 0)
    assert read.notes == (
        "2 texts are longer than the 64 tokens that this model reads at a time, so they were read in 5 windows.",
    )


@pytest.mark.parametrize("max_tokens", [1, 10, 64, 65, 100, 103, 104, 1000])
def test_max_tokens_gives_the_first_rows(tiny_gpt2: Any, max_tokens: int) -> None:
    texts = ["x" * 70, "", "abc", "y" * 30]
    whole = get_activations(tiny_gpt2, texts, 1)
    assert whole.n_tokens == 103
    read = get_activations(tiny_gpt2, texts, 1, max_tokens=max_tokens)
    n = min(max_tokens, 103)
    assert read.n_tokens == n
    torch.testing.assert_close(read.values, whole.values[:n], atol=1e-5, rtol=1e-5)
    assert read.text_index.tolist() == whole.text_index[:n].tolist()
    assert any("Reading stopped after" in note for note in read.notes) == (n < 103)


def test_max_tokens_keeps_no_start_token_alone(tiny_gpt2: Any) -> None:
    read = get_activations(tiny_gpt2, ["abc", "def"], 1, prepend_bos=True, max_tokens=5)
    assert read.n_tokens == 4
    with pytest.raises(ValueError, match="max_tokens leaves no room"):
        get_activations(tiny_gpt2, "abc", 1, prepend_bos=True, max_tokens=1)


def test_max_tokens_reads_only_the_texts_that_it_needs(tiny_gpt2: Any) -> None:
    class Counting:
        def __init__(self, inner: Any) -> None:
            self.inner, self.calls = inner, 0

        def __call__(self, *arguments: Any, **settings: Any) -> Any:
            self.calls += 1
            return self.inner(*arguments, **settings)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    tokenizer = Counting(tiny_gpt2.tokenizer)
    get_activations(replace(tiny_gpt2, tokenizer=tokenizer), ["x" * 50] * 100, 0, max_tokens=120)
    assert tokenizer.calls == 3


def test_only_the_needed_blocks_run_and_never_the_head(tiny_gpt2: Any) -> None:
    ran: list[str] = []

    class Spy:
        def embed(self, ids: torch.Tensor) -> torch.Tensor:
            ran.append("embed")
            return tiny_gpt2.adapter.embed(ids)

        def block(self, index: int, resid: torch.Tensor) -> Any:
            ran.append(f"block {index}")
            return tiny_gpt2.adapter.block(index, resid)

        def final_norm(self, resid: torch.Tensor) -> torch.Tensor:
            ran.append("norm")
            return tiny_gpt2.adapter.final_norm(resid)

    class NoHead:
        def __call__(self, *arguments: Any, **settings: Any) -> None:
            raise AssertionError("the whole network was run")

    spied = replace(tiny_gpt2, adapter=Spy(), network=NoHead())
    for layer, hook_name, blocks in (
        (0, "resid_pre", 0),
        (2, "resid_pre", 2),
        (1, "mlp_out", 2),
        (0, "final_norm", 3),
    ):
        ran.clear()
        get_activations(spied, "hello", layer, hook_name)
        norm = ["norm"] if hook_name == "final_norm" else []
        assert ran == ["embed", *(f"block {i}" for i in range(blocks)), *norm]


def test_empty_text_never_reaches_the_model(tiny_gpt2: Any) -> None:
    blind = replace(tiny_gpt2, adapter=None, tokenizer=None)
    for text in ("", "  \n", []):
        with pytest.raises(ValueError, match=r"Type some text first \(it has 0 tokens\)\."):
            get_activations(blind, text, 0)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"layer": 3}, ValueError, "layer must be between 0 and 2, got 3"),
        ({"layer": -1}, ValueError, "layer must be between 0 and 2, got -1"),
        ({"layer": 1.0}, TypeError, "layer must be a whole number"),
        ({"hook_name": "resid"}, ValueError, "hook_name must be one of"),
        ({"max_tokens": 0}, ValueError, "max_tokens must be at least 1"),
        ({"batch_tokens": "many"}, TypeError, "batch_tokens must be a whole number"),
        ({"model": "gpt2"}, TypeError, "model must be what load_model returned, got str"),
        ({"texts": None}, TypeError, "got None"),
    ],
)
def test_wrong_arguments(tiny_gpt2: Any, changes: dict[str, Any], error: type[Exception], words: str) -> None:
    given: dict[str, Any] = {"model": tiny_gpt2, "texts": "abc", "layer": 0} | changes
    with pytest.raises(error, match=words):
        get_activations(**given)


def test_a_model_without_start_token(tiny_gpt2: Any) -> None:
    with pytest.raises(ValueError, match="has no start token"):
        get_activations(replace(tiny_gpt2, bos_id=None), "abc", 0, prepend_bos=True)


def spoiled(model: LanguageModel, where: str, value: float) -> LanguageModel:
    """A copy of the model with one weight replaced."""
    import copy

    network = copy.deepcopy(model.network)
    with torch.no_grad():
        network.get_parameter(where)[..., 0] = value
    return language_model(network, model.tokenizer, "spoiled")


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("transformer.wte.weight", float("nan"), r"model output is NaN at layer 0 \(embeddings\)"),
        (
            "transformer.h.1.mlp.c_fc.weight",
            float("nan"),
            r"model output is NaN at layer 2 \(after block 2\)",
        ),
        (
            "transformer.h.0.mlp.c_proj.bias",
            float("inf"),
            r"model output is infinite at layer 1 \(after block 1\)",
        ),
        ("transformer.ln_f.weight", float("nan"), r"model output is NaN at layer 2 \(after the final norm\)"),
    ],
)
def test_nan_weights_are_told_with_their_layer(tiny_gpt2: Any, where: str, value: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        get_activations(spoiled(tiny_gpt2, where, value), "abc", 2, "final_norm")


def test_nan_behind_the_place_that_is_read_does_no_harm(tiny_gpt2: Any) -> None:
    broken = spoiled(tiny_gpt2, "transformer.h.2.mlp.c_fc.weight", float("nan"))
    assert torch.isfinite(get_activations(broken, "abc", 2).values).all()


def test_two_threads_on_one_model_do_not_mix(tiny_gpt2: Any) -> None:
    texts = ["abcdefg", "hijk lmn op"]
    alone = [get_activations(tiny_gpt2, text, 2).values for text in texts]
    wrong: list[int] = []

    def read(which: int) -> None:
        for _ in range(40):
            if not torch.equal(get_activations(tiny_gpt2, texts[which], 2).values, alone[which]):
                wrong.append(which)

    threads = [threading.Thread(target=read, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_result_can_be_trained_on(tiny_gpt2: Any) -> None:
    values = get_activations(tiny_gpt2, "abc", 1).values
    assert not values.requires_grad and not values.is_inference()
    weight = torch.ones(32, 5, requires_grad=True)
    (values @ weight).sum().backward()
    assert weight.grad is not None


def test_a_half_precision_model_gives_float32(tiny_gpt2: Any) -> None:
    import copy

    half = language_model(copy.deepcopy(tiny_gpt2.network).to(torch.bfloat16), tiny_gpt2.tokenizer, "half")
    assert get_activations(half, "abc", 1).values.dtype == torch.float32


def test_numbers_that_are_too_large_for_float16_are_told(tiny_gpt2: Any) -> None:
    """F42: the weights are whole, only their products leave the range."""
    import copy

    network = copy.deepcopy(tiny_gpt2.network)
    with torch.no_grad():
        network.transformer.h[1].mlp.c_proj.bias.fill_(60_000.0)
        network.transformer.h[2].mlp.c_proj.bias.fill_(60_000.0)
    assert torch.isfinite(get_activations(language_model(network, tiny_gpt2.tokenizer, "whole"), "abc", 2).values).all()
    half = language_model(network.half(), tiny_gpt2.tokenizer, "half")
    assert get_activations(half, "abc", 2).values.dtype == torch.float32
    with pytest.raises(
        ValueError, match=r"infinite at layer 3 \(after block 3\): half is in float16, whose .* in float32"
    ):
        get_activations(half, "abc", 2, "resid_post")
    broken = language_model(spoiled(tiny_gpt2, "transformer.wte.weight", math.nan).network.half(), half.tokenizer, "b")
    with pytest.raises(ValueError, match="has damaged weights"):
        get_activations(broken, "abc", 2)


def test_a_tokenizer_that_normalises(tiny_gpt2: Any) -> None:
    from tokenizers import Tokenizer, normalizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tiny_gpt2.tokenizer.backend_tokenizer.to_str())
    backend.normalizer = normalizers.NFC()
    composing = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|endoftext|>")
    read: Activations = get_activations(replace(tiny_gpt2, tokenizer=composing), "cafe\u0301!", 0)
    assert read.texts == ("caf\u00e9!",)
    assert read.spans.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [3, 4], [4, 5]]
    assert "composed form" in read.notes[0]
