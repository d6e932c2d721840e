"""Plans and growths in words, and as JSON."""

import shlex
from dataclasses import asdict
from typing import Any

from hfgrow.describe import describe_step, layer_rows
from hfgrow.errors import printable
from hfgrow.lineage import non_embedding_parameters
from hfgrow.numbers import count, size
from hfgrow.plan import Stored, connection_rate, seams
from hfgrow.request import Growth

_MOST_ROWS = 8


def plan_text(growth: Growth) -> str:
    """Return the plan of a growth, as `--dry-run` prints it."""
    base, plan = growth.base, growth.plan
    factor = non_embedding_parameters(plan) / max(non_embedding_parameters(base), 1)
    lines = [
        f"{_step(growth)}: {base.num_hidden_layers} -> {plan.num_hidden_layers} layers",
        f"parameters      {base.num_parameters:,} -> {plan.num_parameters:,}",
        f"non-embedding   {non_embedding_parameters(base):,} -> "
        f"{non_embedding_parameters(plan):,} ({factor:.3g}x)",
        f"on disk         {growth.layout.nbytes:,} bytes in "
        f"{', '.join(_few(growth.layout.file_names))}",
        f"to push         about {size(_unique_nbytes(growth))} of it is new to Xet, "
        "as long as nothing is trained",
        f"function        {_promise(growth)}",
        f"connections     {_connections(growth)}",
        "layers          " + "; ".join(_few(_layer_map(growth))),
        f"output          {printable(growth.out, 200)}",
    ]
    if growth.target:
        visibility = "private" if growth.target.private else "public"
        lines.append(f"push to         {growth.target.repo_id} ({visibility})")
    lines += [f"note            {note}" for note in base.notes]
    return "\n".join(lines)


def growth_text(growth: Growth) -> list[str]:
    """Return what a growth says at its end: at most ten lines, the last the next command."""
    base, plan, out = growth.base, growth.plan, printable(growth.out, 200)
    quoted = shlex.quote(out)
    lines = [
        f"Grew {base.num_hidden_layers} layers ({count(base.num_parameters)} parameters) into "
        f"{plan.num_hidden_layers} ({count(plan.num_parameters)}) by {_step(growth)}",
        f"  where     {out}, {size(growth.layout.nbytes)}{_shared(growth)}",
        f"  layers    {_connections(growth)}",
        f"  function  {_promise(growth)}{_measured(growth)}",
        f"  checked   {len(plan.tensors)} tensors against plan and family{_transformers(growth)}",
    ]
    if growth.pushed:
        state = "already there, nothing to push" if growth.pushed.already else "pushed"
        lines.append(f"  Hub       {state}: {growth.pushed.pull_request or growth.pushed.url}")
    following = f"hfgrow push {quoted}" if growth.manifest and growth.manifest.link.measured else ""
    if not growth.pushed:
        lines.append(f"Next: {following or f'hfgrow verify {quoted}'}")
    elif growth.target:
        lines.append(f"Next: hfgrow lineage {growth.target.repo_id}")
    return lines


def growth_document(growth: Growth, *, dry_run: bool) -> dict[str, Any]:
    """Return a growth as JSON."""
    base, plan = growth.base, growth.plan
    measured = growth.manifest.link.measured if growth.manifest else None
    return {
        "out": str(growth.out),
        "dry_run": dry_run,
        "steps": [
            {"operator": step.operator, "arguments": dict(step.arguments)} for step in plan.steps
        ],
        "preserves_function": plan.preserves_function,
        "num_hidden_layers": {
            "base": base.num_hidden_layers,
            "grown": plan.num_hidden_layers,
        },
        "num_parameters": {"base": base.num_parameters, "grown": plan.num_parameters},
        "num_non_embedding_parameters": {
            "base": non_embedding_parameters(base),
            "grown": non_embedding_parameters(plan),
        },
        "layer_map": list(plan.sources),
        "connection_rate": connection_rate(plan.sources),
        "seams": seams(plan.sources),
        "nbytes": growth.layout.nbytes,
        "push_nbytes_estimate": _unique_nbytes(growth),
        "files": list(growth.layout.file_names),
        "notes": list(base.notes),
        "measured": asdict(measured) if measured else None,
        "repo": growth.target.repo_id if growth.target else None,
        "private": growth.target.private if growth.target else None,
        "url": growth.pushed.url if growth.pushed else None,
        "commit": growth.pushed.commit if growth.pushed else None,
        "already_pushed": growth.pushed.already if growth.pushed else None,
        "pull_request": growth.pushed.pull_request if growth.pushed else None,
    }


def _step(growth: Growth) -> str:
    steps = growth.plan.steps
    return ", then ".join(describe_step(step.operator, step.arguments) for step in steps)


def _connections(growth: Growth) -> str:
    sources = growth.plan.sources
    found = seams(sources)
    shown = ", ".join(map(str, found[:_MOST_ROWS])) + (", ..." if len(found) > _MOST_ROWS else "")
    where = f"seams before layers {shown}" if found else "no seam"
    return f"Rc {connection_rate(sources):.1%}, {where}"


def _layer_map(growth: Growth) -> list[str]:
    return [f"{left} <- {right}" for left, right in layer_rows(growth.plan.sources)]


def _promise(growth: Growth) -> str:
    return "preserved" if growth.plan.preserves_function else "not preserved: train on"


def _measured(growth: Growth) -> str:
    measured = growth.manifest.link.measured if growth.manifest else None
    if measured is None:
        return ""
    return (
        f"; loss {measured.base_loss:.3f} -> {measured.grown_loss:.3f} on {measured.num_tokens} "
        f"tokens, max |dlogit| {measured.max_abs_dlogit:.3g}"
    )


def _transformers(growth: Growth) -> str:
    tensors = growth.num_transformers_tensors
    return "" if tensors is None else f"; transformers expects exactly these {tensors}"


def _shared(growth: Growth) -> str:
    if not growth.cloned_nbytes:
        return ""
    return f", {growth.cloned_nbytes / growth.layout.nbytes:.0%} shared with the base's blocks"


def _unique_nbytes(growth: Growth) -> int:
    """Return the bytes of the distinct sources: Xet stores an identical layer once."""
    recipes: dict[Stored, int] = {t.recipe: t.nbytes for t in growth.plan.tensors.values()}
    return sum(recipes.values())


def _few(items: Any) -> list[str]:
    listed = list(items)
    more = [f"... ({len(listed)} in all)"] if len(listed) > _MOST_ROWS else []
    return listed[:_MOST_ROWS] + more
