"""Fuzz one target for some seconds, guided by coverage if atheris is installed, else at random.

    python -m tests.fuzz header 60

A crash, a hang of 10 s or more than 2 GB of memory ends with an error and the bytes that did it.
"""

import importlib
import random
import resource
import signal
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_HANG_S = 10
_MEMORY_MB = 2048


def main() -> None:
    """Read the command line and fuzz."""
    target, seconds = sys.argv[1], int(sys.argv[2])
    if find_spec("atheris") is None:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_MB << 20, _MEMORY_MB << 20))
        at_random(target, seconds)
    else:
        guided(target, seconds)


def guided(target: str, seconds: int) -> None:
    """Fuzz with libFuzzer, which prints how often it ran the target."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["hfgrow"]):
        targets = importlib.import_module("tests.fuzz.targets")
    with tempfile.TemporaryDirectory() as folder:
        for i, seed in enumerate(targets.seeds(target)):
            Path(folder, f"seed{i}").write_bytes(seed)
        limits = [f"-max_total_time={seconds}", f"-timeout={_HANG_S}", "-max_len=65536"]
        limits += [
            f"-artifact_prefix={tempfile.gettempdir()}/",
            f"-rss_limit_mb={_MEMORY_MB}",
            "-print_final_stats=1",
            "-verbosity=1",
        ]
        atheris.Setup(
            [sys.argv[0], *limits, folder], lambda data: targets.check_answer(target, data)
        )
        atheris.Fuzz()


def at_random(target: str, seconds: float, max_runs: int = 1 << 62) -> int:
    """Fuzz with random changes, and return how often the target accepted them."""
    from tests.fuzz.mutations import mutated
    from tests.fuzz.targets import check_answer, seeds

    chance = random.Random(20240524)
    good, runs, accepted = seeds(target), 0, 0
    end = time.monotonic() + seconds
    while runs < max_runs and time.monotonic() < end:
        data = mutated(chance.choice(good), chance.choice(good), chance)
        signal.alarm(_HANG_S)
        try:
            was_accepted = check_answer(target, data)
        except BaseException:
            print(f"{target}: {data!r}", file=sys.stderr)
            raise
        signal.alarm(0)
        runs, accepted = runs + 1, accepted + was_accepted
        if was_accepted and len(good) < 500:
            good.append(data)
    print(f"{target}: {runs} runs in {seconds} s, {accepted} accepted, no fault")
    return accepted


if __name__ == "__main__":
    main()
