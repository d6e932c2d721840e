"""How the code is laid out: files, rooms, floors and circles of imports; the files of one command.

    python -m benchmarks.house [FOLDER]                                # a checkout, or this one
    python -m benchmarks.house --walk -- stack demo --g 4 --out DIR    # what a command passes

A room is a loose module or a package directly below hfgrow/; the command line, cli/, is one more,
not counted as "at the root". hfgrow/__init__.py is the front door and no room: what it imports for
type checkers says where its lazy names live, and who imports such a name from hfgrow imports its
home. `from package import module` imports the module; that the `__init__` of its packages runs too
is not counted, nor are names handed to `import_module`.

An arrow leads from one file or room to another, once however often the import is written. "All
imports" are also those inside functions and for type checkers, "run at import" are without both.
A floor is the length of the longest chain of arrows that begins there, a circle counting as one;
a circle is a strongly connected component of more than one.

A walk is the Python functions of hfgrow/, cli/ and recipes/ called in this thread, as
`sys.setprofile` sees them; bodies of modules and classes, and what is called from one, are left
out. A generator is called whenever it is resumed. Files stand in the order of their first call.
"Climbs" are calls whose caller, the nearest function of ours on the stack, is in a room on a lower
floor (over all imports), as callbacks do. Down that list of files, "steps up" are those on a higher
floor than the one before, and "returns" those that come back to a room from another after it had
been left.
"""

import argparse
import ast
import inspect
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.imports import FOLDERS, House, circles, floors, read_house, room_arrows, room_of
from benchmarks.measure import table

_KINDS = ("all imports", "run at import")
# Two files: who calls, nobody for the first of all, and who is called.
Call = tuple[str | None, str]


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once."""
    return sorted(name for name, times in Counter(names).items() if times > 1)


def figures(house: House) -> str:
    """Return the tables of the structure, and the names behind their counts."""
    lines = {module: path.read_bytes().count(b"\n") for module, path in house.files.items()}
    largest = max(lines, key=lambda module: lines[module])
    rooms = {room_of(module) for module in house.files} - {None, *FOLDERS.values()}
    stems = repeated(path.stem for path in house.files.values() if path.stem != "__init__")
    bodies = [node for tree in house.trees.values() for node in tree.body]
    classes = repeated(node.name for node in bodies if isinstance(node, ast.ClassDef))
    sizes = {
        "files in hfgrow/, cli/ and recipes/": str(len(lines)),
        "lines": f"{sum(lines.values()):,}",
        "median lines of a file": f"{statistics.median(lines.values()):g}",
        "largest file": f"{lines[largest]}, {house.files[largest].relative_to(house.root)}",
        "rooms at the root of hfgrow/": str(len(rooms)),
        "names of modules that occur twice": str(len(stems)),
        "names of classes that occur twice": str(len(classes)),
    }
    kinds = (house.imports, house.run_imports)
    between = [room_arrows(arrows) for arrows in kinds]
    rows = {
        "floors, the command line on top": [max(floors(a).values(), default=1) for a in between],
        "arrows between rooms": [sum(map(len, a.values())) for a in between],
        "circles of rooms": [len(circles(a)) for a in between],
        "arrows between files": [sum(map(len, a.values())) for a in kinds],
        "longest chain of files": [max(floors(a).values(), default=1) for a in kinds],
        "circles of files": [len(circles(a)) for a in kinds],
    }
    return "\n\n".join(
        [
            table(["", "house"], [list(row) for row in sizes.items()]),
            table(["", *_KINDS], [[name, *map(str, two)] for name, two in rows.items()]),
            *("circle: " + ", ".join(circle) for circle in circles(house.imports)),
            f"modules twice: {', '.join(stems)}\nclasses twice: {', '.join(classes)}",
        ]
    )


def walk(house: House, function: Callable[[], object]) -> list[Call]:
    """Return the calls of functions of the house that a function makes, in order."""
    by_path = {path.resolve(): module for module, path in house.files.items()}
    calls: list[Call] = []

    @cache
    def module_at(file_name: str) -> str | None:
        return by_path.get(Path(file_name).resolve())

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or module_at(frame.f_code.co_filename) is None:
            return
        ours: list[str] = []
        above: FrameType | None = frame
        while above is not None:
            module = module_at(above.f_code.co_filename)
            if module is not None:
                # Only the code of functions is optimised: this is the body of a module or class.
                if not above.f_code.co_flags & inspect.CO_OPTIMIZED:
                    return
                ours.append(module)
            above = above.f_back
        calls.append((ours[1] if len(ours) > 1 else None, ours[0]))

    sys.setprofile(note)
    try:
        function()
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.setprofile(None)
    return calls


def route(house: House, calls: list[Call]) -> str:
    """Return the files of a walk in order, with their floors, and its figures."""
    by_room = floors(room_arrows(house.imports))
    # A room that no arrow touches stands on the ground; the front door is on no floor.
    room = {module: room_of(module) for module in house.files}
    floor = {module: 0 if r is None else by_room.get(r, 1) for module, r in room.items()}
    order = list(dict.fromkeys(module for _, module in calls))
    climbs = [(a, b) for a, b in calls if a is not None and 0 < floor[a] < floor[b]]
    inside = [module for module in order if floor[module]]
    entered = [room[b] for a, b in pairwise(["", *inside]) if room[b] != room.get(a)]
    rows = [
        ["files", str(len(order))],
        ["climbs", f"{len(climbs)} calls, {len(set(climbs))} pairs of files"],
        ["steps up", str(sum(floor[a] < floor[b] for a, b in pairwise(inside)))],
        ["returns", str(len(entered) - len(set(entered)))],
    ]
    paths = [f"{floor[m] or '-':>3}  {house.files[m].relative_to(house.root)}" for m in order]
    pairs = [f"climb: {a} calls {b}" for a, b in dict.fromkeys(climbs)]
    return "\n".join(["floor  file", *paths, *pairs, table(["walk", ""], rows)])


def main() -> None:
    """Print the figures of a checkout, or the walk of a command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="a checkout [default: this one]")
    parser.add_argument("--walk", action="store_true", help="follow the command line after --")
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    arguments = parser.parse_args(given[:cut])
    try:
        house = read_house(arguments.folder or Path(__file__).parents[1])
    except (ValueError, SyntaxError) as error:
        parser.error(str(error))
    if not arguments.walk:
        print(figures(house))
        return
    (script,) = entry_points(group="console_scripts", name="hfgrow")
    program = script.load()
    if Path(inspect.getfile(program)).resolve() not in {p.resolve() for p in house.files.values()}:
        parser.error(f"what runs here is {inspect.getfile(program)}, not that checkout")
    sys.argv = ["hfgrow", *given[cut + 1 :]]
    print(route(house, walk(house, program)))


if __name__ == "__main__":
    main()
