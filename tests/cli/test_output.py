"""What a bar says where nothing can move: how much is done, and how long it will still take."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cli.terminal import Console

GB = 10**9


@pytest.fixture(name="clock")
def set_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("hfgrow.console.time.monotonic", lambda: now[0])
    return now


def test_a_line_comes_after_two_seconds_and_says_the_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Console().bytes("Writing model", 8 * GB)
    clock[0] += 1.9
    bar.advance(GB)
    assert capsys.readouterr().err == ""
    clock[0] += 0.1
    bar.advance(GB)
    assert capsys.readouterr().err == "Writing model: 2 GB of 8 GB, 6 s left\n"
    bar.close()


def test_before_a_hundredth_is_done_no_time_is_guessed(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Console().bytes("Measuring logits", 8 * GB)
    clock[0] += 6
    bar.advance(2000)
    assert capsys.readouterr().err == "Measuring logits: 2 kB of 8 GB\n"
    bar.close()


def test_lines_come_every_five_seconds_and_seldom_where_it_takes_long(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Console().bytes("Uploading", 1000 * GB)
    said = []
    for second in range(1, 1000):
        clock[0] = 100.0 + second
        bar.advance(GB)
        if capsys.readouterr().err:
            said.append(second)
    assert said[:4] == [2, 7, 12, 17]
    gaps = [later - earlier for earlier, later in pairwise(said)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == 10


def test_what_takes_long_is_told_however_small_it_is(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Console().bytes("Tokenising", 1000)
    clock[0] += 60
    bar.advance(500)
    assert capsys.readouterr().err == "Tokenising: 500 B of 1 kB, 60 s left\n"


def test_what_is_quiet_has_no_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    bar = Console(quiet=True).bytes("Hashing", 8 * GB)
    clock[0] += 60
    bar.advance(500)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_line_takes_the_place_of_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "0")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    Console().say("comparing checksums of 7 files")
    assert capsys.readouterr().err == "\r\x1b[Jcomparing checksums of 7 files\n"
    monkeypatch.setenv("TERM", "dumb")
    Console().say("Here: alice/base")
    assert capsys.readouterr().err == "Here: alice/base\n"
