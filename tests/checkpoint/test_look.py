"""One reading of a base beside other work: hashes, and numbers that are none."""

import hashlib
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfgrow.checkpoint.compute import look
from hfgrow.checkpoint.compute.look import Look, Seen
from hfgrow.checkpoint.files import LocalFolder, read_into
from hfgrow.checkpoint.read import read
from hfgrow.console import Silent
from hfgrow.errors import ModelError
from tests.attacks.craft import add_tensor


def seen(base: Path, *, finite: bool = True, hashes: bool = True) -> Seen:
    plan = read(LocalFolder(base))
    with Look(plan, plan.files if hashes else (), finite=finite).beside() as found:
        return found.result(Silent())


def digests(base: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in base.glob("*.safetensors")
    }


def spoil(base: Path, *names: str) -> None:
    tensors = load_file(base / "model.safetensors")
    for name in names:
        tensors[name].view(-1)[3] = torch.nan
        tensors[name].view(-1)[5] = torch.inf
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that part a tensor, as those of large models do."""
    monkeypatch.setattr(look, "_READ_NBYTES", 1 << 10)


@pytest.mark.usefixtures("pieces")
def test_every_file_is_hashed_as_a_whole(base: Path, sharded_base: Path) -> None:
    """Also what is no tensor of the plan: the header, and buffers that are recomputed."""
    add_tensor(
        base / "model.safetensors", "model.layers.0.self_attn.rotary_emb.inv_freq", [4], bytes(16)
    )
    for folder in (base, sharded_base):
        assert seen(folder) == Seen(digests(folder))
        assert seen(folder, finite=False) == Seen(digests(folder))


def test_what_nobody_asks_for_is_not_read(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "read_into", None)
    assert seen(base, finite=False, hashes=False) == Seen({})


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("hashes", [True, False])
def test_numbers_that_are_none_are_counted_by_tensor(base: Path, hashes: bool) -> None:
    spoil(base, "lm_head.weight", "model.layers.1.mlp.up_proj.weight")
    found = seen(base, hashes=hashes)
    assert found.sha256 == (digests(base) if hashes else {})
    assert "holds 2 values that are NaN or infinite" in str(found.not_finite)
    assert "1 more tensors hold some" in str(found.not_finite)


def test_a_base_that_changes_meanwhile_is_refused(base: Path) -> None:
    plan = read(LocalFolder(base))
    with (base / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with (
        Look(plan, plan.files, finite=False).beside() as found,
        pytest.raises(ModelError, match="changed while it was read"),
    ):
        found.result(Silent())


@pytest.mark.usefixtures("pieces")
def test_a_look_ends_with_the_work_that_it_is_beside(base: Path) -> None:
    plan = read(LocalFolder(base))
    with pytest.raises(KeyboardInterrupt), Look(plan, plan.files, finite=True).beside():
        raise KeyboardInterrupt
    assert not [thread for thread in threading.enumerate() if "Pool" in thread.name]


def test_a_signal_never_comes_to_the_thread_of_a_look(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would end what the rest of the program does undisturbed."""
    kept_off: list[set[int]] = []

    def watched(*arguments: Any) -> bool:
        kept_off.append({*signal.pthread_sigmask(signal.SIG_BLOCK, ())})
        return read_into(*arguments)

    monkeypatch.setattr(look, "read_into", watched)
    seen(base)
    assert kept_off
    assert all({signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= each for each in kept_off)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_look_that_takes_longer_than_the_work_is_counted(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    class Told(Silent):
        def bytes(self, what: str, total: int) -> "Told":
            assert (what, total) == (
                "Reading the base",
                (base / "model.safetensors").stat().st_size,
            )
            return self

        def advance(self, nbytes: int) -> None:
            told.append(nbytes)

    slow = threading.Event()

    def wait(*arguments: Any) -> bool:
        slow.wait(10)
        return read_into(*arguments)

    monkeypatch.setattr(look, "read_into", wait)
    monkeypatch.setattr(look, "_PATIENCE_S", 0.01)
    plan = read(LocalFolder(base))
    with Look(plan, plan.files, finite=False).beside() as found:
        threading.Timer(0.05, slow.set).start()
        assert found.result(Told()).sha256 == digests(base)
    assert told


@pytest.mark.usefixtures("pieces")
def test_what_would_be_in_vain_is_told_before_all_is_read(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(base, "lm_head.weight")
    plan = read(LocalFolder(base))
    found = Look(plan, plan.files, finite=True, in_vain=True)
    is_seen = threading.Event()

    def waiting(piece: memoryview, descriptor: int, offset: int) -> bool:
        if found._not_finite is not None:
            # The rest comes once the block below is done.
            is_seen.wait(10)
        return read_into(piece, descriptor, offset)

    monkeypatch.setattr(look, "read_into", waiting)
    with found.beside():
        deadline = time.monotonic() + 10
        while found._not_finite is None and time.monotonic() < deadline:
            time.sleep(0.001)
        try:
            with pytest.raises(ModelError, match=r"lm_head\.weight holds 2 values that are NaN or"):
                found.check()
        finally:
            is_seen.set()
