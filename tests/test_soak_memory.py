"""T20 and F13 at their size: the tutorial on a machine with 2 GB, and the memory rule against fresh processes.

``SAE_WIDGET_CGROUP`` names a memory group (v1 or v2) that this user may write to: then the kernel truly has no more
than 2 GB. Without it ``MEM_LIMIT`` is set as Binder sets it, and what was taken is measured.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sae_widget.config import ARCHITECTURES
from sae_widget.memory import FIXED_BYTES, needed_memory
from tests.real_size import random_gpt2
from tests.test_memory import taken

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform != "linux", reason="peaks of other processes are read from /proc"),
]
LIMIT = 2 * 2**30
MOST, MOST_GPT2 = 1.6e9, 1.8e9
NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "00_quickstart.ipynb"
WIDE = """
explorer.state.settings = explorer.state.settings.changed(d_sae=131_072, batch_size=8192)
explorer.train(blocking=True)
print(explorer.status)
"""


def peak(pid: int) -> int:
    """Most bytes that a process and those that it started had in memory, each at its own worst moment."""
    total = 0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
        total += int(status.split("VmHWM:")[1].split()[0]) * 1024
    return total


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path | None]:
    """A group with the limit below the one that was named, or None."""
    if not os.environ.get("SAE_WIDGET_CGROUP"):
        yield None
        return
    folder = Path(os.environ["SAE_WIDGET_CGROUP"]) / f"sae_widget-{os.getpid()}"
    folder.mkdir()
    limit = next(name for name in ("memory.max", "memory.limit_in_bytes") if (folder / name).exists())
    (folder / limit).write_text(str(LIMIT), encoding="ascii")
    yield folder
    folder.rmdir()


@pytest.fixture
def kernel(group: Path | None, sae_widget_home: Path) -> Iterator[Any]:
    """A kernel as Binder starts it: its limit in the environment, and enforced where that can be done."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager()
    manager.start_kernel(env=os.environ | {"MEM_LIMIT": str(LIMIT)}, cwd=str(NOTEBOOK.parent))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        if group is not None:
            (group / "cgroup.procs").write_text(str(manager.provisioner.pid), encoding="ascii")
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run(client: Any, code: str) -> str:
    """What a cell prints; it ends well."""
    printed: list[str] = []

    def hook(message: Any) -> None:
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    reply = client.execute_interactive(code, timeout=600, output_hook=hook, stdin_hook=None)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(printed)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("model", "most"), [("bundled", MOST), ("GPT-2", MOST_GPT2)])
def test_the_tutorial_in_two_gigabytes(
    model: str, most: float, kernel: Any, sae_widget_home: Path, tmp_path: Path
) -> None:
    from tests.browser.server import LabServer

    if model == "GPT-2":  # its size and its vocabulary; the weights are random
        for part in random_gpt2():
            part.save_pretrained(tmp_path)
        model = str(tmp_path)
    manager, client = kernel
    server = LabServer()
    try:
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                run(client, "".join(cell["source"]).replace('"bundled"', repr(model)))
        told = run(client, WIDE)
        assert "width 131,072 needs about" in told and "largest that fits" in told
        kernel_peak, server_peak = peak(manager.provisioner.pid), peak(server.process.pid)
    finally:
        server.close()
    print(f"kernel {kernel_peak / 1e6:,.0f} MB, server {server_peak / 1e6:,.0f} MB")
    assert kernel_peak + server_peak < most


K = 16
CASES = [
    (768, 3072, 1024),
    (768, 6144, 1024),
    (768, 12_288, 256),
    (768, 24_576, 1024),
    (768, 4096, 4096),
    (192, 16_384, 1024),
    (128, 32_768, 512),
    (32, 512, 65_536),
]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_rule_is_never_below_nor_half_above(architecture: str) -> None:
    rows, wrong = [], []
    for d_in, d_sae, batch in CASES:
        rule = needed_memory(d_in, d_sae, batch, architecture, K)
        if rule > 0.7 * psutil.virtual_memory().available:
            continue
        found = taken(d_in, d_sae, batch, architecture, K)
        rows.append(f"| {d_in} | {d_sae:,} | {batch:,} | {found / 1e6:,.0f} MB | {rule / 1e6:,.0f} MB |")
        if found > rule or rule - FIXED_BYTES > 1.5 * found:
            wrong.append(rows[-1])
    print(f"| d_in | width | batch | {architecture} took | rule |", "|---|---|---|---|---|", *rows, sep="\n")
    assert rows and not wrong
