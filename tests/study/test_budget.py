"""`hfgrow budget`: the paper's table to its last digit, bounds, pictures, mistakes.

`hfgrow budget --fit`: known constants found again, their errors, points that say too little.
"""

import json
import re
import shlex
from math import log10
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hfgrow.errors import UsageError
from hfgrow.study.budget import MOST_SHARE, PAPER, TimingLaw, budget_of
from hfgrow.study.law_fit import TimingPoint, fit_files, fit_law
from hfgrow.train.recipe.recipe import load_recipe
from tests.program import Finished, call_hfgrow

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


def check_typed(done: Finished, folder: Path, *more: str) -> Finished:
    """Type what a command names as the next one."""
    program, *words = shlex.split(done.stderr.splitlines()[-1].removeprefix("Next: "))
    assert program == "hfgrow"
    found = call_hfgrow(*words, *more, cwd=folder)
    assert found.returncode == 0, found.stderr
    return found


@pytest.mark.parametrize("compute", [("2.67M", "1M"), ("1.1B", "20.48B"), ("7B", "300B")])
def test_the_next_command_copies_a_recipe_that_takes_the_budget(
    tmp_path: Path, compute: tuple[str, str]
) -> None:
    parameters, tokens = compute
    words = ("budget", "--parameters", parameters, "--tokens", tokens, "--g", "3")
    done = call_hfgrow(*words)
    check_typed(done, tmp_path)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("recipe "))
    changes = re.findall(r"(stages\S+): (\d[\d_]*)", line)
    recipe = load_recipe(tmp_path / "mine.yaml", [f"{key}={value}" for key, value in changes])
    found = json.loads(call_hfgrow(*words, "--json").stdout)
    base, grow, more = recipe.stages
    assert base.train is not None
    assert grow.grow is not None
    assert more.train is not None
    assert (base.train.tokens, more.train.tokens) == (
        round(found["base_tokens"]),
        round(found["continued_tokens"]),
    )
    assert grow.grow.arguments["g"] == 3


def test_the_next_command_of_a_budget_of_a_model_is_its_growth(tmp_path: Path) -> None:
    done = call_hfgrow("budget", "demo", "--g", "2", "--tokens", "2M")
    assert "6 -> 12 layers" in check_typed(done, tmp_path, "--dry-run").stdout


def test_the_next_command_of_a_recipe_is_its_dry_run(tmp_path: Path) -> None:
    check_typed(call_hfgrow(*RECIPE, cwd=tmp_path), tmp_path)


RECIPE = ("budget", "demo", "--g", "2", "--tokens", "2M", "--data", "demo", "--recipe", "mine.yaml")


def test_a_budget_is_written_as_a_recipe_that_spends_it(tmp_path: Path) -> None:
    done = call_hfgrow(*RECIPE, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    recipe = load_recipe(tmp_path / found["recipe"])
    first, growth, last = recipe.stages
    assert first.train is not None
    assert growth.grow is not None
    assert last.train is not None
    assert first.train.tokens == found["base_tokens"]
    assert growth.grow.step == ("stack", {"g": 2})
    assert last.train.tokens == found["continued_tokens"]
    assert (
        "# Made by:   hfgrow budget demo --g 2 --tokens 2M\n"
        in (tmp_path / "mine.yaml").read_text()
    )


@pytest.mark.slow
def test_the_recipe_of_a_budget_can_be_run(tmp_path: Path) -> None:
    call_hfgrow(*RECIPE, cwd=tmp_path)
    done = call_hfgrow("train", "mine.yaml", "--cpu", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_recipe_that_is_there_is_replaced_only_when_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    done = call_hfgrow(*RECIPE, cwd=tmp_path)
    assert done.returncode == 7
    assert done.stderr.endswith("Error: the recipe mine.yaml exists\nHint: add --overwrite\n")
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    assert call_hfgrow(*RECIPE, "--overwrite", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--parameters", "7B", "--recipe", "a.yaml", "--data", "demo"), "--recipe needs MODEL"),
        (("demo", "--recipe", "a.yaml"), "--recipe needs text to train on"),
        (("demo", "--data", "demo"), "--data is the text of a recipe"),
        (("demo", "--recipe", "no/a.yaml", "--data", "demo"), "there is no folder no for a.yaml"),
    ],
)
def test_a_recipe_needs_a_base_and_text(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = call_hfgrow("budget", *words, "--tokens", "1B", cwd=tmp_path)
    assert done.returncode in (2, 7)
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_budget_tells_the_time_of_a_device() -> None:
    found = budget_of(num_parameters=1.1e9, flops=989e12 * 0.4 * 3600)
    assert found.device_seconds("H100") == pytest.approx(3600)
    text = call_hfgrow("budget", "--parameters", "1.1B", "--flops", "8e20").stdout
    assert "devices      74 days of one A100, 23 days of one H100, 10 days of one B200" in text


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


@pytest.mark.parametrize(
    ("tokens", "g", "said"),
    [
        ("100B", 2, "they do not contradict each other here; 14.3 tokens a parameter and g = 2 "),
        ("100B", 4, "they disagree here: g = 4 is in the one's optimum, and above the other's 2; "),
        ("2T", 2, "they disagree here: 286 tokens a parameter are above the other's 20, where"),
        ("2T", 3, "above the other's 2; 286 tokens a parameter are above the other's 20, where"),
        ("100B", 8, "they agree here: g = 8 is above what either recommends; 14.3 tokens a"),
    ],
)
def test_a_budget_says_where_the_two_papers_disagree(tokens: str, g: int, said: str) -> None:
    words = ("budget", "--parameters", "7B", "--tokens", tokens, "--g", str(g))
    text = call_hfgrow(*words).stdout
    assert re.search(said, re.sub(r"\n {13}", " ", text), re.MULTILINE)
    found = json.loads(call_hfgrow(*words, "--json").stdout)
    assert bool(found["disputes"]) == ("disagree" in text)
    assert found["bound"]["tokens_per_parameter"] == 20


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


FITTED = {"law": (0.88, 163.27, -5.74), "other": (0.5, 40.0, 1.0)}
LOGS = st.tuples(st.floats(6, 12), st.floats(14, 26))


@given(
    st.floats(-2, 2),
    st.floats(-300, 300),
    st.floats(-10, 10),
    st.lists(LOGS, min_size=4, max_size=12, unique=True),
)
def test_a_fit_finds_the_constants_that_made_the_points(
    a: float, b: float, c: float, logs: list[tuple[float, float]]
) -> None:
    law = TimingLaw(a, b, c, (1, 1), (1, 1), "")
    points = tuple(TimingPoint(10**n, 10**f, law.base_tokens(10**n, 10**f)) for n, f in logs)
    assume(all(1e-200 < point.base_tokens < 1e200 for point in points))
    try:
        found = fit_law(points, "").law
    except UsageError:
        # Points on a line, or as good as that.
        assume(False)
        return
    assert (found.a, found.b, found.c) == pytest.approx((a, b, c), rel=1e-5, abs=1e-5)


def test_the_standard_errors_are_those_of_least_squares() -> None:
    """A design that is its own inverse: 4 log10 N of two values, by 4 of 1 / log10 C."""
    noise = (0.1, -0.1, -0.1, 0.1)
    logs = [(n, 1 / x) for n in (8, 9) for x in (0.05, 0.06)]
    points = tuple(
        TimingPoint(10**n, 10**c, 10 ** (n + 10 / c - 2 + e))
        for (n, c), e in zip(logs, noise, strict=True)
    )
    found = fit_law(points, "")
    assert (found.law.a, found.law.b, found.law.c) == pytest.approx((1, 10, -2))
    # All four residuals are 0.1, and one degree of freedom is left: s = 0.2.
    assert found.degrees == 1
    assert found.residual == pytest.approx(0.2)
    # s / sqrt(sum of squared deviations), which are 4 of 0.5 and 4 of 0.005.
    assert found.errors[:2] == pytest.approx((0.2, 20))
    document = found.to_json()["standard_errors"]
    assert document == {"a": found.errors[0], "b": found.errors[1], "c": found.errors[2]}


@pytest.mark.parametrize("constants", FITTED)
def test_the_best_of_several_timings_is_found(tmp_path: Path, constants: str) -> None:
    """Losses on a parabola over log10 d, with its lowest point where the law says."""
    law = TimingLaw(*FITTED[constants], (1, 1), (1, 1), "")
    timings = []
    for n, flops in ((1e8, 1e19), (1e8, 1e20), (1e9, 1e20), (3e9, 1e21), (3e9, 3e21)):
        best = log10(law.base_tokens(n, flops))
        tried = (best - 0.6, best - 0.2, best + 0.5, best + 0.7)
        losses = [{"base_tokens": 10**x, "loss": 2.5 + 0.1 * (x - best) ** 2} for x in tried]
        timings.append({"parameters": n, "flops": flops, "losses": losses})
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"timings": timings}))
    found = fit_files([path], "")
    assert (found.law.a, found.law.b, found.law.c) == pytest.approx(FITTED[constants], rel=1e-6)
    assert found.residual < 1e-9
    alone = json.loads(call_hfgrow("budget", "--fit", path, "--json").stdout)
    assert alone["fit"]["law"]["a"] == pytest.approx(FITTED[constants][0])
    words = ("budget", "--fit", path, "--parameters", "1B", "--flops", "1e20", "--json")
    used = json.loads(call_hfgrow(*words).stdout)
    assert used["law_tokens"] == pytest.approx(law.base_tokens(1e9, 1e20), rel=1e-6)
    assert used["extrapolated"] is False


def point(n: float, flops: float, tokens: float = 1e6) -> dict[str, float]:
    return {"parameters": n, "flops": flops, "base_tokens": tokens}


def timed(*losses: tuple[float, float]) -> dict[str, object]:
    tried = [{"base_tokens": tokens, "loss": loss} for tokens, loss in losses]
    return {"timings": [{"parameters": 1e9, "flops": 1e20, "losses": tried}]}


REFUSED: dict[str, tuple[object, str]] = {
    "no object": ([1], "neither points nor timings"),
    "neither": ({"arms": []}, "neither points nor timings"),
    "no list": ({"points": 3}, "points is no list"),
    "none": ({"points": []}, "0 points of different"),
    "three points": ({"points": [point(1e8, 1e19), point(1e9, 1e20), point(1e9, 1e21)]}, "least 4"),
    "three that are six": (
        {"points": 2 * [point(1e8, 1e19), point(1e9, 1e20), point(1e9, 1e21)]},
        "3 points of different",
    ),
    "one size": (
        {"points": [point(1e9, 10**k) for k in range(19, 24)]},
        "parameters of all points lie between 1e+09 and 1e+09",
    ),
    "as good as one size": (
        {"points": [point(n, 10**k) for n in (1.01e8, 1.02e8) for k in range(19, 24)]},
        "parameters of all points lie between 1.01e+08 and 1.02e+08",
    ),
    "one compute": (
        {"points": [point(10**k, 1e20) for k in range(7, 12)]},
        "flops of all points lie between",
    ),
    "compute of 20 tokens a parameter": (
        {"points": [point(10**k, 120 * 10 ** (2 * k)) for k in (7, 7.4, 7.8, 8.2, 8.6, 9)]},
        "told apart",
    ),
    "noise": (
        {
            "points": [
                point(n, flops, 10 ** (6 + 2 * (i in (0, 3))))
                for i, (n, flops) in enumerate((n, c) for n in (1e8, 1e9) for c in (1e19, 1e21))
            ]
        },
        "do not determine a",
    ),
    "on a line": (
        {"points": [point(10 ** (7 + k / 5), 10 ** (1 / (0.04 + k / 1e4))) for k in (1, 2, 4, 7)]},
        "told apart",
    ),
    "no number": ({"points": [{"parameters": "1B"}]}, "points[0].parameters"),
    "not finite": ({"points": [point(1e9, float("nan"))]}, "points[0].flops"),
    "a base that was never trained": ({"points": [point(1e9, 1e20, 0)]}, "points[0].base_tokens"),
    "two timings": (timed((1e6, 3.0), (1e7, 2.9)), "fewer than 3"),
    "timings that are as good as one": (
        timed((1e6, 3.0), (1e6 + 1e-9, 2.9), (1e6 + 2e-9, 3.0)),
        "fewer than 3",
    ),
    "still falling": (
        timed((1e6, 3.0), (1e7, 2.9), (1e8, 2.8)),
        "of 1 more the loss has no lowest point",
    ),
    "a hill": (timed((1e6, 3.0), (1e7, 3.1), (1e8, 3.0)), "of 1 more the loss has no lowest point"),
    "lowest beyond": (
        timed((1e6, 3.0), (1e7, 2.9), (1e8, 2.85)),
        "of 1 more the loss has no lowest point",
    ),
    "a loss of text": (
        {"timings": [{"parameters": 1e9, "flops": 1e20, "losses": [{"base_tokens": 1e6}]}]},
        "timings[0].losses[0].loss",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_points_that_say_too_little_are_refused(tmp_path: Path, name: str) -> None:
    content, said = REFUSED[name]
    (tmp_path / "results.json").write_text(json.dumps(content))
    found = call_hfgrow("budget", "--fit", "results.json", cwd=tmp_path)
    assert found.returncode == 2
    assert said in found.stderr.splitlines()[0]


def test_several_files_are_one_fit_and_a_budget_without_a_best_timing_is_left_out(
    tmp_path: Path,
) -> None:
    points = [point(1e8, 1e19), point(1e8, 1e20), point(1e9, 1e20, 2e6), point(1e9, 1e21, 3e6)]
    (tmp_path / "one.json").write_text(json.dumps({"points": points[:2]}))
    hill = timed((1e6, 3.0), (1e7, 3.1), (1e8, 3.0))
    (tmp_path / "two.json").write_text(json.dumps({"points": points[2:]} | hill))
    words = ("budget", "--fit", "one.json", "--fit", "two.json")
    text = call_hfgrow(*words, cwd=tmp_path).stdout
    assert "4 points" in text
    assert "degrees of freedom: 1" in text
    assert "(standard errors)" in text
    assert "1 more left out: no best timing among those tried" in text
    found = json.loads(call_hfgrow(*words, "--json", cwd=tmp_path).stdout)
    assert (len(found["fit"]["points"]), found["fit"]["left_out"]) == (4, 1)


def test_results_that_are_no_json_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{")
    found = call_hfgrow("budget", "--fit", "results.json", cwd=tmp_path)
    assert (found.returncode, "no JSON" in found.stderr) == (2, True)


def test_a_picture_of_a_fit_alone_is_refused(tmp_path: Path) -> None:
    points = [point(1e8, 1e19), point(1e8, 1e20), point(1e9, 1e20, 2e6), point(1e9, 1e21, 3e6)]
    (tmp_path / "one.json").write_text(json.dumps({"points": points}))
    found = call_hfgrow("budget", "--fit", "one.json", "--plot", "out.png", cwd=tmp_path)
    assert found.returncode == 2
    assert "--plot draws a budget, and there is none" in found.stderr
    assert not (tmp_path / "out.png").exists()
