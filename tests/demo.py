"""What `make demo` runs: the main job on the embedded model, against a Hub on loopback.

Every command goes through the installed console script, as a user would type it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.hub import ALICE, Hub
from tests.hub.fixtures import hub_environment

OUT = Path("demo-out")


def main() -> None:
    """Grow, verify, push and look at the result."""
    program = str(Path(sys.executable).with_name("hfgrow"))
    shutil.rmtree(OUT, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="hfgrow-demo-") as scratch, Hub() as hub:
        environment = os.environ | hub_environment(hub, Path(scratch), token=ALICE)

        def run(*words: str) -> None:
            print(f"\n$ hfgrow {' '.join(words)}", flush=True)
            subprocess.run([program, *words], env=environment, check=True)

        run("inspect", "demo")
        run("stack", "demo", "--g", "4", "--out", str(OUT), "--push", "--repo", "demo-stack-g4")
        run("verify", str(OUT))
        run("lineage", "alice/demo-stack-g4")
        run("reproduce", "alice/demo-stack-g4")
        run("push", str(OUT), "demo-stack-g4")
    print(f"\nThe grown model, its card and its lineage lie in {OUT}/.")


if __name__ == "__main__":
    main()
