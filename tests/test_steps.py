"""A file of steps: read strictly, and applied in one pass."""

from pathlib import Path

import pytest

from hfgrow.errors import UsageError
from hfgrow.growth.steps import read_steps
from tests.program import call_hfgrow, run_hfgrow

BOMB = "- &a [x, x]\n" + "\n".join(
    f"- &{n} [*{p}, *{p}]" for p, n in zip("abc", "bcd", strict=True)
)
# What is wrong -> the text, and a word of the refusal.
FAULTS: dict[str, tuple[str, str]] = {
    "empty": ("", "nothing"),
    "an empty list": ("[]", "nothing"),
    "null": ("null", "nothing"),
    "a mapping": ("stack: {g: 2}", "a dict"),
    "a word": ("stack", "a str"),
    "a second document": ("- stack: {g: 2}\n---\n- stack: {g: 2}", "not YAML"),
    "no YAML": ("- stack: {g: 2", "not YAML"),
    "brackets without quotes": ("- partial: {pattern: [1:2]-[3:4]*2}", "not YAML"),
    "a tab": ("-\tstack:\n\t\tg: 2", "not YAML"),
    "NUL": ("- stack\0", "not YAML"),
    "a Python object": ("- !!python/object/apply:os.system [id]", "has a tag"),
    "a tag that does not fit": ("- stack: {g: !!bool foo}", "has a tag"),
    "a tag on nothing": ("- stack: {g: !!int ''}", "has a tag"),
    "a tag of one's own": ("- !mine stack", "has a tag"),
    "an alias bomb": (BOMB, "anchor"),
    "an anchor": ("- &a stack", "anchor"),
    "an alias": ("- stack: {g: *a}", "anchor"),
    "a merge key": ("- stack: {<<: {g: 2}}", "merge"),
    "deep nesting": ("[" * 5000, "nested"),
    "a deep argument": ("- stack: {g: [[2]]}", "entry 1"),
    "a repeated operator": ("- stack: {g: 2}\n  stack: {g: 3}", "stack stands 2 times"),
    "a repeated argument": ("- stack: {g: 2, g: 3}", "g stands 2 times"),
    "a repeated argument in two forms": (
        "- zero-width: {hidden-size: 64, hidden_size: 64}",
        "entry 1",
    ),
    "two operators in an entry": ("- stack\n- {stack: {g: 2}, solar: {}}", "entry 2"),
    "no operator in an entry": ("- stack\n- {}", "entry 2"),
    "a number as an entry": ("- stack\n- 5", "entry 2"),
    "a list as an entry": ("- stack\n- [stack]", "entry 2"),
    "yes as an entry": ("- yes", "entry 1"),
    "an unknown operator": ("- stack: {g: 2}\n- stak: {g: 2}", "entry 2"),
    "a shell as operator": ("- '$(id)'", "entry 1"),
    "a number as operator": ("- 5: {g: 2}", "entry 1"),
    "an unknown argument": ("- stack: {g: 2}\n- stack: {gg: 2}", "entry 2"),
    "the plan as argument": ("- stack: {base: 2}", "entry 1"),
    "arguments in a list": ("- stack: [2]", "entry 1"),
    "arguments as a number": ("- stack: 2", "entry 1"),
    "an argument of null": ("- stack: {g: null}", "entry 1"),
    "an argument in a list": ("- stack: {g: [2]}", "entry 1"),
    "an argument of a date": ("- stack: {g: 2024-01-01}", "entry 1"),
    "an argument that is no number": ("- stack: {g: .nan}", "entry 1"),
    "an infinite argument": ("- stack: {g: -.inf}", "entry 1"),
    "a huge argument": ("- stack: {g: 99999999999999999999}", "entry 1"),
    "an argument of 5000 digits": ("- stack: {g: " + "9" * 5000 + "}", "5000 characters"),
    "an argument of 5000 hexadecimal digits": ("- stack: {g: 0x" + "f" * 5000 + "}", "characters"),
    "an argument for a shell": ("- stack: {remainder: '; id'}", "entry 1"),
    "a list of keys": ("- ? [a]\n  : b", "not YAML"),
    "many steps": ("- stack\n" * 101, "101"),
    "a large file": ("# " + "x" * (1 << 16), "bytes"),
}


def written(folder: Path, text: str) -> Path:
    path = folder / "steps.yaml"
    path.write_text(text)
    return path


@pytest.mark.case("D13")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    text, word = FAULTS[fault]
    with pytest.raises(UsageError) as caught:
        read_steps(written(tmp_path, text))
    message = str(caught.value)
    assert word in message
    assert message.isprintable()
    assert len(message) < 700


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "steps.yaml"
    path.write_bytes(b"- stack\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_steps(path)


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot read the steps"):
        read_steps(tmp_path / name)


def test_steps_are_read_in_order_with_their_types(tmp_path: Path) -> None:
    text = """
# A comment.
- stack:
    layers: 6
    remainder: head
- zero-depth
- random-depth: {g: 2, mask: 1e-3, seed: 7}
- partial: {pattern: "12-34*2"}
"""
    assert read_steps(written(tmp_path, text)) == [
        ("stack", {"layers": 6, "remainder": "head"}),
        ("zero-depth", {}),
        ("random-depth", {"g": 2, "mask": 0.001, "seed": 7}),
        ("partial", {"pattern": "12-34*2"}),
    ]


def test_json_is_read_too(tmp_path: Path) -> None:
    text = '[{"random-depth": {"g": 2, "mask": 1e-05}}, "zero-depth"]'
    steps = read_steps(written(tmp_path, text))
    assert steps == [("random-depth", {"g": 2, "mask": 1e-05}), ("zero-depth", {})]


def test_a_step_that_cannot_be_is_told_with_its_number(base: Path, tmp_path: Path) -> None:
    written(tmp_path, "- stack: {g: 2}\n- stack: {g: 1}")
    finished = call_hfgrow("apply", "steps.yaml", "base", cwd=tmp_path)
    assert finished.returncode == 2
    assert "step 2, stack: growth factor g must be at least 2" in finished.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "steps.yaml"]


def test_applied_steps_are_named_verified_and_reproduced(base: Path, tmp_path: Path) -> None:
    written(tmp_path, "- zero-depth: {g: 2}\n- stack: {layers: 10}")
    finished = call_hfgrow("apply", "steps.yaml", "base", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "base-zero-depth-g2-stack-l10\n"
    for command in ("verify", "reproduce"):
        again = call_hfgrow(command, f"./{finished.stdout.strip()}", cwd=tmp_path)
        assert again.returncode == 0, again.stderr


@pytest.mark.case("D13")
def test_a_bomb_takes_no_memory_and_no_time(tmp_path: Path) -> None:
    written(tmp_path, "- stack: {" + ", ".join(f"k{i}: 1" for i in range(6000)) + "}")
    words = ("apply", "steps.yaml", "base")
    finished = run_hfgrow(*words, cwd=tmp_path, timeout=30, address_space_nbytes=2 << 30)
    assert finished.returncode == 2
    assert "k0" in finished.stderr
