"""Memory is predicted before it is taken, and limits of containers are seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sae_widget.memory import FIXED_BYTES, check_buffer, check_memory, corpus_fits, free_memory, needed_memory

GB = 10**9
NOWHERE = Path("/nowhere")


def v2(folder: Path, limit: str, used: int, cache: int = 0) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\n")
    return folder


def v1(folder: Path, limit: int, used: int, cache: int = 0) -> Path:
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"total_inactive_file {cache}\n")
    return folder


@pytest.fixture(autouse=True)
def a_machine_with_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Much:
        available = 24 * GB

    monkeypatch.setattr(psutil, "virtual_memory", Much)


def test_message_names_the_largest_that_fits() -> None:
    with pytest.raises(
        ValueError,
        match=r"^width 24,576 needs about 1\.1 GB, 0\.8 GB free; largest that fits: 17,989$",
    ):
        check_memory(768, 24_576, 1024, "topk", 32, free=800_000_000)
    check_memory(768, 17_989, 1024, "topk", 32, free=800_000_000)  # 40 x 768 + 8 x 1024 bytes a feature
    with pytest.raises(ValueError, match="width 17,990 needs"):
        check_memory(768, 17_990, 1024, "topk", 32, free=800_000_000)
    for k in (0, 24_576):  # not known, and over whole matrices: 40 x 768 + 16 x 1024
        with pytest.raises(ValueError, match=r"largest that fits: 14,860$"):
            check_memory(768, 24_576, 1024, "topk", k, free=800_000_000)
    with pytest.raises(ValueError, match=r"largest that fits: 13,146$"):  # 40 x 768 + 22 x 1024
        check_memory(768, 24_576, 1024, free=800_000_000)


@pytest.mark.parametrize(
    ("d_in", "d_sae", "batch", "k", "free"), [(32, 512, 65_536, 16, 300_000_000), (768, 2048, 16_384, 256, 300_000_000)]
)
def test_the_largest_that_is_named_fits_where_it_goes_another_way(
    d_in: int, d_sae: int, batch: int, k: int, free: int
) -> None:
    with pytest.raises(ValueError, match="largest that fits") as told:
        check_memory(d_in, d_sae, batch, "topk", k, free=free)
    largest = int(str(told.value).rpartition(" ")[2].replace(",", ""))
    check_memory(d_in, largest, batch, "topk", k, free=free)
    with pytest.raises(ValueError, match="largest that fits"):
        check_memory(d_in, largest + 1, batch, "topk", k, free=free)


def test_message_when_nothing_fits() -> None:
    with pytest.raises(ValueError, match=r"0\.1 GB free; no width fits with this batch size$"):
        check_memory(768, 16, 14, free=60_000_000)


def test_a_corpus_counts_twice_while_its_pieces_become_one() -> None:
    assert corpus_fits(768, 130_208, free=800_000_000)  # 768 x 8 bytes a token
    assert not corpus_fits(768, 130_209, free=800_000_000)


def test_a_buffer_counts_its_rows_and_a_block() -> None:
    check_buffer(768, 173_611, free=800_000_000)  # 768 x 6 bytes a row
    with pytest.raises(ValueError, match=r"^173,612 tokens .* 0\.8 GB free, enough for 173,611\. .*smaller buffer_tok"):
        check_buffer(768, 173_612, free=800_000_000)


def test_machine_alone() -> None:
    assert free_memory(NOWHERE, NOWHERE, {}) == int(24 * GB * 0.85)


def test_container_v2(tmp_path: Path) -> None:
    assert free_memory(v2(tmp_path, str(2 * GB), GB // 2), NOWHERE, {}) == int(1.5 * GB * 0.85)


def test_file_cache_can_be_had_back(tmp_path: Path) -> None:
    assert free_memory(v2(tmp_path, str(2 * GB), GB, cache=GB // 2), NOWHERE, {}) == int(1.5 * GB * 0.85)


def test_container_v1(tmp_path: Path) -> None:
    assert free_memory(NOWHERE, v1(tmp_path, 3 * GB, GB, cache=GB // 4), {}) == int(2.25 * GB * 0.85)


@pytest.mark.parametrize("limit", ["max", "", "many", str(2**63 - 4096)])
def test_no_limit(tmp_path: Path, limit: str) -> None:
    assert free_memory(v2(tmp_path, limit, GB), NOWHERE, {}) == int(24 * GB * 0.85)


def test_least_of_all_counts(tmp_path: Path) -> None:
    (tmp_path / "2").mkdir(), (tmp_path / "1").mkdir()
    folders = v2(tmp_path / "2", str(4 * GB), GB), v1(tmp_path / "1", 3 * GB, GB)
    assert free_memory(*folders, {}) == int(2 * GB * 0.85)
    own = psutil.Process().memory_info().rss
    left = free_memory(*folders, {"MEM_LIMIT": str(own + GB)})
    assert left == pytest.approx(GB * 0.85, rel=0.05)


@pytest.mark.parametrize("limit", ["", "0", "-1", "2G", "none"])
def test_mem_limit_that_is_no_number_is_ignored(limit: str) -> None:
    assert free_memory(NOWHERE, NOWHERE, {"MEM_LIMIT": limit}) == int(24 * GB * 0.85)


def test_over_full_container_has_nothing_left(tmp_path: Path) -> None:
    assert free_memory(v2(tmp_path, str(GB), 2 * GB), NOWHERE, {}) == 0


PEAK = """
import resource, sys
from pathlib import Path
import torch
from sae_widget.config import TrainConfig
from sae_widget.training import Trainer

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands ru_maxrss on from the parent
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

d_in, d_sae, batch = map(int, sys.argv[1:4])
values = torch.randn(2 * batch, d_in)
before = peak()
config = TrainConfig(architecture=sys.argv[4], d_sae=d_sae, k=int(sys.argv[5]), steps=3, batch_size=batch)
trainer = Trainer(values, torch.ones(len(values), dtype=torch.long), config)
list(trainer.run())
trainer.sae()
print(peak() - before)
"""


def taken(d_in: int, d_sae: int, batch: int, architecture: str = "topk", k: int = 16) -> int:
    """Bytes that training added to a fresh process at its worst moment."""
    command = [sys.executable, "-c", PEAK, str(d_in), str(d_sae), str(batch), architecture, str(k)]
    return int(subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout)


@pytest.mark.parametrize(
    ("d_in", "d_sae", "batch", "k"),
    [(192, 2048, 256, 16), (256, 12_288, 512, 16), (32, 512, 65_536, 64), (64, 1024, 16_384, 128)],
)
def test_prediction_is_never_below_what_is_taken(d_in: int, d_sae: int, batch: int, k: int) -> None:
    # Nor above by more than half, save for the fixed part.
    found, predicted = taken(d_in, d_sae, batch, "topk", k), needed_memory(d_in, d_sae, batch, "topk", k)
    assert found <= predicted
    assert predicted - FIXED_BYTES <= 1.5 * found
