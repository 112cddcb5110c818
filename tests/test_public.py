"""What ``import sae_widget`` offers: the names it promises, no others, and each with words."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

import sae_widget


def test_dir_has_the_promised_names_and_no_others():
    code = "import sae_widget; print(*[n for n in dir(sae_widget) if not n.startswith('__')])"
    for more in (
        "",
        "; sae_widget.TopKSAE, sae_widget.train; print(*sorted(n for n in dir(sae_widget) if n[0] != '_'))",
    ):
        done = subprocess.run([sys.executable, "-c", code + more], capture_output=True, text=True, check=True)
        assert [line.split() for line in done.stdout.splitlines()] == [sorted(sae_widget.__all__)] * (1 + bool(more))


@pytest.mark.parametrize("name", sae_widget.__all__)
def test_every_public_name_is_there_with_words(name):
    thing = getattr(sae_widget, name)
    assert thing.__name__ == name
    words = inspect.getdoc(thing)
    assert words and words.splitlines()[0].strip()
    if inspect.isfunction(thing):
        for parameter in inspect.signature(thing).parameters.values():
            if len(inspect.signature(thing).parameters) > 1:
                assert re.search(rf"^    {parameter.name}: ", words, re.M), f"{name} does not tell of {parameter.name}"
        return
    for method, value in vars(thing).items():
        function = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if not method.startswith("_") and inspect.isfunction(function):
            assert inspect.getdoc(function), f"{name}.{method} has no words"


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(AttributeError, match="module 'sae_widget' has no attribute 'Nothing'"):
        _ = sae_widget.Nothing
