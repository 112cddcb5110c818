"""How many cores the worker may use: all but one, which is left to the page and the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from sae_widget.threads import give

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def cores(cpu_max: Path = CPU_MAX) -> int:
    """Cores that this process may use: what the system says, and no more than the container's quota.

    Args:
        cpu_max: cgroup v2's file with quota and period in microseconds, or the word ``max``.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()[:2]
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no cgroup v2 here: nothing limits the count
    return count


def leave_one_core() -> None:
    """Give the calling thread, and no other, one torch thread less than there are cores.

    With every core busy two threads of one product wait for each other: training beside another process
    was seen to be tens of times slower with two threads than with one.
    """
    give(max(1, min(torch.get_num_threads(), cores() - 1)))
