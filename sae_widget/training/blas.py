"""The five products of a small step, by torch's library or by numpy's, where that was measured to be faster.

torch's keeps to AVX2 on processors that are not Intel's; numpy's takes whatever vector instructions there are. Where
large products would take threads of numpy's, which wait for torch's, they are cut: each part is done by the caller.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sae_widget.threads import using
from sae_widget.training.base import Flat
from sae_widget.training.faster import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable

ALONE = 250_000  # multiplications of a product: numpy's is then done in the calling thread
LARGEST = 2**22  # multiplications: with more, torch takes several threads where they are faster
FASTER = 1.3  # so much faster numpy must be: with vectors of one width it was up to 1.16, now and then


class Buffers(NamedTuple):
    """What the products of a batch read and write: float32 on the CPU, contiguous."""

    u: torch.Tensor  # [n, d_in], what is encoded, unless something else is given
    pre: torch.Tensor  # [n, d_sae]
    acts: torch.Tensor  # [n, d_sae]
    error: torch.Tensor  # [n, d_in]
    grad_pre: torch.Tensor  # [n, d_sae]


class Products(NamedTuple):
    """The products of a step, in its order."""

    encode: Callable[[torch.Tensor], object]  # u -> pre = u @ W_enc + b_enc
    decode: Callable[[], object]  # error = acts @ W_dec
    to_decoder: Callable[[], object]  # grads.W_dec = acts.T @ error
    back: Callable[[], object]  # grad_pre = error @ W_dec.T
    to_encoder: Callable[[torch.Tensor], object]  # u -> grads.W_enc = grad_pre.T @ u


def by_torch(of: Buffers, params: Flat, grads: Flat) -> Products:
    """The products through torch."""
    addmm, b_enc, encoder, pre = torch.addmm, params.b_enc, params.W_enc.t(), of.pre

    def encode(u: torch.Tensor) -> None:
        addmm(b_enc, u, encoder, out=pre)

    return Products(
        encode,
        partial(torch.mm, of.acts, params.W_dec, out=of.error),
        partial(torch.mm, of.acts.t(), of.error, out=grads.W_dec),
        partial(torch.mm, of.error, params.W_dec.t(), out=of.grad_pre),
        partial(torch.mm, of.grad_pre.t(), out=grads.W_enc),
    )


def by_numpy(of: Buffers, params: Flat, grads: Flat) -> Products | None:
    """The products through numpy; None where they cannot be cut into equal parts."""
    (n, d_sae), d_in = of.acts.shape, of.error.shape[1]
    rows, features = _parts(n, d_in * d_sae), _parts(d_sae, n * d_in)
    if not rows or not features:
        return None
    target, pre, acts, error, grad_pre = (buffer.numpy() for buffer in of)
    b_enc, W_enc_t, W_dec = params.b_enc.numpy(), params.W_enc.numpy().T, params.W_dec.numpy()
    encoder, decoder_t = np.empty((2, d_in, d_sae), np.float32)  # a factor that lies transposed takes twice the time
    each, of_each = n // rows, d_sae // features
    pre_parts, acts_parts, grad_parts = (wide.reshape(rows, each, d_sae) for wide in (pre, acts, grad_pre))
    u_parts, error_parts = (narrow.reshape(rows, each, d_in) for narrow in (target, error))
    acts_t, grad_t = (wide.T.reshape(features, of_each, n) for wide in (acts, grad_pre))
    to_W_dec, to_W_enc = (flat.numpy().reshape(features, of_each, d_in) for flat in (grads.W_dec, grads.W_enc))
    matmul, copyto, add, usual = np.matmul, np.copyto, np.add, of.u

    def encode(u: torch.Tensor) -> None:
        copyto(encoder, W_enc_t)
        matmul(u_parts if u is usual else u.numpy().reshape(rows, each, d_in), encoder, out=pre_parts)
        add(pre, b_enc, pre)

    def back() -> None:
        copyto(decoder_t, W_dec.T)
        matmul(error_parts, decoder_t, out=grad_parts)

    def to_encoder(u: torch.Tensor) -> None:
        matmul(grad_t, target if u is usual else u.numpy(), out=to_W_enc)

    return Products(
        encode,
        partial(matmul, acts_parts, W_dec, out=error_parts),
        partial(matmul, acts_t, error, out=to_W_dec),
        back,
        to_encoder,
    )


def _parts(length: int, each: int) -> int:
    """Into how many equal parts ``length`` rows of ``each`` multiplications are cut; 0 if that would be too many."""
    least = max(1, -(-length * each // ALONE))
    return next((parts for parts in range(least, 2 * least + 1) if length % parts == 0), 0)


@lru_cache(maxsize=32)
def numpy_is_faster(n: int, d_in: int, d_sae: int) -> bool:
    """Whether numpy does the products of such a step faster than torch in one thread, measured once (1 ms)."""
    if n * d_in * d_sae > LARGEST:
        return False
    narrow, wide = torch.ones(2, n, d_in, dtype=torch.float32), torch.ones(3, n, d_sae, dtype=torch.float32)
    of, flats = Buffers(narrow[0], wide[0], wide[1], narrow[1], wide[2]), (Flat(d_in, d_sae), Flat(d_in, d_sae))
    by = by_numpy(of, *flats)
    if by is None:
        return False
    with using(1):
        in_torch, in_numpy = seconds_of(partial(_all, by_torch(of, *flats), of.u), partial(_all, by, of.u))
    return in_torch > FASTER * in_numpy


def _all(products: Products, u: torch.Tensor) -> None:
    products.encode(u)
    products.decode()
    products.to_decoder()
    products.back()
    products.to_encoder(u)
