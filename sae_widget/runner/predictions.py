"""What the language model loses when it reads the SAE on show: measured on a few texts, or a sentence why it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sae_widget.checkpoint.sites import mismatch
from sae_widget.fidelity import measure_fidelity

if TYPE_CHECKING:
    from sae_widget.activations.base import Activations, LanguageModel
    from sae_widget.fidelity import Fidelity
    from sae_widget.sae.base import SAE

    Site = tuple[str, int, str]

FIDELITY_TOKENS = 1024
"""Tokens on which the language model's predictions are looked at: a second or so."""
FIDELITY_LOGITS = 25_000_000
"""And at most so many logits, so that a wide vocabulary takes no longer."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What was found for one SAE."""

    sae: SAE
    site: Site
    fidelity: Fidelity | None = None
    why_not: str = ""  # the reason when there is none, as the end of a sentence
    of_prompt: bool = False  # measured on the text of the box


def elsewhere(sae: SAE, site: Site) -> str:
    """Why nothing can be measured of an SAE at this place; empty when it says of no other."""
    found = mismatch(sae, *site)
    return f"{found}, and what a model loses is only defined for an SAE of its own place" if found else ""


def look_at(sae: SAE, site: Site, model: LanguageModel, read: Activations, *, of_prompt: bool = False) -> Predictions:
    """Put an SAE into the language model, on the first of the texts that were read there."""
    some = FIDELITY_LOGITS // model.vocab_size  # a wide vocabulary takes its time
    try:
        found = measure_fidelity(sae, model, read, max_tokens=max(128, min(FIDELITY_TOKENS, some)))
    except ValueError as fault:  # no window has a second token
        return Predictions(sae, site, None, str(fault), of_prompt)
    return Predictions(sae, site, found, "", of_prompt)
