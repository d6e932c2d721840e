"""`hfgrow app`: what its page answers is what the command line prints, and is safe to show."""

import base64
import re
import shlex
import shutil
import sys
from html import unescape
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest

from cli.page import fields_of, lineage_page, plan_page
from hfgrow import demo
from hfgrow.errors import UsageError
from hfgrow.plan.operators import OPERATORS
from tests.hub_server import BOB, Hub
from tests.hub_server.homes import model_folder
from tests.program import call_hfgrow

DEMO = Path(demo.__file__).parent
# All that an answer is made of.
TAGS = {"a", "br", "code", "details", "div", "img", "p", "pre", "summary", "table"}
TAGS |= {"tbody", "td", "th", "thead", "tr"}
ATTRIBUTES = {"alt", "class", "href", "rel", "src", "target"}
HOSTILE = "<img src=x onerror=alert(1)>${alert(2)}"


class _Elements(HTMLParser):
    """What a browser makes of an answer."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def check_pictures(self) -> list[str]:
        """Return the SVG of its images, all of which are in the page."""
        start = "data:image/svg+xml;base64,"
        sources = [value for key, value in self.attributes if key == "src" and value]
        assert all(source.startswith(start) for source in sources)
        return [base64.b64decode(source.removeprefix(start)).decode() for source in sources]


def text_of(html: str) -> str:
    """Return the text of an answer."""
    return unescape(re.sub(r"<[^>]*>", "\n", html))


def check_made_of_what_it_may(html: str) -> None:
    found = _Elements(html)
    assert found.tags <= TAGS
    assert {name for name, _ in found.attributes} <= ATTRIBUTES


def length_of(asked: str | None) -> int:
    """Return the bytes of a range that was asked for; a whole file is none."""
    assert asked is not None
    first, last = asked.removeprefix("bytes=").split("-")
    return int(last) - int(first) + 1


def as_it_begins(operator: str) -> dict[str, object]:
    return {field.name: field.example for field in fields_of(operator)}


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_form_as_it_begins_is_answered_as_the_command_line_answers_it(
    operator: str, tmp_path: Path
) -> None:
    given = as_it_begins(operator)
    answer = plan_page(operator, "demo", given)
    typed = [word for field in fields_of(operator) for word in field.words(given[field.name])]
    done = call_hfgrow(operator, "demo", *typed, "--dry-run", cwd=tmp_path)
    assert shlex.split(answer.command) == (
        [] if done.returncode else ["hfgrow", operator, "demo", *typed]
    )
    for line in (done.stderr if done.returncode else done.stdout).splitlines():
        assert line in text_of(answer.html).splitlines()
    check_made_of_what_it_may(answer.html)


def test_the_command_of_a_page_makes_the_model_that_it_shows(tmp_path: Path) -> None:
    given = {"g": "2", "noise": "0.1", "untie": True, "noise_paper": "0.2", "dtype": "float32"}
    answer = plan_page("hyperclone-noisy", "demo", given)
    words = "hfgrow hyperclone-noisy demo --g 2 --noise 0.1 --untie --noise-paper 0.2"
    assert answer.command == f"{words} --dtype float32"
    done = call_hfgrow(*shlex.split(answer.command)[1:], cwd=tmp_path)
    (file,) = (tmp_path / done.stdout.strip()).glob("*.safetensors")
    assert f"({file.stat().st_size:,} bytes)" in text_of(answer.html)


def test_sizes_promise_and_picture_of_a_growth_are_shown() -> None:
    html = plan_page("zero-depth", "demo", {"layers": 9}).html
    cells = re.findall(r"<td>([^<]*)</td>", html)
    assert cells[:6] == ["layers", "6", "9", "parameters", "1,443,456", "2,034,048"]
    # 16 bytes for each of the parameters.
    assert cells[-2:] == ["23.1 MB", "32.5 MB"]
    assert "Function preserved" in text_of(html)
    (picture,) = _Elements(html).check_pictures()
    assert "grown: 9 layers" in picture


@pytest.mark.parametrize(
    ("field", "given", "error"),
    [
        ("g", "two", r"--g cannot be two; expected a whole number"),
        ("g", "2.5", r"--g cannot be 2\.5; expected a whole number"),
        ("remainder", "middle", r"--remainder cannot be middle; expected tail, head"),
        ("branch_scale", "a", r"--branch-scale cannot be a; expected a number"),
    ],
)
def test_what_is_no_value_of_a_field_is_refused(field: str, given: str, error: str) -> None:
    (found,) = (one for one in fields_of("stack") if one.name == field)
    with pytest.raises(UsageError, match=f"^{error}$"):
        found.value(given)


def test_an_empty_field_is_not_typed() -> None:
    given = {field.name: "" for field in fields_of("stack")} | {"g": " 2 "}
    assert plan_page("stack", "demo", given).command == "hfgrow stack demo --g 2"


@pytest.mark.case("G7")
def test_foreign_text_is_text_on_the_page(tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE.replace("/", "")
    shutil.copytree(DEMO, folder)
    (folder / "README.md").write_text(f"---\nlicense: '{HOSTILE}'\n---\n")
    for model in (str(folder), f"org/{HOSTILE}"):
        for answer in (plan_page("stack", model, {"g": 2}), lineage_page(model)):
            check_made_of_what_it_may(answer.html)
            assert "<img src=x" in text_of(answer.html)
    for picture in _Elements(plan_page("stack", str(folder), {"g": 2}).html).check_pictures():
        assert "<img" not in picture


def test_a_lineage_is_that_of_the_command_line_with_pictures(tmp_path: Path) -> None:
    call_hfgrow("stack", "demo", "--g", "2", "--out", "grown", cwd=tmp_path)
    html = lineage_page(str(tmp_path / "grown")).html
    assert call_hfgrow("lineage", "./grown", cwd=tmp_path).stdout.strip() in text_of(html)
    (picture,) = _Elements(html).check_pictures()
    assert picture == (tmp_path / "grown" / "layers.svg").read_text()


def test_an_error_is_the_line_of_the_command_line() -> None:
    told = call_hfgrow("lineage", DEMO).stderr.splitlines()
    assert told[0].startswith("Error: ")
    assert [line for line in text_of(lineage_page(str(DEMO)).html).splitlines() if line] == told


@pytest.mark.case("G11")
@pytest.mark.usefixtures("home")
def test_a_stranger_is_not_told_whether_a_folder_is_there(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    for folder in ("there", "org/there", "org/run/final"):
        model_folder(Path(folder))
    Path("run").mkdir()
    for folder in ("run", "org/run"):
        Path(folder, "run.json").touch()
    for there, absent in (
        ("./there", "./where"),
        ("there", "where"),
        ("/etc", "/nowhere"),
        ("org/run", "org/ran"),
        ("org/run/final", "org/ran/final"),
        ("run/final", "ran/final"),
    ):
        one, two = (
            plan_page("stack", name, {"g": 2}, only_hub=True).html for name in (there, absent)
        )
        assert one.replace(there, absent) == two
        assert "Error: " in one
        one, two = (lineage_page(name, only_hub=True).html for name in (there, absent))
        assert one.replace(there, absent) == two
    found = text_of(plan_page("stack", "org/there", {"g": 2}, only_hub=True).html)
    assert "Error: looking up org/there: there is no such model" in found


@pytest.mark.case("G11")
def test_a_stranger_plans_a_model_of_the_hub_from_its_headers_without_a_token(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address)
    monkeypatch.setenv("HF_TOKEN", BOB)
    names = ("config.json", "model.safetensors")
    hub.seed("bob/base", {name: (DEMO / name).read_bytes() for name in names})
    answer = plan_page("stack", "bob/base", {"g": 2}, only_hub=True)
    assert answer.command == "hfgrow stack bob/base --g 2"
    assert "stack --g 2: 6 -> 12 layers" in text_of(answer.html)
    assert not any(asked.authorized for asked in hub.log)
    ranges = [asked.range for asked in hub.log if "model.safetensors" in asked.line]
    assert 0 < sum(length_of(one) for one in ranges) < 100_000


def test_a_stranger_plans_the_growth_of_the_demo() -> None:
    here, there = (plan_page("stack", "demo", {"g": 2}, only_hub=on) for on in (False, True))
    assert here == there


@pytest.mark.skipif(find_spec("gradio") is not None, reason="gradio is installed here")
def test_without_gradio_the_command_says_what_to_install() -> None:
    done = call_hfgrow("app")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "Error: hfgrow app needs gradio, which is not installed",
        f"Hint: {shlex.quote(sys.executable)} -m pip install 'hfgrow[app]'",
    ]
