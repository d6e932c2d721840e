"""Stack on a file system that shares blocks, against a full copy of the same bytes; needs root.

A file is formatted as XFS or Btrfs and mounted through a loop device, and unmounted at the end.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import (
    Run,
    clear,
    hfgrow_program,
    machine,
    measure,
    median,
    ratio,
    table,
    warm,
    write_json,
)
from benchmarks.models import SHAPES, make_llama, wrong_tensors
from benchmarks.rounds import held

_FORMAT = {"xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"], "btrfs": ["mkfs.btrfs", "-q"]}


# The most time beside cp, and the most new blocks. Where the bytes of a stack of layers are no
# whole number of blocks, most of it is copied.
_AIMS = {"smollm2-135m": (0.6, 0.7)}
_AIM = (0.05, 0.02)


def main() -> None:
    """Run the rounds on each file system and print one table."""
    arguments = _arguments()
    rows, results = [], {}
    for system in arguments.file_systems:
        with _mounted(system, arguments.folder, arguments.image_gb) as mount:
            rounds, new = _rounds(mount, arguments.shape, arguments.g, arguments.rounds)
        wall = ratio(rounds, "hfgrow", "cp", lambda r: r.total_s)
        assert wall is not None
        nbytes = rounds[0]["hfgrow"].output_nbytes
        most, most_new = _AIMS.get(arguments.shape, _AIM)
        kept = wall[0] <= most and max(new["hfgrow"]) <= most_new * nbytes
        results[system] = {"rounds": rounds, "new_nbytes": new}
        rows.append(
            [
                f"{system}, {arguments.shape}",
                f"{nbytes / 1e9:.2f}",
                f"{median(rounds, 'hfgrow', lambda r: r.total_s):.2f}",
                f"{median(rounds, 'cp', lambda r: r.total_s):.2f}",
                "{:.3f} ({:.3f}-{:.3f})".format(*wall),
                f"{max(new['hfgrow']) / 1e6:.1f}",
                f"{min(new['cp']) / 1e6:.0f}",
                f"{100 * max(new['hfgrow']) / nbytes:.3f} %",
                f"{most:g}x, {most_new:.0%}: {held(kept)}",
            ]
        )
    head = ["file system, model", "GB", "hfgrow s", "cp s", "hfgrow / cp"]
    new_head = ["new MB, hfgrow", "new MB, cp", "new blocks", "aim"]
    print(table([*head, *new_head], rows))
    print(machine(arguments.folder), f"load {os.getloadavg()[0]:.1f}")
    write_json(arguments.json, arguments.folder, results=results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where images lie")
    parser.add_argument("--file-systems", nargs="+", choices=_FORMAT, default=["xfs"])
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama-1.1b")
    parser.add_argument("--g", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image-gb", type=int, default=14, help="the sparse file's size")
    parser.add_argument("--json", type=Path, help="write every run here")
    return parser.parse_args()


@contextmanager
def _mounted(system: str, folder: Path, gigabytes: int) -> Iterator[Path]:
    program, *options = _FORMAT[system]
    if shutil.which(program) is None:
        sys.exit(f"{program} is missing: install xfsprogs or btrfs-progs")
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{system}.img"
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(gigabytes * 10**9)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        try:
            subprocess.run([program, *options, image], check=True)
            subprocess.run(["mount", "-o", "loop", image, place], check=True)
            try:
                yield Path(place)
            finally:
                subprocess.run(["umount", place], check=True)
        finally:
            image.unlink()


def _rounds(
    mount: Path, shape_name: str, g: int, count: int
) -> tuple[list[dict[str, Run]], dict[str, list[int]]]:
    shape = SHAPES[shape_name]
    base, grown, copied = mount / "base", mount / "grown", mount / "copied"
    make_llama(base, shape)
    commands = {
        "hfgrow": (peers.hfgrow(hfgrow_program(), base, grown, g), grown, base),
        "cp": (peers.cp(grown, copied, "--reflink=never"), copied, grown),
    }
    rounds: list[dict[str, Run]] = []
    new: dict[str, list[int]] = {"hfgrow": [], "cp": []}
    for i in range(count):
        clear(grown, copied)
        rounds.append({})
        for name, (command, out, source) in commands.items():
            warm(source)
            before = _used_nbytes(mount)
            rounds[-1][name] = measure(command, out)
            new[name].append(_used_nbytes(mount) - before)
            run = rounds[-1][name]
            text = f"{run.total_s:.2f} s, {new[name][-1] / 1e6:.1f} MB new"
            print(f"round {i + 1}: {name}: {text}, load {run.load:.1f}", file=sys.stderr)
    # From the disk, not from what the page cache still holds of the writing.
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1", encoding="utf-8")
    wrong = wrong_tensors(base, grown, shape.num_hidden_layers, g)
    if wrong:
        sys.exit(f"{len(wrong)} tensors differ from the base, such as {wrong[0]}")
    print("every tensor equals its source", file=sys.stderr)
    return rounds, new


def _used_nbytes(mount: Path) -> int:
    os.sync()
    space = os.statvfs(mount)
    return (space.f_blocks - space.f_bfree) * space.f_frsize


if __name__ == "__main__":
    main()
