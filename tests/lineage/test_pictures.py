"""The picture of the loss: a PNG of the same bytes each time, or nothing without matplotlib."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hfgrow.lineage import canvas, pictures
from hfgrow.lineage.pictures import loss_curve
from tests.program import environment

POINTS = [(1000.0 * i, 5.0 / (1 + i)) for i in range(40)]
GROWTHS = [(20_000.0, "stack --g 4")]
VALIDATION = {"held.txt": [(0.0, 5.0), (20_000.0, 1.0), (20_000.0, 2.0), (39_000.0, 0.5)]}


class Told:
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def bytes(self, what: str, total: int) -> Any:
        raise AssertionError("nothing is counted")


def pixels_of(png: bytes | None) -> Any:
    from PIL import Image

    assert png is not None
    return Image.open(io.BytesIO(png)).convert("RGB")


def test_the_picture_is_a_png_of_a_fixed_size() -> None:
    assert pixels_of(loss_curve(POINTS, GROWTHS, VALIDATION)).size == (1200, 675)


def test_the_same_losses_give_the_same_bytes_and_nothing_of_the_machine() -> None:
    one, two = (loss_curve(POINTS, GROWTHS, VALIDATION) for _ in range(2))
    assert one == two
    assert one is not None
    for chunk in (b"tEXt", b"iTXt", b"zTXt", b"tIME", b"eXIf"):
        assert chunk not in one


def test_a_growth_is_marked() -> None:
    with_mark, without = (
        pixels_of(loss_curve(POINTS, growths, {})).tobytes().count(b"\x55\x55\x55")
        for growths in (GROWTHS, [])
    )
    assert with_mark > without


def drawn(monkeypatch: pytest.MonkeyPatch, *what: Any) -> list[Any]:
    """Draw a picture, and return its axes."""
    figures: list[Any] = []

    def kept(figure: Any) -> bytes:
        figures.append(figure)
        return canvas.picture_bytes(figure)

    monkeypatch.setattr(pictures, "picture_bytes", kept)
    loss_curve(*what)
    found: list[Any] = figures[0].axes
    return found


def test_the_loss_before_growth_goes_on_as_a_dashed_line(monkeypatch: pytest.MonkeyPatch) -> None:
    (axes,) = drawn(monkeypatch, POINTS, GROWTHS, VALIDATION)
    dashed = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert [tuple(line.get_xdata()) for line in dashed] == [(20_000, 39_000)]
    assert [tuple(line.get_ydata()) for line in dashed] == [(1.0, 1.0)]
    assert "before growth: 1.000" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_scale_is_that_of_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [(1000.0 * i, 50.0 if i == 0 else 2.0) for i in range(100)]
    (axes,) = drawn(monkeypatch, points, GROWTHS, VALIDATION)
    assert axes.get_ylim()[1] < 10


def test_no_loss_lies_below_the_name_of_a_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    growths = [(0.0, "first"), (20_000.0, "second")]
    held_out = {"held.txt": [(0.0, 4.0), (0.0, 5.0), (39_000.0, 0.5)]}
    (axes,) = drawn(monkeypatch, [], growths, held_out)
    low, high = axes.get_ylim()
    lowest_name = min(text.xy[1] for text in axes.texts) - 0.05
    assert low + lowest_name * (high - low) > 5.0


def test_a_gain_on_held_out_text_is_seen_beside_losses_that_are_far_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held_out = {"held.txt": [(0.0, 3.61), (0.0, 3.71), (39_000.0, 3.57)]}
    points = [(x, 2.0 + y / 10) for x, y in POINTS]
    upper, lower = drawn(monkeypatch, points, [(0.0, "stack")], held_out)
    assert 3.5 < upper.get_ylim()[0] < upper.get_ylim()[1] < 3.8
    assert lower.get_ylim()[1] < 3.0


def test_the_line_is_broken_where_the_model_grew() -> None:
    parts = pictures._parts([(1, 5.0), (2, 4.0), (3, 6.0), (4, 3.0)], [(2, "stack")])
    assert parts == [[(1, 5.0), (2, 4.0)], [(3, 6.0), (4, 3.0)]]


def test_of_two_measurements_at_a_growth_the_second_is_after_it() -> None:
    points = [(0, 5.0), (2, 1.0), (2, 2.0), (4, 0.5)]
    parts = pictures._parts(points, [(2, "stack")], twice=True)
    assert parts == [[(0, 5.0), (2, 1.0)], [(2, 2.0), (4, 0.5)]]


def test_a_text_first_measured_after_a_growth_has_one_line() -> None:
    parts = pictures._parts([(0, 5.0), (4, 0.5)], [(0, "stack")], twice=True)
    assert parts == [[(0, 5.0), (4, 0.5)]]


@pytest.mark.parametrize(
    ("points", "growths", "validation"),
    [
        ([], [], {}),
        ([(0, 1.0)], [], {}),
        ([], GROWTHS, VALIDATION),
        (POINTS, [(0.0, "$\\frac{1}{2$")] * 30, {"_hidden $x^$": [(0, 1.0)], "語": []}),
        (POINTS, [], {f"text {i}": [(0, 1.0), (1, 2.0)] for i in range(20)}),
    ],
    ids=["nothing", "one point", "validation only", "names that look like formulas", "many texts"],
)
def test_whatever_was_measured_can_be_drawn(points: Any, growths: Any, validation: Any) -> None:
    assert loss_curve(points, growths, validation) is not None


def test_without_matplotlib_there_is_no_picture_but_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(canvas, "find_spec", lambda name: None)
    told = Told()
    assert loss_curve(POINTS, GROWTHS, VALIDATION, told) is None
    assert loss_curve(POINTS, GROWTHS, VALIDATION) is None
    assert len(told.lines) == 1
    assert "hfgrow[plots]" in told.lines[0]


def test_importing_the_module_loads_no_matplotlib(tmp_path: Path) -> None:
    code = "import sys, hfgrow.lineage.pictures; print('matplotlib' in sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout == "False\n"


def test_drawing_starts_no_window_system() -> None:
    loss_curve(POINTS, GROWTHS, VALIDATION)
    assert "matplotlib.pyplot" not in sys.modules
