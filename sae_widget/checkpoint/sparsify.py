"""SAEs of the library sparsify: a folder with ``cfg.json`` and ``sae.safetensors``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sae_widget.checkpoint.base import CONFIG, first_fault, unreadable
from sae_widget.checkpoint.config import MAX_CONFIG_BYTES, read_json
from sae_widget.checkpoint.tensors import read_tensors
from sae_widget.sae import TopKSAE

if TYPE_CHECKING:
    from pathlib import Path

    from sae_widget.sae import SAE

SPARSIFY_WEIGHTS = "sae.safetensors"
_SITES = {"": "resid_post", ".mlp": "mlp_out", ".attn": "attn_out", ".attention": "attn_out", ".self_attn": "attn_out"}


class Coder(BaseModel):
    """What their ``cfg.json`` says; how the SAE was trained is left out."""

    model_config = ConfigDict(strict=True, extra="ignore")

    d_in: int = Field(ge=1, le=1_000_000)
    expansion_factor: int = Field(default=32, ge=0, le=1_000_000)
    num_latents: int = Field(default=0, ge=0, le=10_000_000)
    k: int = Field(default=32, ge=1)
    activation: str = "topk"
    signed: bool = False
    skip_connection: bool = False
    transcode: bool = False


def load_coder(folder: Path) -> SAE:
    """The SAE of a folder of sparsify, a TopK SAE.

    The folder's name says where the SAE reads: ``layers.3`` is the output of block 3, ``h.3.mlp`` that of its MLP.

    Raises:
        SaeFileError: saying which file and what is wrong with it; also for a transcoder or a skip connection.
        OSError: as it comes.
    """
    with (folder / CONFIG).open("rb") as file:
        told = read_json(file.read(MAX_CONFIG_BYTES + 1), CONFIG)
    try:
        coder = Coder.model_validate(told)
    except ValidationError as error:
        raise unreadable(CONFIG, first_fault(error)) from error
    if coder.transcode:
        raise unreadable(CONFIG, "it is a transcoder, which writes at another place than it reads; only SAEs are read")
    if coder.skip_connection:
        raise unreadable(CONFIG, "it has a skip connection, which an SAE does not have")
    if coder.activation != "topk" or coder.signed:
        what = "signed topk" if coder.signed else coder.activation[:40]
        raise unreadable(CONFIG, f"activation {what!r} is not supported, only topk")
    d_in, d_sae = coder.d_in, coder.num_latents or coder.d_in * coder.expansion_factor
    if coder.k > d_sae:
        raise unreadable(CONFIG, f"k must be between 1 and its {d_sae} features, got {coder.k}")
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.weight": (d_sae, d_in),
        "encoder.bias": (d_sae,),
        "W_dec": (d_sae, d_in),
        "b_dec": (d_in,),
    }
    tensors = read_tensors(folder / SPARSIFY_WEIGHTS, shapes)
    return TopKSAE(
        W_enc=tensors["encoder.weight"].t().contiguous(),
        b_enc=tensors["encoder.bias"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        k=coder.k,
        metadata=_metadata(folder.resolve().name),
    )


def _metadata(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"trained_by": "sparsify"}
    place = re.fullmatch(r"(?:.*\.)?(?:layers|h)[._](\d{1,4})(\.\w+)?", name)
    if place and (place[2] or "") in _SITES:
        found |= {"layer": int(place[1]), "hook_name": _SITES[place[2] or ""]}
    return found
