"""What files of hfgrow/, cli/ and recipes/ import of each other; floors and circles of that."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDERS = {"hfgrow": "hfgrow", "hfgrow_cli": "cli", "hfgrow_recipes": "recipes"}
_FRONT_DOOR = "hfgrow"
_CHECKING = ("TYPE_CHECKING", "typing.TYPE_CHECKING")

Arrows = Mapping[str, set[str]]


@dataclass(frozen=True)
class House:
    """The files of hfgrow/, cli/ and recipes/: paths and trees by module, and what imports what.

    `imports` are those anywhere in a file, `run_imports` those that run when it is imported.
    """

    root: Path
    files: Mapping[str, Path]
    trees: Mapping[str, ast.Module]
    imports: Arrows
    run_imports: Arrows


def read_house(root: Path) -> House:
    """Read the files of a checkout; `ValueError` if it lacks one of the folders."""
    files: dict[str, Path] = {}
    for package, name in FOLDERS.items():
        found = sorted((root / name).rglob("*.py"))
        if not found:
            raise ValueError(f"{root} has no Python files in {name}/")
        for path in found:
            *parents, stem = path.relative_to(root / name).with_suffix("").parts
            files[".".join([package, *parents, stem]).removesuffix(".__init__")] = path
    trees = {module: ast.parse(path.read_bytes()) for module, path in files.items()}
    homes: dict[str, str] = {}
    for node, kind in import_nodes(trees.get(_FRONT_DOOR, ast.Module([], []))):
        if kind == "typing" and isinstance(node, ast.ImportFrom):
            homes |= {alias.name: node.module or "" for alias in node.names}
    imports: dict[str, set[str]] = defaultdict(set)
    run_imports: dict[str, set[str]] = defaultdict(set)
    for module, tree in trees.items():
        package = module if files[module].stem == "__init__" else module.rpartition(".")[0]
        for node, kind in import_nodes(tree):
            if module == _FRONT_DOOR and kind == "typing":
                continue
            found_here = set(_targets(node, package, files, homes)) - {module}
            imports[module] |= found_here
            if kind == "run":
                run_imports[module] |= found_here
    return House(root, files, trees, imports, run_imports)


def import_nodes(
    node: ast.AST, kind: str = "run"
) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Yield every import and its kind: run at import, lazy in a function, or typing."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, kind
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        kind = "lazy"
    checked: list[ast.stmt] = []
    if isinstance(node, ast.If) and ast.unparse(node.test) in _CHECKING:
        checked = node.body
    for child in ast.iter_child_nodes(node):
        yield from import_nodes(child, "typing" if child in checked else kind)


def _targets(
    node: ast.Import | ast.ImportFrom,
    package: str,
    files: Mapping[str, Path],
    homes: Mapping[str, str],
) -> Iterator[str]:
    """Yield the modules of the house that an import names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in files)
        return
    base = node.module or ""
    if node.level:
        parts = package.split(".")
        base = ".".join([*parts[: len(parts) - node.level + 1], base]).rstrip(".")
    for alias in node.names:
        home = homes.get(alias.name, "") if base == _FRONT_DOOR else ""
        names = (f"{base}.{alias.name}", home, base)
        yield from [name for name in names if name in files][:1]


def room_of(module: str) -> str | None:
    """Return the room of a module, None for the front door."""
    package, *rest = module.split(".")
    if package != _FRONT_DOOR:
        return FOLDERS[package]
    return rest[0] if rest else None


def room_arrows(arrows: Arrows) -> Arrows:
    """Return the arrows between rooms that arrows between files make."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, others in arrows.items():
        for room, other in ((room_of(module), room_of(name)) for name in others):
            if room is not None and other is not None and room != other:
                found[room].add(other)
    return found


def reached(arrows: Arrows) -> Arrows:
    """Return everything that each can reach, itself only on a circle."""
    result = {}
    for start in {*arrows, *(name for names in arrows.values() for name in names)}:
        seen: set[str] = set()
        waiting = list(arrows.get(start, ()))
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += arrows.get(name, ())
        result[start] = seen
    return result


def floors(arrows: Arrows) -> Mapping[str, int]:
    """Return the floor of each that an arrow touches, 1 for what imports nothing."""
    reach = reached(arrows)

    @cache
    def floor(name: str) -> int:
        below = (floor(other) for other in reach[name] if name not in reach[other])
        return 1 + max(below, default=0)

    return {name: floor(name) for name in reach}


def circles(arrows: Arrows) -> list[list[str]]:
    """Return the circles, each and all in alphabetical order."""
    reach = reached(arrows)
    found = {frozenset(o for o in reach[n] if n in reach[o]) for n in reach if n in reach[n]}
    return sorted(sorted(circle) for circle in found)
