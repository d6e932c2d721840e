"""`hfgrow budget --fit`: known constants found again, their errors, points that say too little."""

import json
from math import log10
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hfgrow.errors import UsageError
from hfgrow.study.budget import TimingLaw
from hfgrow.study.law_fit import TimingPoint, fit_files, fit_law
from tests.program import call_hfgrow

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
