"""How much memory training will take, and how much there is, before any of it is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from sae_widget.ways import over_pairs

KEPT_FREE = 0.15  # of what the limits leave
FIXED_BYTES = 100_000_000  # what torch and the temporaries of a step need besides, measured
WEIGHT_BYTES = 40  # for each of d_in x d_sae: two matrices' weights, gradients, Adam's moments, and a copy to show
BATCH_BYTES = {"topk": 16, "standard": 16}
"""For each of batch x d_sae, measured (``tests/test_soak_memory.py``); ``OTHER_BATCH_BYTES`` for the other kinds."""
OTHER_BATCH_BYTES = 22
PAIRS_BATCH_BYTES = 8  # the same of topk, where its steps go over pairs
CORPUS_BYTES = 8  # for each of n_tokens x d_in: the pieces as they are read, and all of them as one
BUFFER_ROW_BYTES = 6  # for each of the rows held x d_in: float32, and a block as it is read
CGROUP_V2 = Path("/sys/fs/cgroup")
CGROUP_V1 = Path("/sys/fs/cgroup/memory")


def free_memory(v2: Path = CGROUP_V2, v1: Path = CGROUP_V1, environ: dict[str, str] | None = None) -> int:
    """Bytes that this process may still allocate, 15 % of them kept free.

    The least of: the container's limit (cgroup v2, v1) less what is used in it, ``MEM_LIMIT`` (set by
    Binder and JupyterHub) less what this process uses, and what the machine has available. In a
    container the machine's own figure alone would be far too large.

    Args:
        v2: directory with ``memory.max``, ``memory.current`` and ``memory.stat``.
        v1: directory with ``memory.limit_in_bytes``, ``memory.usage_in_bytes`` and ``memory.stat``.
        environ: where ``MEM_LIMIT`` is looked for; the process's environment by default.
    """
    import psutil

    figures = [psutil.virtual_memory().available]
    figures += _left_in_group(v2, "memory.max", "memory.current", "inactive_file")
    figures += _left_in_group(v1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit = (os.environ if environ is None else environ).get("MEM_LIMIT", "")
    if limit.isdecimal() and int(limit) > 0:
        figures.append(int(limit) - psutil.Process().memory_info().rss)
    return max(0, int(min(figures) * (1 - KEPT_FREE)))


def needed_memory(d_in: int, d_sae: int, batch_size: int, architecture: str = "", k: int = 0) -> int:
    """Most bytes that training adds to the process: weights, gradients, Adam, batch buffers.

    The arguments are those of ``check_memory``.
    """
    return FIXED_BYTES + _width_bytes(d_in, d_sae, batch_size, architecture, k) * d_sae


def _width_bytes(d_in: int, d_sae: int, batch_size: int, architecture: str, k: int) -> int:
    """Of each feature."""
    each = BATCH_BYTES.get(architecture, OTHER_BATCH_BYTES)
    if architecture == "topk" and k and over_pairs(batch_size, d_in, d_sae, k):
        each = PAIRS_BATCH_BYTES
    return WEIGHT_BYTES * d_in + each * batch_size


def check_memory(
    d_in: int, d_sae: int, batch_size: int, architecture: str = "", k: int = 0, *, free: int | None = None
) -> None:
    """Raise ``ValueError`` naming the largest width that fits, unless training fits into memory.

    Args:
        d_in: width of the activations.
        d_sae: number of features.
        batch_size: tokens in a step.
        architecture: what is trained; without it the one that takes most counts.
        k: features that fire on a token (topk); 0 is not known, and the way that takes more counts.
        free: bytes that may be used; ``free_memory()`` by default.
    """
    free = free_memory() if free is None else free
    needed = needed_memory(d_in, d_sae, batch_size, architecture, k)
    if needed <= free:
        return
    largest = (free - FIXED_BYTES) // _width_bytes(d_in, d_sae, batch_size, architecture, k)
    if largest >= 1 and needed_memory(d_in, largest, batch_size, architecture, k) > free:  # its steps go another way
        largest = (free - FIXED_BYTES) // _width_bytes(d_in, largest, batch_size, architecture, k)
    fits = f"largest that fits: {largest:,}" if largest >= 1 else "no width fits with this batch size"
    raise ValueError(f"width {d_sae:,} needs about {_gb(needed)}, {_gb(free)} free; {fits}")


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an allocation failed: torch says so by a ``RuntimeError``."""
    return isinstance(fault, MemoryError) or (isinstance(fault, RuntimeError) and "memory" in str(fault).lower())


def corpus_fits(d_in: int, n_tokens: int, free: int) -> bool:
    """Whether the activations of a corpus fit into memory while their pieces become one.

    Args:
        d_in: width of the activations.
        n_tokens: tokens of the corpus.
        free: bytes that could be used before the first of them.
    """
    return CORPUS_BYTES * d_in * n_tokens <= free


def check_buffer(d_in: int, n_rows: int, free: int | None = None) -> None:
    """Raise ``ValueError`` naming how many rows of a streamed corpus can be held at once, unless these can.

    Args:
        d_in: width of the activations.
        n_rows: rows that are to be held.
        free: bytes that may be used; ``free_memory()`` by default.
    """
    free = free_memory() if free is None else free
    if BUFFER_ROW_BYTES * d_in * n_rows > free:
        raise ValueError(
            f"{n_rows:,} tokens of the corpus do not fit into memory at once: {_gb(free)} free, enough for "
            f"{free // (BUFFER_ROW_BYTES * d_in):,}. Nothing was trained; choose a smaller buffer_tokens."
        )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _left_in_group(folder: Path, limit_name: str, used_name: str, cache_name: str) -> list[int]:
    limit, used = _number(folder / limit_name), _number(folder / used_name)
    if limit is None or limit >= 2**60:  # "max", or v1's word for no limit
        return []
    return [max(0, limit - max(0, (used or 0) - _cache(folder / "memory.stat", cache_name)))]


def _cache(path: Path, name: str) -> int:
    """Bytes of file cache, which the kernel gives back when memory is short."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    for line in lines:
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() else None
