"""The fixture that every test stands on (T27) sees each global that it looks after."""

import os
import signal
import warnings

import pytest
import torch

from tests.conftest import _difference, _globals

CHANGES = {
    "working directory": (lambda: os.chdir("/"), lambda before: os.chdir(before)),
    "environment": (lambda: os.environ.update(A_LEFT_OVER="1"), lambda _before: os.environ.pop("A_LEFT_OVER")),
    "warning filters": (
        lambda: warnings.filters.insert(0, ("ignore", None, Warning, None, 0)),
        lambda _before: warnings.filters.pop(0),
    ),
    "signal handlers": (
        lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        lambda before: signal.signal(signal.SIGINT, before[0]),
    ),
    "torch random state": (lambda: torch.rand(1), lambda _before: None),  # put back by fork_rng
    "torch grad mode": (lambda: torch.set_grad_enabled(False), lambda _before: torch.set_grad_enabled(True)),
    "torch default dtype": (lambda: torch.set_default_dtype(torch.float64), torch.set_default_dtype),
    "torch threads": (lambda: torch.set_num_threads(torch.get_num_threads() + 1), torch.set_num_threads),
    "torch deterministic algorithms": (
        lambda: torch.use_deterministic_algorithms(True),
        torch.use_deterministic_algorithms,
    ),
}


def test_every_global_has_its_case():
    assert CHANGES.keys() == _globals().keys()


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_changed_global_is_seen(name):
    change, put_back = CHANGES[name]
    with torch.random.fork_rng():
        before = _globals()
        change()
        after = _globals()
        put_back(before[name])
    assert [key for key in before if before[key] != after[key]] == [name]
    assert _difference(before[name], after[name])
