"""What `make demo` runs: growth and training of the embedded model, against a Hub on loopback.

Every command goes through the installed console script, as a user would type it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import hub_environment

OUT, TRAINED = Path("demo-out"), Path("demo-trained")


def main() -> None:
    """Grow, verify, push; grow and train; look at the results."""
    program = str(Path(sys.executable).with_name("hfgrow"))
    for folder in (OUT, TRAINED):
        shutil.rmtree(folder, ignore_errors=True)
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
        # Half a minute on 2 cores: twice as deep, then trained until it is better than its base.
        run("train", "demo", "--cpu", "--set", "push.repo=demo-trained")
        run("lineage", "alice/demo-trained")
    print(
        f"\nThe grown model lies in {OUT}/, the trained one in {TRAINED}/final/, with their cards"
    )
    print(f"and lineages; {TRAINED}/final/loss.png shows the loss.")


if __name__ == "__main__":
    main()
