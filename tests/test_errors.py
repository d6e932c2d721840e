"""Errors: they carry the names of arguments, and whoever prints them knows how those are typed."""

import ast
import errno
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hfgrow
from cli.terminal import OPTIONS, Console
from hfgrow.checkpoint.staging import translated
from hfgrow.errors import (
    ModelError,
    OutputError,
    Text,
    UsageError,
    argument,
    command,
    foreign,
    growth,
    one_of,
    out_of_memory,
    printable,
    redacted,
)
from tests.program import call_hfgrow

ROOT = Path(hfgrow.__file__).parent
# --option, and what writes one: --{name}.
OPTION = re.compile(r"(?<![\w-])--[a-z{]")
# Commands of hfgrow as a shell takes them; a study starts its runs as such; the options of
# accelerate and lm_eval; what makes safetensors of other files are commands of other tools.
TYPED = (
    "checkpoint/foreign.py",
    "errors.py",
    "growth/lm_eval.py",
    "lineage/describe.py",
    "study/runs.py",
    "train/devices.py",
    "train/processes.py",
)


def test_an_error_reads_in_the_words_of_python() -> None:
    error = UsageError(
        f"{argument('layers', 24)} is not deeper than {argument('g')}",
        hint=f"use {growth('stack', layers=48)}",
    )
    assert str(error) == "layers=24 is not deeper than g"
    assert error.hint == 'use ("stack", {"layers": 48})'


def test_an_error_carries_the_names_of_its_arguments() -> None:
    error = UsageError(f"{argument('layers', 24)}, or {one_of(argument('g'), argument('every'))}")
    assert error.arguments == ("layers", "g", "every")


def test_the_command_line_types_options() -> None:
    error = UsageError(
        f"{argument('hidden_size', 512)} is not wider", hint=f"try {growth('stack', g=4)}"
    )
    error.speak(OPTIONS)
    assert (str(error), error.hint) == (
        "--hidden-size 512 is not wider",
        "try hfgrow stack MODEL --g 4",
    )


def test_several_that_would_do_are_an_alternative() -> None:
    either = one_of(argument("repo", "NAME"), argument("create_pr"), argument("exist_ok"))
    assert OPTIONS.spell(either) == "--repo NAME, --create-pr, or --exist-ok"


def test_a_note_of_an_error_is_written_by_whoever_tells_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = ModelError(f"the weights hold NaN; {argument('allow_nonfinite')}")
    note = Text(f"Note: {error}")
    Console().say(note)
    assert note == "Note: the weights hold NaN; allow_nonfinite"
    assert capsys.readouterr().err == "Note: the weights hold NaN; --allow-nonfinite\n"


def test_an_error_told_inside_another_is_still_written_by_whoever_prints_it() -> None:
    inner = UsageError(f"{argument('kv_heads')} cannot be", hint=f"try {argument('kv_heads', 4)}")
    outer = UsageError(f"step 2: {inner}", hint=inner.hint)
    again = UsageError(str(outer), hint=outer.hint)
    again.speak(OPTIONS)
    assert (str(again), again.hint) == ("step 2: --kv-heads cannot be", "try --kv-heads 4")


def test_an_error_goes_to_another_process_with_its_arguments() -> None:
    told = pickle.loads(pickle.dumps(UsageError(f"{argument('kv_heads')} cannot be")))
    told.speak(OPTIONS)
    assert str(told) == "--kv-heads cannot be"


def test_a_command_is_what_a_shell_takes_whoever_speaks() -> None:
    wanted = "hfgrow data prepare A --out DIR --text-column body"
    assert command("data prepare A", out="DIR", text_column="body", split=None) == wanted


@given(text=st.text(max_size=60), value=st.text(max_size=20))
def test_foreign_text_is_never_taken_for_an_argument(text: str, value: str) -> None:
    error = UsageError(f"{printable(text)} in {argument('dtype', value)}")
    assert error.arguments == ("dtype",)
    error.speak(OPTIONS)
    assert str(error).startswith(f"{printable(text)} in --dtype")
    assert not re.search(r"[\x00-\x1f]", str(error))


@given(text=st.text(alphabet="\0\1\2\3\x1b\x7fab=", max_size=30))
def test_control_characters_of_a_message_are_never_printed(text: str) -> None:
    error = UsageError(text)
    assert not re.search(r"[\x00-\x1f\x7f]", str(error))
    error.speak(OPTIONS)
    assert not re.search(r"[\x00-\x1f\x7f]", str(error))


def test_what_is_no_token_is_none() -> None:
    assert UsageError("\0\0, \0\1\0, \0 A\0").arguments == ()


def strings(tree: ast.AST) -> Iterator[str]:
    """Every text of a file that is no docstring."""
    bodies = (ast.Module, ast.ClassDef, ast.FunctionDef)
    heads = [node.body[0] for node in ast.walk(tree) if isinstance(node, bodies) and node.body]
    docs = [head.value for head in heads if isinstance(head, ast.Expr)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs:
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield ast.unparse(node)


def test_no_file_below_the_command_line_knows_an_option() -> None:
    files = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}
    speak = {
        name: found
        for name, path in files.items()
        if (found := [text for text in strings(ast.parse(path.read_text())) if OPTION.search(text)])
    }
    assert {name: found for name, found in speak.items() if name not in TYPED} == {}
    assert sorted(speak) == sorted(TYPED)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:SECRET@hub.example/org/name", "https://***@hub.example/org/name"),
        ("HTTP://token@hub.example:8080/x and more", "HTTP://***@hub.example:8080/x and more"),
        (
            "https://user:p@SECRET@hub.example/org/name@main",
            "https://***@hub.example/org/name@main",
        ),
        ("hf://org/name@main", "hf://org/name@main"),
        ("https://hub.example/org/name@main", "https://hub.example/org/name@main"),
        ("mail a@b.example", "mail a@b.example"),
    ],
)
def test_who_logs_in_with_an_address_is_hidden(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_a_password_is_hidden_before_a_text_is_cut() -> None:
    assert printable(f"https://user:{'x' * 90}@hub.example/org/name", 40) == (
        "https://***@hub.example/org/name"
    )


@pytest.mark.parametrize(
    "words", [("inspect",), ("stack", "--g", "2"), ("verify",), ("docs",), ("ungrow",)], ids=str
)
def test_no_command_prints_the_password_of_an_address(words: tuple[str, ...]) -> None:
    address = f"https://somebody:SEC-RET{'x' * 200}@hub.example/org/name"
    for more in ((), ("--json",)):
        done = call_hfgrow(words[0], address, *words[1:], *more)
        assert done.returncode != 0
        assert "SEC-RET" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libscipy_openblas64_.so: failed to map segment from shared object"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("can't start new thread"),
    ],
    ids=repr,
)
def test_memory_that_ran_out_is_neither_a_bug_nor_the_disk(
    error: Exception, tmp_path: Path
) -> None:
    spent = "the memory that this process may use is spent"
    with pytest.raises(OutputError, match=spent), foreign(ModelError):
        raise error
    if isinstance(error, OSError):
        with pytest.raises(OutputError, match=spent), translated(str(tmp_path)):
            raise error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("no such kernel")])
def test_what_is_no_matter_of_memory_is_not_told_as_one(error: Exception) -> None:
    assert out_of_memory(error) is None
