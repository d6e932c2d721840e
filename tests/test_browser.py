"""Report and pictures as a browser shows them, on a desk and on a phone, where there is one."""

import html
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hfgrow.lineage.drawings import GrownAxis, layer_picture, width_picture
from hfgrow.plan.axes import copied, padded, without_factors
from hfgrow.plan.plan import LayerSource
from hfgrow.study import plots, report, report_page
from hfgrow.study.results import by_arm
from hfgrow.study.summary import summary
from tests.program import TERMINAL, environment, handling, program
from tests.study.made_up import RAN, planned, runs

pytestmark = pytest.mark.slow

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Smaller text is not read.
_LEAST_TEXT = 9
# What a page is measured by; the page itself runs nothing.
_MEASURE = """<pre id="measured"></pre><script>
measured.textContent = JSON.stringify({
  page: [document.documentElement.scrollWidth, innerWidth],
  tables: [...document.querySelectorAll(".wide")].map(e => [e.scrollWidth, e.clientWidth]),
  pictures: [...document.images].map(e => [e.clientWidth, e.naturalWidth]),
});
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"there is no browser here: none of {', '.join(_NAMES)}")
    return found


def open_in(chromium: str, page: Path, width: int, *words: str) -> str:
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--hide-scrollbars", f"--user-data-dir={page.parent / 'profile'}"]
    command += [f"--window-size={width},1200", *words, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study of five seeds, its arms named as those of the paper are."""
    folder = tmp_path_factory.mktemp("report")
    plan = planned(folder, seeds=list(range(5)))
    found = runs(plan)
    summed = summary(plan, found, {"stack": 0.25})
    drawn = [report_page.Picture(*one) for one in plots.pictures(by_arm(found), summed)]
    content = report.blocks(plan, found, summed, drawn, RAN, None)
    path = folder / "report.html"
    path.write_text(report_page.html("Study tiny (small)", content))
    return path


def measured(chromium: str, page: Path, width: int) -> Any:
    open_in(chromium, page, width, f"--screenshot={page.parent / f'report-{width}.png'}")
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text())
    copy = page.with_name("measured.html")
    copy.write_text(text.replace("</body>", f"{_MEASURE}</body>"))
    dom = open_in(chromium, copy, width, "--dump-dom")
    found = re.search(r'<pre id="measured">(.*?)</pre>', dom)
    assert found is not None
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("width", [1280, 500])
def test_a_report_is_no_wider_than_its_window(chromium: str, page: Path, width: int) -> None:
    needed, given = measured(chromium, page, width)["page"]
    assert needed <= given


def test_tables_fit_a_desk(chromium: str, page: Path) -> None:
    tables = measured(chromium, page, 1280)["tables"]
    assert len(tables) >= 4
    assert all(needed <= given for needed, given in tables)


@pytest.mark.parametrize("width", [1280, 500])
def test_text_in_pictures_is_large_enough_to_be_read(chromium: str, page: Path, width: int) -> None:
    pictures = measured(chromium, page, width)["pictures"]
    assert len(pictures) == len(plots.PICTURES)
    for shown, natural in pictures:
        assert plots.NAME_POINTS / 72 * plots.DPI * shown / natural >= _LEAST_TEXT


_SHOWN_WIDTH, _MARGIN = 480, 8


def share_of_white(
    image: Any, scale: float, x: float, y: float, width: float, height: float
) -> Any:
    """Return how much of a rectangle of a picture is white, where a page shows it."""
    box = [_MARGIN + scale * at for at in (x, y, x + width, y + height)]
    raw = image.crop(tuple(map(round, box))).tobytes()
    pixels = [raw[i : i + 3] for i in range(0, len(raw), 3)]
    return sum(min(pixel) > 240 for pixel in pixels) / len(pixels)


def test_what_adds_nothing_is_shown_hatched_and_what_stands_beside_it_is_not(
    chromium: str, tmp_path: Path
) -> None:
    from PIL import Image

    layers = [LayerSource(i // 2, "zero" if i % 2 else "copy") for i in range(12)]
    axis = GrownAxis("hidden_size", without_factors(copied(64, padded(64, 128))), True)
    # Below the lowest hatched layer is a copy of 35, left of the new units are old ones.
    for picture, right, down in (
        (layer_picture(6, layers, "layers"), 0, 35),
        (width_picture([axis], "widths"), -40, 0),
    ):
        (tmp_path / "picture.svg").write_text(picture)
        (tmp_path / "page.html").write_text(f'<img src="picture.svg" width="{_SHOWN_WIDTH}">')
        shot = tmp_path / "shot.png"
        open_in(chromium, tmp_path / "page.html", 500, f"--screenshot={shot}")
        image = Image.open(shot).convert("RGB")
        drawn = r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" fill="url'
        boxes = [[float(n) for n in one] for one in re.findall(drawn, picture)]
        # A swatch of the legend is narrower, and stands elsewhere.
        x, y, _, height = max((b for b in boxes if b[2] > 30), key=lambda box: box[1])
        (natural,) = re.findall(r'viewBox="0 0 (\d+) ', picture)
        # Left of the number in the middle, and inside the edges.
        inside = (x + 4, y + 3, 28, height - 6)
        beside = (inside[0] + right, inside[1] + down, *inside[2:])
        scale = _SHOWN_WIDTH / int(natural)
        assert 0.1 < share_of_white(image, scale, *inside) < 0.9
        assert share_of_white(image, scale, *beside) == 0


@contextmanager
def check_serving(folder: Path, *options: str) -> Iterator[str]:
    """Serve the page of `hfgrow app` from a folder; it ends by Ctrl-C, and says so."""
    command = [program(), "app", "--quiet", *options]
    with handling(TERMINAL):
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.send_signal(signal.SIGINT)
        told = server.communicate(timeout=60)[1]
    assert (server.returncode, told) == (130, "Stopped.\n")


@contextmanager
def check_visit(chromium: str, address: str) -> Iterator[Any]:
    """Open an address; nothing may be asked of another host, and nothing may fail in the page."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        quiet = ("disable-gpu", "disable-quic", "disable-background-networking", "disable-sync")
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", *(f"--{word}" for word in quiet)]
        )
        tab = browser.new_page()
        asked: list[str] = []
        failures: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: failures.append(str(error)))
        tab.on("dialog", lambda dialog: failures.append(dialog.message))
        tab.goto(address)
        yield tab
        browser.close()
    hosts = {urlsplit(url).netloc for url in asked if url.startswith("http")}
    assert hosts == {urlsplit(address).netloc}
    assert failures == []


def sizes_on(tab: Any) -> dict[str, list[str]]:
    """Click on Plan, and return the table of sizes that comes, by row."""
    tab.click("#ask-plan")
    tab.wait_for_selector("#plan td")
    rows = tab.locator("#plan tbody tr").all()
    return {name: sizes for name, *sizes in (row.locator("td").all_inner_texts() for row in rows)}


def test_the_page_plans_what_is_typed_and_shows_its_lineage(chromium: str, base: Path) -> None:
    pytest.importorskip("gradio")
    odd = base.with_name("${alert(1)}<img src=x onerror=alert(2)>")
    grown = [program(), "stack", "./base", "--g", "2", "--out", str(odd)]
    subprocess.run(grown, cwd=base.parent, env=environment(), check=True, capture_output=True)
    with check_serving(base.parent) as address, check_visit(chromium, address) as tab:
        tab.fill("#model textarea", "./base")
        tab.fill("#field-g textarea", "3")
        assert sizes_on(tab)["layers"] == ["4", "12"]
        assert "hfgrow stack ./base --g 3" in tab.inner_text("#command")
        tab.click("#operator input")
        tab.click("[role=option]:has-text('hyperclone:')")
        tab.wait_for_selector("#field-ffn")
        tab.fill("#model textarea", str(odd))
        tab.click("#ask-plan")
        tab.wait_for_selector("#plan td:has-text('hidden_size')")
        assert sizes_on(tab)["hidden_size"] == ["32", "64"]
        tab.get_by_role("tab", name="Lineage").click()
        tab.fill("#grown textarea", str(odd))
        tab.click("#ask-lineage")
        tab.wait_for_selector("#lineage img")
        assert "hfgrow stack base --g 2" in tab.inner_text("#lineage")
