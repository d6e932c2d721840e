"""A file of steps: read strictly, and applied in one pass.

Options of growing commands that add a step, and how operators explain themselves.

Names of outputs: short, telling, the same for the same request.
"""

import inspect
import json
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import UsageError
from hfgrow.growth.steps import (
    check_steps,
    planned,
    read_steps,
    suffix_of,
    suffix_of_steps,
)
from hfgrow.plan.operators import OPERATORS, adds_experts
from tests.checkpoints import MakeCheckpoint
from tests.growths import COMMANDS, Case
from tests.program import call_hfgrow, run_hfgrow

typed_step = import_module("hfgrow_cli.typed_steps").typed_step

BOMB = "- &a [x, x]\n" + "\n".join(
    f"- &{n} [*{p}, *{p}]" for p, n in zip("abc", "bcd", strict=True)
)
# What is wrong -> the text, and a word of the refusal.
FAULTS: dict[str, tuple[str, str]] = {
    "empty": ("", "nothing"),
    "an empty list": ("[]", "nothing"),
    "null": ("null", "nothing"),
    "a mapping": ("stack: {g: 2}", "a mapping"),
    "a word": ("stack", "a text"),
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
    assert read_steps(written(tmp_path, text)).steps == [
        ("stack", {"layers": 6, "remainder": "head"}),
        ("zero-depth", {}),
        ("random-depth", {"g": 2, "mask": 0.001, "seed": 7}),
        ("partial", {"pattern": "12-34*2"}),
    ]


def test_json_is_read_too(tmp_path: Path) -> None:
    text = '[{"random-depth": {"g": 2, "mask": 1e-05}}, "zero-depth"]'
    steps = read_steps(written(tmp_path, text)).steps
    assert steps == [("random-depth", {"g": 2, "mask": 1e-05}), ("zero-depth", {})]


def test_a_step_that_cannot_be_is_told_with_its_number(base: Path, tmp_path: Path) -> None:
    written(tmp_path, "- stack: {g: 2}\n- stack: {g: 1}")
    finished = call_hfgrow("apply", "steps.yaml", "base", cwd=tmp_path)
    assert finished.returncode == 2
    assert "step 2, stack: growth factor g must be at least 2" in finished.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "steps.yaml"]


def test_an_error_of_steps_is_worded_as_their_file_is(base: Path, tmp_path: Path) -> None:
    written(tmp_path, "- zero-depth: {every: 3}")
    finished = call_hfgrow("apply", "base", "steps.yaml", cwd=tmp_path)
    assert finished.returncode == 2
    assert "Error: every must divide the 4 layers of the base (1, 2, 4), but 3 does not" in (
        finished.stderr
    )
    assert finished.stderr.endswith("Hint: try every: 2\n")


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


STACK = ("stack", "base", "--g", "2")
WIDEN = ("hyperclone", "base", "--g", "2")
STEPS: list[tuple[tuple[str, ...], list[tuple[str, dict[str, object]]]]] = [
    (STACK, [("stack", {"g": 2})]),
    (
        (*STACK, "--noise-paper", "0.2", "--branch-scale", "1", "--seed", "7"),
        [
            ("stack", {"g": 2}),
            ("branch-scale", {"exponent": 1.0}),
            ("paper-noise", {"amount": 0.2, "seed": 7}),
        ],
    ),
    (
        (*STACK, "--damp-repeats", "1"),
        [("stack", {"g": 2}), ("branch-scale", {"exponent": 1.0, "repeats": True})],
    ),
    (
        (*WIDEN, "--noise-paper", "0", "--untie"),
        [("untie", {}), ("hyperclone", {"g": 2}), ("paper-noise", {"amount": 0.0, "seed": 0})],
    ),
    (
        ("random-depth", "base", "--g", "2", "--seed", "3", "--noise-paper", "0.2"),
        [
            ("random-depth", {"g": 2, "seed": 3, "mask": 0.0}),
            ("paper-noise", {"amount": 0.2, "seed": 3}),
        ],
    ),
]
# What is offered to some operators only -> those of a kind that have it, and those that do not.
OFFERED = {
    "--untie": (["hyperclone", "split"], ["stack", "untie", "paper-noise"]),
    "--branch-scale": (["stack", "zero-depth"], ["hyperclone", "branch-scale"]),
    "--damp-repeats": (["partial", "midas"], ["hyperclone", "branch-scale"]),
    "--noise-paper": (["stack", "hyperclone"], ["paper-noise", "branch-scale", "untie"]),
}


@pytest.fixture(scope="module")
def place(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extra")
    shutil.copytree(make_checkpoint(tied=True), folder / "base")
    return folder


def steps_of(place: Path, words: tuple[str, ...]) -> list[tuple[str, dict[str, object]]]:
    finished = call_hfgrow(*words, "--dry-run", "--json", cwd=place)
    assert finished.returncode == 0, finished.stdout
    steps: list[dict[str, Any]] = json.loads(finished.stdout)["steps"]
    return [(step["operator"], step["arguments"]) for step in steps]


@pytest.mark.parametrize(("words", "steps"), STEPS, ids=lambda value: str(value)[:40])
def test_extra_steps_stand_in_their_places(
    place: Path, words: tuple[str, ...], steps: list[tuple[str, dict[str, object]]]
) -> None:
    assert steps_of(place, words) == steps


@pytest.mark.parametrize("option", OFFERED)
def test_extra_steps_are_offered_where_they_make_sense(option: str) -> None:
    having, lacking = OFFERED[option]
    assert all(option in call_hfgrow(name, "--help").stdout for name in having)
    for name in lacking:
        own, _, _ = call_hfgrow(name, "--help").stdout.partition("\nExamples:")
        assert option not in own


def test_a_seed_that_seeds_nothing_is_refused(place: Path) -> None:
    finished = call_hfgrow(*STACK, "--seed", "1", cwd=place)
    assert finished.returncode == 2
    assert "--noise-paper" in finished.stderr


def test_a_growth_with_every_extra_step_is_named_and_proved(place: Path) -> None:
    words = (*STACK, "--branch-scale", "0.5", "--noise-paper", "0.2")
    finished = call_hfgrow(*words, cwd=place)
    assert finished.stdout == "base-stack-g2-branch-scale-paper-noise\n", finished.stderr
    for command in ("verify", "reproduce"):
        again = call_hfgrow(command, f"./{finished.stdout.strip()}", cwd=place)
        assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("name", OPERATORS)
def test_every_argument_of_an_operator_has_help(name: str) -> None:
    told = json.loads(call_hfgrow("operators", name, "--json").stdout)["arguments"]
    assert set(told) == set(inspect.signature(OPERATORS[name].function).parameters) - {
        "own",
        "base",
    }
    explained = call_hfgrow("operators", name).stdout
    shown = call_hfgrow(name, "--help").stdout
    for argument in told.values():
        assert argument["help"]
        assert argument["typed"] in shown
        assert f"  {argument['typed']}: {argument['help']}" in explained


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_is_explained_with_an_example_that_can_be_typed(name: str) -> None:
    row = json.loads(call_hfgrow("operators", name, "--json").stdout)
    assert row["preserves_function"] is OPERATORS[name].preserves_function
    words = shlex.split(row["example"])
    # branch-scale makes sense behind another operator only, as an option of it.
    operator = "stack" if name == "branch-scale" else name
    assert words[:3] == ["hfgrow", operator, "MODEL"]
    assert name in row["example"]
    finished = call_hfgrow(operator, "./no-such-folder", *words[3:])
    assert "there is no folder" in finished.stderr or "no-such-folder" in finished.stderr
    assert not re.search(r"[Mm]issing|[Nn]o such option|[Ii]nvalid", finished.stderr)


def test_the_table_is_grouped_by_axis() -> None:
    lines = call_hfgrow("operators").stdout.splitlines()
    named = [line.split()[0] for line in lines if line and "function preserving" not in line]
    assert sorted(named) == sorted(OPERATORS)
    heads = [line.split()[0] for line in lines if line.endswith("function preserving")]
    assert heads == list(dict.fromkeys(row.axis for row in OPERATORS.values()))


NAMES: list[tuple[str, dict[str, object], str]] = [
    ("stack", {"g": 2}, "stack-g2"),
    ("stack", {"layers": 6, "remainder": "tail"}, "stack-l6"),
    ("stack", {"layers": 6, "remainder": "head"}, "stack-l6-head"),
    ("stack", {"g": None, "layers": 6}, "stack-l6"),
    ("solar", {"overlap": 8}, "solar"),
    ("solar", {"overlap": 4}, "solar-o4"),
    ("partial", {"pattern": "[1:8]-[9:16]*3"}, "partial-1to8-9to16x3"),
    ("random-depth", {"g": 2, "seed": 5, "mask": 0.5}, "random-depth-g2"),
    ("unknown", {"hidden_size": 864, "fast": True, "slow": False}, "unknown-hs864-fast-no-slow"),
]


@pytest.mark.parametrize(("operator", "arguments", "name"), NAMES)
def test_a_step_is_named_after_what_tells_it(
    operator: str, arguments: dict[str, object], name: str
) -> None:
    assert suffix_of(operator, arguments) == name


def test_many_steps_are_named_by_a_hash_that_stays() -> None:
    steps: list[tuple[str, dict[str, object]]] = [("zero-depth", {"g": 2})] * 9
    assert suffix_of_steps(steps[:2]) == "zero-depth-g2-zero-depth-g2"
    assert suffix_of_steps(steps) == suffix_of_steps(list(steps))
    assert suffix_of_steps(steps).startswith("9-steps-")
    assert suffix_of_steps(steps) != suffix_of_steps([*steps[1:], ("zero-depth", {"g": 3})])


@pytest.mark.parametrize("step", [("stack",), "stack", (3, {}), ("stack", [2])], ids=str)
def test_a_step_from_python_that_is_none_is_named(step: Any) -> None:
    with pytest.raises(UsageError, match="is no name with arguments") as caught:
        check_steps([step])
    assert caught.value.hint.startswith('steps=[("stack", {"g": 4})]')


def test_a_growth_without_steps_is_none(make_checkpoint: MakeCheckpoint) -> None:
    with pytest.raises(UsageError, match="there is no growth step"):
        planned(read(LocalFolder(make_checkpoint())), [])


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_says_whether_its_layers_are_silent_and_its_head_becomes_its_own(
    name: str, make_checkpoint: MakeCheckpoint
) -> None:
    """By that growths are proven and taken back, whatever an operator is called."""
    case = Case(name, "llama", tied=name == "untie", sharded=False, grouped=True)
    base = read(LocalFolder(make_checkpoint(**case.base("float32"))))
    # Only copies have branches to scale.
    before = ["stack --g 2"] if name == "branch-scale" else []
    typed = [*before, shlex.join((name, *COMMANDS[name]))]
    grown = planned(base, [typed_step(text) for text in typed])
    row, modes = OPERATORS[name], {source.mode for source in grown.layer_map}
    assert row.adds_silent_layers == bool(modes & {"zero", "random"})
    is_tied = [plan.config.get("tie_word_embeddings", False) for plan in (base, grown)]
    assert row.unties == (is_tied == [True, False])
    assert adds_experts(name) == (grown.family != base.family)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- stack: {g: 2", r"not YAML: line 1, column 15: while parsing a flow mapping, expected "),
        ("- stack\n- a\0", r"not YAML: line 2, column 4: special characters are not allowed$"),
    ],
)
def test_broken_yaml_is_told_by_line_and_column(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=r"steps\.yaml: " + said):
        read_steps(written(tmp_path, text))


def test_a_growth_known_by_name_that_does_not_fit_says_how_to_change_it() -> None:
    done = call_hfgrow("apply", "demo", "openseek-mid", "--dry-run")
    assert done.returncode == 2
    assert "hfgrow recipes openseek-mid --copy mine.yaml" in done.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("openseek-mid", "demo"), "the model comes first: hfgrow apply demo openseek-mid"),
        (("demo", "openseek-mod"), "did you mean openseek-mid?"),
        (("demo", "no.yaml"), "a file that holds such as [stack: {g: 2}], or one of motif-2"),
        (("demo", "recipe.yaml"), "a recipe with stages is run by hfgrow train recipe.yaml"),
    ],
    ids=["order", "slip", "no-file", "recipe-of-train"],
)
def test_what_stands_in_the_place_of_steps_is_told(
    words: tuple[str, str], hint: str, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text("stages: []\n")
    done = call_hfgrow("apply", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert f"Hint: {hint}" in done.stderr
