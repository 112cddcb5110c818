"""sae_widget.checkpoint.sites: what is close to a name but is none, and what a file may say of its place."""

from __future__ import annotations

from typing import Any

import pytest

from sae_widget.activations.hub import is_repo
from sae_widget.checkpoint.sites import (
    is_of_heads,
    mismatch,
    our_model_name,
    our_site,
    place_for,
    reading_notes,
    shared_names,
    trained_on,
)
from tests.sae_folders import an_sae


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("openai-community/gpt2", "gpt2"),
        ("openai-community/gpt2-xl", "gpt2-xl"),
        ("gpt2-xl", "gpt2-xl"),
        ("distilbert/distilgpt2", "distilgpt2"),
        ("pythia-1.4b", "EleutherAI/pythia-1.4b"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"),
        ("GPT2-small", "GPT2-small"),
        ("", ""),
    ],
)
def test_a_name_of_theirs_becomes_one_that_stays(theirs: str, ours: str) -> None:
    assert our_model_name(theirs) == our_model_name(ours) == ours
    assert is_repo(ours) or not theirs


@pytest.mark.parametrize(
    "hook",
    [
        "blocks.3.hook_resid_pre\n",
        "blocks.-1.hook_resid_pre",
        "blocks.3.hook_resid_pre_",
        "blocks..hook_resid_pre",
        "model.blocks.3.hook_resid_pre",
        "blocks.3.hook_final_norm",
        "ln_final.hook_scale",
        "resid_pre",
    ],
)
def test_what_is_only_like_a_hook_has_no_place(hook: str) -> None:
    assert our_site(hook) == {}


def test_every_hook_with_heads_is_known_and_none_without() -> None:
    heads = ("z", "q", "k", "v", "pattern", "attn_scores", "result", "q_normalized")
    assert all(is_of_heads(f"blocks.0.attn.hook_{hook}") for hook in heads)
    assert not any(is_of_heads(f"blocks.0.hook_{hook}") for hook in ("attn_in", "vectors", "zeros", "resid_mid"))
    assert not is_of_heads("")


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        ({}, {}),
        ({"layer": 3}, {}),
        ({"hook_name": "mlp_out"}, {}),  # of which block is not said
        ({"layer": "3", "hook_name": "mlp_out"}, {}),
        ({"layer": 3, "hook_name": ["mlp_out"], "model_name": 7}, {}),
        ({"layer": 0, "hook_name": "mlp_out"}, {"hook_name": "blocks.0.hook_mlp_out"}),
        ({"layer": 3, "hook_name": "final_norm"}, {"hook_name": "ln_final.hook_normalized"}),
        ({"layer": 2, "hook_name": "blocks.2.hook_mlp_in"}, {"hook_name": "blocks.2.hook_mlp_in"}),
        ({"layer": True, "hook_name": "mlp_out"}, {}),
        ({"prepend_bos": False, "context_size": None, "layer": 3}, {"prepend_bos": False}),
    ],
)
def test_only_what_others_can_read_is_told_them(metadata: dict[str, Any], names: dict[str, Any]) -> None:
    assert shared_names(metadata) == names


@pytest.mark.parametrize(
    ("told", "here", "agrees"),
    [
        ({"layer": 8}, ("gpt2", 8, "mlp_out"), True),
        ({"layer": 8}, ("gpt2", 7, "mlp_out"), False),
        ({"layer": 0}, ("gpt2", 1, "mlp_out"), False),
        ({"hook_name": "mlp_out"}, ("gpt2", 7, "mlp_out"), True),
        ({"hook_name": "mlp_out"}, ("gpt2", 7, "attn_out"), False),
        ({"layer": 3, "hook_name": "final_norm"}, ("gpt2", 11, "final_norm"), True),
        ({"layer": 3, "hook_name": "final_norm"}, ("gpt2", 3, "resid_post"), False),
        ({"layer": 3, "hook_name": "resid_post"}, ("gpt2", 11, "final_norm"), False),
        ({"layer": 3, "hook_name": "resid_post"}, ("gpt2", 4, "resid_pre"), True),
        ({"layer": 4, "hook_name": "resid_pre"}, ("gpt2", 3, "resid_post"), True),
        ({"layer": 4, "hook_name": "resid_post"}, ("gpt2", 3, "resid_pre"), False),
        ({"layer": 3, "hook_name": "resid_post", "model_name": "x"}, ("gpt2", 4, "resid_pre"), False),
        ({"layer": "3", "hook_name": "resid_post"}, ("gpt2", 4, "resid_pre"), False),
        ({"model_name": "gpt2"}, ("openai-community/gpt2", 0, "mlp_out"), True),
        ({"model_name": 7}, ("7", 0, "mlp_out"), True),
    ],
)
def test_what_an_sae_does_not_say_agrees(told: dict[str, Any], here: tuple[str, int, str], agrees: bool) -> None:
    sae = an_sae(metadata=told)
    words = f"this SAE was trained on {trained_on(sae)}, the explorer reads {here[0]} {here[2]} {here[1]}"
    assert mismatch(sae, *here) == (None if agrees else words)


def test_the_first_and_the_last_block_are_places() -> None:
    for layer in (0, 5):
        assert place_for(an_sae(metadata={"layer": layer}), 6, 2, "mlp_out") == (layer, "mlp_out")
    assert place_for(an_sae(metadata={"layer": 5, "hook_name": "final_norm"}), 5, 2, "mlp_out") == (2, "final_norm")


@pytest.mark.parametrize(
    ("told", "length", "words"),
    [
        ({"seqpos_slice": (4,), "context_size": 8}, 4, ""),
        ({"seqpos_slice": (4,), "context_size": 8}, 5, "positions 0 to 3 of a window"),
        ({"seqpos_slice": [0, 9, 2], "context_size": 8}, 3, "positions 0 to 6 of a window"),
        ({"seqpos_slice": [-3, None], "context_size": 8}, 9, "positions 5 to 7 of a window"),
        ({"seqpos_slice": [1, 8], "context_size": 8}, 8, ""),  # nothing is made of position 0
        ({"seqpos_slice": [True, 2], "context_size": 8}, 8, ""),  # not clearly said
        ({"seqpos_slice": "ab", "context_size": 8}, 8, ""),
        ({"context_size": True}, 9, ""),
        ({"context_size": 2**70}, 9, ""),
        ({"context_size": 2**70, "seqpos_slice": [0, 4]}, 9, "positions 0 to 3 of a window"),
        ({"context_size": 1}, 1, ""),
        ({"context_size": 1}, 0, ""),
    ],
)
def test_positions_that_were_not_trained_on(told: dict[str, Any], length: int, words: str) -> None:
    found = reading_notes(an_sae(metadata=told), prepend_bos=False, length=length)
    assert words in found and bool(words) == bool(found)


def test_two_differences_are_two_sentences() -> None:
    sae = an_sae(metadata={"prepend_bos": True, "context_size": 8})
    assert reading_notes(sae, prepend_bos=False, length=9) == (
        "It was trained with a start token in front. "
        "It was trained on positions 0 to 7 of a window; this text has others."
    )


def test_names_of_places() -> None:
    assert our_site("blocks.11.hook_resid_post") == {"layer": 11, "hook_name": "resid_post"}
    assert our_site("ln_final.hook_normalized") == {"hook_name": "final_norm"}
    for hook in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"):
        names = shared_names({"layer": 3, "hook_name": hook, "model_name": "gpt2"})
        assert names == {"model_name": "gpt2", "hook_name": f"blocks.3.hook_{hook}"}
        assert our_site(names["hook_name"]) == {"layer": 3, "hook_name": hook}
    kept = {"prepend_bos": True, "context_size": 128, "training_tokens": 5, "hook_name": "hook_embed"}
    assert shared_names(kept) == {"prepend_bos": True, "context_size": 128, "hook_name": "hook_embed"}
    for hook in ("blocks.3.attn.hook_z", "hook_embed", "blocks.3.hook_mlp_in", "blocks.99999.hook_mlp_out", ""):
        assert our_site(hook) == {}
    assert [is_of_heads(f"blocks.3.attn.hook_{hook}") for hook in ("z", "q", "pattern")] == [True] * 3
    assert not any(is_of_heads(f"blocks.3.hook_{hook}") for hook in ("resid_pre", "mlp_out", "attn_out"))
    assert our_model_name("gpt2-small") == "gpt2" and our_model_name("my/model") == "my/model"


def test_a_mismatch_names_both() -> None:
    sae = an_sae(metadata={"model_name": "gpt2-small", "layer": 8, "hook_name": "resid_pre"})
    assert mismatch(sae, "gpt2", 8, "resid_pre") is None and mismatch(an_sae(), "gpt2", 8, "resid_pre") is None
    words = "this SAE was trained on gpt2-small resid_pre 8, the explorer reads gpt2 resid_pre 7"
    assert mismatch(sae, "gpt2", 7, "resid_pre") == words
    assert mismatch(sae, "distilgpt2", 8, "resid_pre") is not None and mismatch(sae, "gpt2", 8, "mlp_out") is not None
    only = an_sae(metadata={"model_name": "gpt2"})
    assert mismatch(only, "gpt2", 8, "resid_pre") is None
    assert (
        mismatch(only, "bundled", 8, "resid_pre")
        == "this SAE was trained on gpt2, the explorer reads bundled resid_pre 8"
    )
    last = an_sae(metadata={"model_name": "gpt2", "hook_name": "final_norm"})
    assert mismatch(last, "gpt2", 11, "final_norm") is None
    assert "trained on gpt2 final_norm, the" in str(mismatch(last, "gpt2", 11, "mlp_out"))


@pytest.mark.parametrize(
    ("told", "place"),
    [
        ({}, (1, "resid_pre")),
        ({"layer": 3, "hook_name": "mlp_out"}, (3, "mlp_out")),
        ({"hook_name": "final_norm"}, (1, "final_norm")),
        ({"layer": 6}, (1, "resid_pre")),  # of 0 to 5
        ({"layer": -1}, (1, "resid_pre")),
        ({"layer": True}, (1, "resid_pre")),
        ({"layer": "3", "hook_name": ["mlp_out"]}, (1, "resid_pre")),
        ({"layer": 2, "hook_name": "blocks.2.hook_mlp_in"}, (2, "resid_pre")),
    ],
)
def test_where_to_read_for_an_sae(told: dict[str, Any], place: tuple[int, str]) -> None:
    assert place_for(an_sae(metadata=told), 6, 1, "resid_pre") == place


@pytest.mark.parametrize(
    ("told", "length", "words"),
    [
        ({}, 1000, ""),
        ({"prepend_bos": True}, 9, ""),
        ({"prepend_bos": False}, 9, "It was trained without a start token in front."),
        ({"prepend_bos": "no"}, 9, ""),
        ({"context_size": 9}, 9, ""),
        ({"context_size": 8}, 9, "It was trained on positions 0 to 7 of a window; this text has others."),
        ({"context_size": 0}, 9, ""),
        ({"seqpos_slice": [None]}, 9, ""),
        ({"seqpos_slice": [1, None]}, 9, ""),  # position 0 counts nowhere
        ({"seqpos_slice": [2, -1], "context_size": 128}, 2, "It was trained on positions 2 to 126 of a window; this"),
        ({"seqpos_slice": [0, None, 0]}, 9, ""),
        ({"seqpos_slice": [0, 1, 2, 3]}, 9, ""),
        ({"seqpos_slice": ["a"]}, 9, ""),
        ({"seqpos_slice": [5, 5]}, 9, ""),
    ],
)
def test_what_a_reading_does_otherwise_is_said(told: dict[str, Any], length: int, words: str) -> None:
    found = reading_notes(an_sae(metadata=told), prepend_bos=True, length=length)
    assert found.startswith(words) and bool(found) == bool(words)


def test_names_out_of_a_file_stay_short_and_on_one_line() -> None:
    assert trained_on(an_sae(metadata={"model_name": "a\n" + "b" * 10_000, "layer": 3})) == "a?" + "b" * 198 + " 3"
    assert trained_on(an_sae()) == ""
