"""The escaping of documents' text and uploads' names in output."""

from __future__ import annotations

import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_assets.text.plain import TrustedText, plain_lines, plain_logger, plain_text, plain_values


@pytest.mark.parametrize(
    "text", ["", "VIN001-HB20", "Citroën C4", "東京", "a|b *c* [d](e) # f", "s3://cars/x.json", r"\x1b"]
)
def test_harmless_text_is_unchanged(text: str) -> None:
    assert plain_text(text) == plain_lines(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x1b[2J\x07\x7f", r"\x1b[2J\x07\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("line\u2028line\u2029", r"line\u2028line\u2029"),
        ("http://x/y HTTPS://z", r"http\x3a//x/y HTTPS\x3a//z"),
        ("see www.example.com", r"see www\x2eexample.com"),
        ("s3://bucket/http://x", r"s3://bucket/http\x3a//x"),
        ("_http://x éhttp://y _www.z", r"_http\x3a//x éhttp\x3a//y _www\x2ez"),
    ],
)
def test_control_characters_and_links_are_escaped(text: str, shown: str) -> None:
    assert plain_text(text) == shown


def test_text_of_megabytes_is_shown_quickly() -> None:
    # With quadratic cost, this takes hours; the suite's timeout detects that.
    for text in ("a." * 1_000_000, "\x1b" * 1_000_000, "http://" * 300_000, "www." * 500_000):
        assert len(plain_text(text)) >= len(text)


@given(st.text())
def test_any_text_is_one_line_without_control_and_bidirectional_characters(text: str) -> None:
    shown = plain_text(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(one) for one in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text())
def test_multiline_text_keeps_line_feeds_and_no_other_control_characters(text: str) -> None:
    lines = plain_lines(text)
    assert lines.count("\n") == text.count("\n")
    assert all(line.isprintable() for line in lines.split("\n"))


def test_names_and_values_of_a_structure_are_shown_as_text() -> None:
    assert plain_values({"a\n": ["http://x", 1], "b": {"\x1b": None}}) == {
        r"a\n": [r"http\x3a//x", 1],
        "b": {r"\x1b": None},
    }


def test_a_log_line_shows_its_arguments_as_text(caplog: pytest.LogCaptureFixture) -> None:
    logger = plain_logger("telemetry_assets_tests.any")
    logger.warning("%s: %d, %s, %s", "a\nb http://x", 3, OSError("c\x1b"), TrustedText("https://console"))
    [record] = caplog.records
    assert record.getMessage() == r"a\nb http\x3a//x: 3, c\x1b, https://console"
    assert record.funcName == "test_a_log_line_shows_its_arguments_as_text"


def test_log_line_below_the_level_is_not_formatted(caplog: pytest.LogCaptureFixture) -> None:
    class Unshowable:
        def __str__(self) -> str:
            raise AssertionError

    with caplog.at_level(logging.WARNING):
        plain_logger("telemetry_assets_tests.any").debug("%s", Unshowable())
    assert not caplog.records
