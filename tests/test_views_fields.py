"""What a person may type into a number field."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_widget.views.fields import number, sentence, whole


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("1024", 1024),
        (" 1,024 ", 1024),
        ("1_024", 1024),
        ("2e3", 2000),
        ("-3", -3),
        ("7.0", 7),
        ("9" * 30, int("9" * 30)),
    ],
)
def test_whole_numbers(typed, value):
    found = whole(typed, "Steps")
    assert found == value and isinstance(found, int)


@pytest.mark.parametrize("typed", ["", " ", "abc", "1.5", "nan", "inf", "1e999", "0x10", "9" * 5000, "<b>1</b>", "1;2"])
def test_no_whole_numbers(typed):
    with pytest.raises(TypeError, match="Steps must be a whole number, got ") as refusal:
        whole(typed, "Steps")
    assert len(str(refusal.value)) < 100


@pytest.mark.parametrize(("typed", "value"), [("1e-3", 1e-3), (" 0.5 ", 0.5), ("-1", -1.0), ("inf", math.inf)])
def test_numbers(typed, value):
    assert number(typed, "Rate") == value


@pytest.mark.parametrize("typed", ["", "ten", "1,5", "9" * 500])
def test_no_numbers(typed):
    with pytest.raises(TypeError, match="Rate must be a number, got "):
        number(typed, "Rate")


@given(st.text(max_size=60))
def test_any_text_is_a_number_or_a_sentence(typed):
    for read in (whole, number):
        try:
            read(typed, "x")
        except TypeError as refusal:
            assert str(refusal).startswith("x must be ")


def test_a_refusal_says_what_was_kept():
    fault = ValueError("d_sae must be between 1 and 8, got 9")
    assert sentence(fault, "d_sae", "Features", "4") == "Features must be between 1 and 8, got 9. Kept 4."
    assert sentence(ValueError("k is odd"), "d_sae", "Features", "4") == "k is odd. Kept 4."
