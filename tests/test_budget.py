"""`hfgrow budget`: the paper's table to its last digit, bounds, pictures, mistakes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.study.budget import MOST_SHARE, PAPER, budget_of
from tests.program import call_hfgrow

# The table of 2405.15319: parameters, tokens, and the growth timing in billions of tokens.
TABLE = {
    "Llama3-8B": ("8B", "15T", "6.58 B"),
    "Llama2-7B": ("7B", "2T", "11.11 B"),
    "Llama2-13B": ("13B", "2T", "15.84 B"),
    "Llama2-70B": ("70B", "2T", "42.48 B"),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_the_paper_comes_out_to_its_last_digit(name: str) -> None:
    parameters, tokens, timing = TABLE[name]
    words = ("budget", "--parameters", parameters, "--tokens", tokens)
    text = call_hfgrow(*words).stdout
    assert f"d = {timing} tokens" in text
    assert "extrapolated: N and C outside" in text
    found = json.loads(call_hfgrow(*words, "--json").stdout)
    assert f"{found['base_tokens'] / 1e9:.2f} B" == timing
    assert found["extrapolated"] is True
    assert found["clamped"] is False


def test_the_parts_of_a_budget_add_up() -> None:
    found = budget_of(num_parameters=1.1e9, flops=6 * 1.1e9 * 100e9)
    assert found.base_flops + found.continued_flops == pytest.approx(found.flops)
    assert found.num_base_parameters == 1.1e9 / 4
    # A quarter of the size takes a quarter of the compute for a token.
    assert found.continued_tokens + found.base_tokens / 4 == pytest.approx(found.scratch_tokens)
    assert found.outside == ()


@given(st.floats(1e3, 1e13), st.floats(10, 1e15), st.integers(2, 1000))
def test_the_base_never_gets_more_than_its_share(n: float, tokens: float, g: int) -> None:
    found = budget_of(num_parameters=n, flops=6 * n * tokens, g=g)
    assert 0 < found.base_tokens <= MOST_SHARE * found.scratch_tokens * (1 + 1e-9)
    assert 0 < found.continued_tokens < found.scratch_tokens
    assert found.is_clamped == (found.law_tokens > found.base_tokens)


def test_a_clamped_budget_says_so() -> None:
    """135M parameters and 2B tokens: the law asks for 24B of the 2B."""
    text = call_hfgrow("budget", "--params", "135M", "--tokens", "2B").stdout
    assert "d = 300.00 M tokens" in text
    assert "clamped: it says 24.04 B" in text


def test_what_is_expected_of_a_budget_far_from_the_paper_is_called_a_guess() -> None:
    words = ("budget", "--params", "135M", "--tokens", "2B", "--g", "8")
    said = "a guess: N and C outside what the law was fitted on, d is clamped, g is 8"
    assert said in call_hfgrow(*words).stdout
    found = json.loads(call_hfgrow(*words, "--json").stdout)
    assert len(found["doubts"]) == 3
    assert found["expected_tokens"] == [round(2e9 / 1.546), round(2e9 / 1.31)]


def test_what_the_law_was_fitted_on_is_not_extrapolated() -> None:
    text = call_hfgrow("budget", "--parameters", "1.1B", "--flops", "1e21").stdout
    assert "inside what it was fitted on" in text
    assert "extrapolated" not in text
    assert "a guess" not in text


def test_a_base_is_counted_by_its_headers(base: Path) -> None:
    words = ("budget", "./base", "--g", "3", "--tokens", "1B", "--json")
    found = json.loads(call_hfgrow(*words, cwd=base.parent).stdout)
    grown = ("stack", "./base", "--g", "3", "--dry-run", "--json")
    plan = json.loads(call_hfgrow(*grown, cwd=base.parent).stdout)
    assert found["num_hidden_layers"] == [4, 12]
    assert found["num_parameters"] == plan["num_parameters"]["grown"]
    assert found["num_base_parameters"] == plan["num_parameters"]["base"]
    assert found["base_flops"] == pytest.approx(
        6 * found["num_base_parameters"] * found["base_tokens"], rel=1e-6
    )


@pytest.mark.parametrize(
    ("name", "start"), [("plot.png", b"\x89PNG\r\n"), ("plot.svg", b"<?xml")], ids=str
)
def test_a_budget_can_be_drawn(tmp_path: Path, name: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    words = ("budget", "--parameters", "7B", "--tokens", "300B", "--plot", name)
    found = call_hfgrow(*words, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    first = (tmp_path / name).read_bytes()
    assert first.startswith(start)
    again = call_hfgrow(*words, cwd=tmp_path)
    assert (again.returncode, "is there already" in again.stderr) == (7, True)
    assert call_hfgrow(*words, "--overwrite", cwd=tmp_path).returncode == 0
    assert (tmp_path / name).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == [name]


MISTAKES: dict[str, tuple[int, tuple[str, ...], str]] = {
    "nothing": (2, (), "neither MODEL nor --parameters"),
    "two sizes": (2, ("demo", "--parameters", "7B", "--tokens", "1B"), "MODEL and --parameters"),
    "no compute": (2, ("--parameters", "7B"), "neither --tokens nor --flops"),
    "two computes": (2, ("--parameters", "7B", "--tokens", "1B", "--flops", "1e20"), "both"),
    "no number": (2, ("--parameters", "big", "--tokens", "1B"), "such as 7B"),
    "nothing of it": (2, ("--parameters", "0", "--tokens", "1B"), "such as 7B"),
    "negative": (2, ("--parameters", "7B", "--tokens=-3B"), "such as 7B"),
    "infinite": (2, ("--parameters", "7B", "--tokens", "1e999"), "such as 7B"),
    "not a token": (2, ("--parameters", "7B", "--flops", "1e9"), "less than one token"),
    "g of 1": (2, ("--parameters", "7B", "--tokens", "1B", "--g", "1"), "not 1"),
    "another picture": (2, ("--parameters", "7B", "--tokens", "1B", "--plot", "x.pdf"), ".png"),
    "no such folder": (
        7,
        ("--parameters", "7B", "--tokens", "1B", "--plot", "no/x.png"),
        "no folder no for the picture x.png",
    ),
    "no base": (2, ("--parameters", "1", "--tokens", "1"), "less than one parameter"),
    "no token of a base": (2, ("--parameters", "7B", "--tokens", "6"), "less than one: the law"),
    "a revision of nothing": (
        2,
        ("--parameters", "7B", "--tokens", "1B", "--revision", "main"),
        "--revision main is of MODEL",
    ),
    "no such model": (2, ("./nowhere", "--tokens", "1B"), "nowhere"),
    "no such results": (2, ("--fit", "nowhere.json"), "cannot read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(tmp_path: Path, mistake: str) -> None:
    code, words, said = MISTAKES[mistake]
    found = call_hfgrow("budget", *words, cwd=tmp_path)
    assert found.returncode == code
    assert found.stdout == ""
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("Error: ")]
    assert said in line
    as_json = json.loads(call_hfgrow("budget", *words, "--json", cwd=tmp_path).stdout)
    assert as_json["error"]["exit_code"] == code


def test_the_constants_are_those_of_the_paper() -> None:
    assert (PAPER.a, PAPER.b, PAPER.c) == (0.88, 163.27, -5.74)
