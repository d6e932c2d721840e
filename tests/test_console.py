"""Amounts: read as people write them, shown in short. Bars of a notebook."""

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.console import (
    Bars,
    amount,
    counting,
    for_terminal,
    shown,
    waiting,
    wrapped,
)


def test_what_a_law_asks_beyond_all_bounds_is_shown_in_short() -> None:
    assert shown(1.2345e190) == "1.23e+190"


@pytest.mark.parametrize(
    ("text", "value"),
    [("7B", 7e9), ("1.1b", 1.1e9), ("300_000", 3e5), ("2e12", 2e12), ("15T", 15e12), ("1", 1)],
)
def test_amounts_are_read_as_people_write_them(text: str, value: float) -> None:
    assert amount(text, "it") == value


@given(st.floats(1, 1e15))
def test_an_amount_that_is_shown_has_at_most_three_digits_before_its_point(value: float) -> None:
    number, _, unit = shown(value).partition(" ")
    assert len(number.partition(".")[0]) <= 3 or unit in ("", "T")


def test_a_bar_counts_bytes_and_lines_come_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    bars = Bars()
    with counting(bars, "Writing model.safetensors", 4_000) as advance:
        advance(1_000)
        bars.say("Note: a token hf_abcdefghijklmnopqrstuvwxyz is hidden")
        advance(3_000)
    told = capsys.readouterr().err
    assert "Writing model.safetensors:   0%" in told
    assert "Note: a token " in told
    assert "hf_abcdefghijklmnopqrstuvwxyz" not in told


def test_what_is_said_on_a_terminal_breaks_between_words_and_commands_stay_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "40")
    line = "  checkpoints: every 1/20 of a stage once a minute is over"
    assert for_terminal(line, Terminal()) == (
        "  checkpoints: every 1/20 of a stage\n    once a minute is over"
    )
    for command in (
        "Next: hfgrow push a-model-with-a-name you/a-repository",
        "Hint: /opt/python -m pip install 'hfgrow[train]' --index-url https://example.org/simple",
        "That is: hfgrow partial a-model-with-a-name '[1:4]-[3:6]'",
    ):
        assert for_terminal(command, Terminal()) == command
    assert for_terminal(
        "Hint: one of demo, gradual-midas, reference, schedule-free", Terminal()
    ) == ("Hint: one of demo, gradual-midas,\n  reference, schedule-free")
    assert for_terminal("Note: config.json says that hfgrow grew it", Terminal()) == (
        "Note: config.json says that hfgrow grew\n  it"
    )
    assert for_terminal(line, io.StringIO()) == line


def test_what_cannot_tell_how_far_it_is_tells_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hfgrow.console._INTERVAL_S", 0.02)
    with waiting(Bars(), "Loading torch"):
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5
    assert set(lines) == {"Loading torch: 0 s"}


def test_a_name_and_one_long_word_stay_in_a_line() -> None:
    path = "/a/long/path" * 8
    assert wrapped(f"  where   {path}", 80, behind=10) == [f"  where   {path}"]
    assert wrapped(f"  where   it lies in {path}", 80, behind=10) == [
        "  where   it lies in",
        f"          {path}",
    ]
