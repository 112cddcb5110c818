"""What a language model still predicts when an SAE's output takes the place of its activations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sae_widget.activations.splice import head, normed_after, resid_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sae_widget.activations.base import Activations, LanguageModel
    from sae_widget.sae.base import SAE

LOGITS = 8_000_000
"""Next-token logits computed at a time (32 MB of float32); there are four or five such arrays."""
RUNS = ("clean", "sae", "zero", "mean")


@dataclass(frozen=True)
class Fidelity:
    """Cross-entropy of the next token with the SAE spliced in, beside the clean and the ablated runs.

    Cross-entropies and KL are means over ``n_tokens`` predictions, in nats. ``recovered = (ce_ablated - ce_sae) /
    (ce_ablated - ce_clean)``: 1 as good as the clean model, 0 as bad as without the activations. It flatters: the
    ablated model is very bad, above all with zeros, so look at ``ce_sae - ce_clean`` and ``kl`` too.
    """

    ce_clean: float
    """Of the model as it is."""
    ce_sae: float
    """With ``sae_out`` in place of the activations."""
    ce_zero: float
    """With zeros in their place."""
    ce_mean: float
    """With their mean in their place."""
    recovered_zero: float
    """Share of the loss between zeros and the clean run that the SAE keeps; ``nan`` where the two are equal."""
    recovered_mean: float
    """The same between the mean and the clean run."""
    kl: float
    """KL(clean || sae) of the next-token distributions."""
    n_tokens: int
    """Predictions that were looked at."""

    def __str__(self) -> str:
        shares = f"{self.recovered_zero:.3f} of the loss recovered ({self.recovered_mean:.3f} against the mean)"
        losses = f"cross-entropy {self.ce_sae:.3f}, clean {self.ce_clean:.3f}"
        return f"{shares}, {losses}, KL {self.kl:.3f} over {self.n_tokens:,} tokens"


def measure_fidelity(
    sae: SAE,
    model: LanguageModel,
    activations: Activations,
    *,
    keep_first: bool = True,
    max_tokens: int | None = None,
    batch_tokens: int = 2048,
) -> Fidelity:
    """Put an SAE into a language model at its place and measure what that does to the predictions.

    Cross-entropy recovered and KL are those of SAELens' and SAEBench's evaluations; the baselines replace the same
    tokens, by zeros or by the mean of ``activations`` over those tokens. Memory does not grow with the text.

    Args:
        sae: of this place.
        model: the model that gave the activations.
        activations: of the texts to measure on, which say the place as well; best not those of the training.
        keep_first: leave position 0 of each window as the model has it, in all runs; its prediction is not counted.
        max_tokens: look at the first windows up to so many tokens; None: at all.
        batch_tokens: tokens that are run at once, at least one window.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: activations of another model, an SAE of another width, or no window with a token to predict.
    """
    if activations.model_name != model.name or activations.d_in != model.d_in:
        raise ValueError(f"activations are of {activations.model_name!r}, but the model is {model.name!r}")
    sae.check_input(activations.values, activations.position)
    for name, given in (("batch_tokens", batch_tokens), ("max_tokens", 1 if max_tokens is None else max_tokens)):
        if given < 1:
            raise ValueError(f"{name} must be at least 1, got {given:,}")
    windows = _windows(activations, max_tokens, 2 + keep_first)
    if not windows:
        raise ValueError("no window has a token to predict behind the first ones; give a longer text")
    kept = activations.position > 0 if keep_first else torch.ones_like(activations.position, dtype=torch.bool)
    edits = _edits(sae, activations.values[kept].mean(0), keep_first)
    totals, count = dict.fromkeys((*RUNS, "kl"), 0.0), 0
    with torch.no_grad():
        for ids in _batches(windows, batch_tokens):
            count += _add_batch(totals, model, ids.to(model.device), activations, edits, int(keep_first))
    ce = {run: totals[run] / count for run in RUNS}
    return Fidelity(
        ce_clean=ce["clean"],
        ce_sae=ce["sae"],
        ce_zero=ce["zero"],
        ce_mean=ce["mean"],
        recovered_zero=_recovered(ce["zero"], ce["sae"], ce["clean"]),
        recovered_mean=_recovered(ce["mean"], ce["sae"], ce["clean"]),
        kl=totals["kl"] / count,
        n_tokens=count,
    )


def _recovered(ablated: float, spliced: float, clean: float) -> float:
    lost = ablated - clean
    return (ablated - spliced) / lost if abs(lost) > 1e-9 else math.nan


def _edits(sae: SAE, mean: torch.Tensor, keep_first: bool) -> dict[str, Callable[[torch.Tensor], torch.Tensor] | None]:
    """What each run puts in the place of ``[batch, pos, d_in]``."""

    def behind_first(replace: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def edit(values: torch.Tensor) -> torch.Tensor:
            new = replace(values).to(values)
            if keep_first:
                new[:, 0] = values[:, 0]
            return new

        return edit

    def reconstruct(values: torch.Tensor) -> torch.Tensor:
        rows = values.reshape(-1, values.shape[-1]).to(sae.W_enc)
        return sae(rows).view(values.shape)

    return {
        "clean": None,
        "sae": behind_first(reconstruct),
        "zero": behind_first(torch.zeros_like),
        "mean": behind_first(lambda values: mean.to(values).expand_as(values).clone()),
    }


def _windows(activations: Activations, max_tokens: int | None, least: int) -> list[torch.Tensor]:
    """Token ids of each window of at least ``least`` tokens; the last is cut at ``max_tokens``."""
    ids = activations.token_ids[:max_tokens]
    starts = (activations.position[: len(ids)] == 0).nonzero()[:, 0].tolist()
    parts = [ids[start:end] for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)]
    return [part for part in parts if len(part) >= least]


def _batches(windows: list[torch.Tensor], batch_tokens: int) -> Iterator[torch.Tensor]:
    """Windows of one length together, never padded. ``[batch, pos]``."""
    by_length: dict[int, list[torch.Tensor]] = {}
    for window in windows:
        by_length.setdefault(len(window), []).append(window)
    for length, group in by_length.items():
        size = max(1, batch_tokens // length)
        for at in range(0, len(group), size):
            yield torch.stack(group[at : at + size])


def _add_batch(
    totals: dict[str, float],
    model: LanguageModel,
    ids: torch.Tensor,
    place: Activations,
    edits: dict[str, Callable[[torch.Tensor], torch.Tensor] | None],
    first: int,
) -> int:
    """Run windows ``[batch, pos]`` once to the place and from there once for each edit; predictions counted."""
    resid = resid_before(model, ids, place.layer, place.hook_name)
    normed = {
        run: normed_after(model, resid, place.layer, place.hook_name, edit)[:, first:-1].reshape(-1, model.d_in)
        for run, edit in edits.items()
    }
    targets = ids[:, first + 1 :].reshape(-1)
    _add(totals, model, normed, targets)
    return len(targets)


def _add(
    totals: dict[str, float], model: LanguageModel, normed: dict[str, torch.Tensor], targets: torch.Tensor
) -> None:
    """Add the cross-entropies and the KL of these predictions, a few at a time: a vocabulary is wide."""
    for rows in torch.arange(len(targets), device=targets.device).split(max(1, LOGITS // model.vocab_size)):
        clean = torch.log_softmax(head(model, normed["clean"][rows]).float(), dim=1)  # [rows, vocab_size]
        for run in RUNS:
            log_p = clean if run == "clean" else torch.log_softmax(head(model, normed[run][rows]).float(), dim=1)
            totals[run] -= float(log_p.gather(1, targets[rows, None]).double().sum())
            if run == "sae":
                totals["kl"] += float((clean.exp() * (clean - log_p)).sum(1).double().sum())
