"""E12 and E19, C10 and G3: odd environments, terminals, and what a crash may show."""

import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.checkpoints import edit_json
from tests.hub_server import Hub
from tests.program import CANARY, call_hfgrow, environment, program, run_hfgrow


@pytest.mark.case("E19")
@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({"LANG": "C", "LC_ALL": "C"}, id="LANG=C"),
        pytest.param(
            {"TMPDIR": "/nonexistent", "HF_HOME": "/nonexistent/hf", "HOME": "/nonexistent"},
            id="no folders",
        ),
        pytest.param({"TERM": "dumb", "COLUMNS": "0"}, id="no terminal"),
    ],
)
def test_odd_environments_do_not_matter(
    base: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    out = tmp_path / "m\u00f6del"
    finished = run_hfgrow("stack", base, "--g", "2", "--out", out, env=variables)
    assert finished.returncode == 0, finished.stderr
    assert (out / "model.safetensors").is_file()


@pytest.mark.case("I4")
def test_the_bytes_do_not_depend_on_the_environment(base: Path, tmp_path: Path) -> None:
    """I4: neither on the hash seed nor on the locale."""
    found = set()
    for seed in ("1", "2"):
        out = tmp_path / seed / "out"
        variables = {"PYTHONHASHSEED": seed, "LC_ALL": "C"}
        assert run_hfgrow("stack", base, "--g", "2", "--out", out, env=variables).returncode == 0
        found.add(b"".join(path.read_bytes() for path in sorted(out.iterdir())))
    assert len(found) == 1


@pytest.mark.case("D8")
def test_a_name_that_is_no_utf8_is_no_bug(base: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"m\xffdel")
    finished = run_hfgrow("stack", base, "--g", "2", "--out", odd)
    assert finished.returncode in (0, 7), finished.stderr
    assert "a bug in hfgrow" not in finished.stderr


@pytest.mark.case("E19")
def test_an_unset_home_does_not_matter(base: Path, tmp_path: Path) -> None:
    variables = {key: value for key, value in environment().items() if key != "HOME"}
    command = [program(), "stack", str(base), "--g", "2", "--out", str(tmp_path / "out")]
    assert subprocess.run(command, env=variables, capture_output=True).returncode == 0


@pytest.mark.case("E19")
def test_a_working_folder_that_is_gone_is_no_bug(base: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"rmdir {gone}; exec {program()} stack {base} --g 2 --out {tmp_path / 'out'}"
    finished = subprocess.run(
        ["bash", "-c", script], cwd=gone, env=environment(), capture_output=True, text=True
    )
    assert finished.returncode in (0, 7), finished.stderr
    assert "a bug in hfgrow" not in finished.stderr
    assert "Traceback" not in finished.stderr


def on_a_terminal(*words: str | Path, timeout: float = 15) -> tuple[int, str]:
    """Run the program on a terminal of its own, where nobody answers."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(program(), [program(), *map(str, words)], environment(TERM="xterm"))
    seen, end = b"", time.monotonic() + timeout
    while time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], 0.1)
        if ready:
            try:
                seen += os.read(terminal, 1 << 16)
            except OSError:
                break
    else:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), seen.decode()


@pytest.mark.case("C10")
def test_code_in_a_model_is_refused_without_a_question_even_on_a_terminal(
    base: Path, tmp_path: Path
) -> None:
    """C10 and F15."""
    (base / "modeling_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    edit_json(
        base / "config.json",
        model_type="evil",
        auto_map={"AutoModelForCausalLM": "modeling_evil.Model"},
    )
    code, seen = on_a_terminal("stack", base, "--g", "2", "--verify", "--out", tmp_path / "out")
    assert code == 3, seen
    assert "[y/N]" not in seen
    assert not (tmp_path / "ran").exists()


def test_a_growth_on_a_terminal_asks_nothing(base: Path, tmp_path: Path) -> None:
    code, seen = on_a_terminal("stack", base, "--g", "2", "--out", tmp_path / "out")
    assert code == 0, seen


@pytest.mark.case("G3")
def test_debugging_shows_a_trace_but_no_token(base: Path, tmp_path: Path) -> None:
    """G3: run_hfgrow itself looks for the token."""
    (base / "model.safetensors").write_bytes(b"bad")
    finished = run_hfgrow(
        *("stack", base, "--g", "2", "--out", tmp_path / "out", "--token", CANARY),
        env={"HF_DEBUG": "1"},
    )
    assert finished.returncode == 3
    assert "Traceback" in finished.stderr


@pytest.mark.case("G1")
def test_a_token_in_a_file_is_used_and_never_shown(tmp_path: Path) -> None:
    """What `hf auth login` stores; the token is one that this Hub does not know."""
    stored = tmp_path / "hf" / "token"
    stored.parent.mkdir()
    stored.write_text(CANARY)
    with Hub() as hub:
        for words in (["env"], ["pull", "bob/base", "--json"]):
            finished = run_hfgrow(
                *words,
                cwd=tmp_path,
                env={
                    "HF_ENDPOINT": hub.url,
                    "HF_HUB_OFFLINE": "0",
                    "HF_HOME": str(stored.parent),
                    "HF_TOKEN": "",
                    "HF_DEBUG": "1",
                },
            )
            assert finished.returncode == (0 if words == ["env"] else 4), finished.stderr
            assert "yes" in finished.stdout or "401" in finished.stdout
        assert any(record.authorized for record in hub.log)
    stored.unlink()


@pytest.mark.case("G2")
@pytest.mark.parametrize("command", ["stack", "pull", "push", "inspect", "train", "learn"])
def test_the_option_for_a_token_names_the_ways_that_others_do_not_see(command: str) -> None:
    told = " ".join(call_hfgrow(command, "--help").stdout.split())
    assert "HF_TOKEN or `hf auth login` keep it out of the shell's history" in told


@pytest.mark.case("G3")
@pytest.mark.parametrize("debug", ["", "1"], ids=["quiet", "HF_DEBUG"])
def test_what_a_library_logs_shows_no_token(tmp_path: Path, debug: str) -> None:
    """The client repeats the address, and here the address holds a token."""
    with Hub() as hub:
        hub.fault("/api/models", status=503, times=1)
        finished = run_hfgrow(
            *("pull", "bob/absent"),
            env={
                "HF_ENDPOINT": f"http://x:{CANARY}@127.0.0.1:{hub.port}",
                "HF_HUB_OFFLINE": "0",
                "HF_HOME": str(tmp_path / "hf"),
                "HF_DEBUG": debug,
                "HF_HUB_VERBOSITY": "debug",
            },
        )
    assert finished.returncode == 4, finished.stderr
    assert "***@127.0.0.1" in finished.stderr


@pytest.mark.case("G1")
@pytest.mark.parametrize("place", ["folder", "out", "pattern", "revision", "repo"])
def test_a_token_typed_in_the_wrong_place_is_not_repeated(
    base: Path, tmp_path: Path, place: str
) -> None:
    words: dict[str, list[str | Path]] = {
        "folder": ["stack", f"./{CANARY}", "--g", "2"],
        "out": ["stack", base, "--g", "2", "--dtype", CANARY],
        "pattern": ["partial", base, CANARY],
        "revision": ["stack", base, "--g", "2", "--revision", CANARY],
        "repo": ["stack", base, "--g", "2", "--repo", CANARY],
    }
    for more in ([], ["--json"]):
        assert call_hfgrow(*words[place], *more, cwd=tmp_path).returncode in (2, 3)


@pytest.mark.case("E18")
def test_memory_stays_far_below_the_model(base: Path, tmp_path: Path) -> None:
    """E18: 200 MB of addresses above the start of Python do for a model of any size."""
    out = tmp_path / "out"
    finished = run_hfgrow("stack", base, "--g", "500", "--out", out, address_space_nbytes=600 << 20)
    assert finished.returncode == 0, finished.stderr
    assert (out / "model.safetensors").stat().st_size > 50 << 20
    shutil.rmtree(out)


@pytest.mark.case("E18")
@pytest.mark.parametrize("nbytes", [100 << 20, 300 << 20])
def test_addresses_that_do_not_suffice_are_told_as_memory(
    base: Path, tmp_path: Path, nbytes: int
) -> None:
    finished = run_hfgrow(
        "hyperclone", base, "--g", "2", "--out", tmp_path / "out", address_space_nbytes=nbytes
    )
    if finished.returncode:
        # OpenBLAS may end the process itself.
        assert "memory" in finished.stderr or "OpenBLAS" in finished.stderr
        assert "a bug" not in finished.stderr
        assert "free some space" not in finished.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize("words", [("verify", "./x"), ("inspect", "./x"), ("push", "./x", "a/b")])
def test_a_working_folder_that_is_gone_is_said(tmp_path: Path, words: tuple[str, ...]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", f"rmdir {shlex.quote(str(gone))} && exec {shlex.join([program(), *words])}"],
        cwd=gone,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode in (2, 7), done.stderr
    assert "a bug" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["n" * 300, "~nobody-of-that-name/x"], ids=["long", "home"])
def test_a_path_that_cannot_be_is_a_mistake_and_no_bug(tmp_path: Path, name: str) -> None:
    for words in (
        ("verify", name),
        ("lineage", f"./{name}"),
        ("stack", "demo", "--g", "2", "--out", name),
    ):
        done = call_hfgrow(*words, cwd=tmp_path)
        assert done.returncode in (2, 3, 5, 7), done.stderr
        assert "a bug" not in done.stderr


@pytest.mark.parametrize("text", ["", " \n"], ids=["empty", "blank"])
def test_a_blank_probe_text_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    done = call_hfgrow("verify", "demo", "--text", tmp_path / "t.txt")
    assert done.returncode == 2
    assert "is blank" in done.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_labels", 10**9), ("max_position_embeddings", 1), ("max_position_embeddings", "x")],
)
def test_a_number_that_costs_memory_or_sense_is_refused_at_once(
    base: Path, tmp_path: Path, key: str, value: object
) -> None:
    edit_json(base / "config.json", **{key: value})
    done = call_hfgrow("stack", base, "--g", "2", "--dry-run", cwd=tmp_path)
    assert done.returncode == 3
    assert key in done.stderr
