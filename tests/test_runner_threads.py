"""The worker leaves one core free and changes the number of threads for nobody else."""

import threading

import pytest
import torch

from sae_widget.runner.threads import cores, leave_one_core


def in_a_thread(*calls):
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(call() for call in calls))
    thread.start()
    thread.join()
    return seen


def test_only_the_calling_thread_is_changed(monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setattr("sae_widget.runner.threads.cores", lambda: 3)
        _, inside = in_a_thread(leave_one_core, torch.get_num_threads)
        assert inside == 2
        assert torch.get_num_threads() == 3
        assert in_a_thread(torch.get_num_threads) == [3]
    finally:
        torch.set_num_threads(before)


def test_one_core_is_one_thread(monkeypatch):
    monkeypatch.setattr("sae_widget.runner.threads.cores", lambda: 1)
    assert in_a_thread(leave_one_core, torch.get_num_threads)[1] == 1


@pytest.mark.parametrize(
    ("text", "limit"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("rubbish", None), ("", None)]
)
def test_the_quota_of_a_container_counts(tmp_path, text, limit):
    unlimited = cores(tmp_path / "missing")
    (tmp_path / "cpu.max").write_text(text)
    assert cores(tmp_path / "cpu.max") == (limit or unlimited)
