"""What a growth prints: its plan, the block at its end, and both as JSON."""

import shlex
from dataclasses import asdict
from itertools import cycle
from typing import Any

from hfgrow.checkpoint.compute.cost import cost_of
from hfgrow.console import count, duration, size
from hfgrow.errors import printable
from hfgrow.growth.request import Growth
from hfgrow.lineage.describe import (
    describe_off_beat,
    describe_seams,
    describe_steps,
    describe_widths,
    layer_rows,
    measured_short,
    told_steps,
)
from hfgrow.lineage.manifest import changes_layers, non_embedding_parameters, widths_of
from hfgrow.plan.elsewhere import off_beat
from hfgrow.plan.families.derived import describe_rhythm
from hfgrow.plan.mixture import experts_of
from hfgrow.plan.plan import connection_rate, seams
from hfgrow.plan.tensors import Learned

_MOST_ROWS = 8


def plan_text(growth: Growth) -> str:
    """Return the plan of a growth, as `--dry-run` prints it."""
    base, plan = growth.base, growth.plan
    factor = non_embedding_parameters(plan) / max(non_embedding_parameters(base), 1)
    deeper = (
        f": {base.num_hidden_layers} -> {plan.num_hidden_layers} layers"
        if _changes_layers(growth)
        else ""
    )
    lines = [
        f"{describe_steps(plan.steps)}{deeper}",
        *([f"width           {_changed(growth)}"] if _widths(growth) else []),
        f"parameters      {base.num_parameters:,} -> {plan.num_parameters:,}",
        *_expert_lines(growth),
        f"non-embedding   {non_embedding_parameters(base):,} -> "
        f"{non_embedding_parameters(plan):,} ({factor:.3g}x)",
        f"on disk         {size(growth.layout.nbytes)} ({growth.layout.nbytes:,} bytes) in "
        f"{', '.join(_few(growth.layout.file_names))}",
        f"to push         about {size(_unique_nbytes(growth))} of it is new to Xet, "
        "as long as nothing is trained",
        *_cost_lines(growth),
        f"function        {promise_of(growth)}",
        *_layer_lines(growth),
        *(f"elsewhere       {text}" for text in _elsewhere(growth)),
        f"output          {printable(growth.out, 200)}",
    ]
    if growth.target:
        lines.append(f"push to         {growth.target.repo_id} ({growth.target.visibility})")
    lines += [f"note            {note}" for note in base.notes]
    return "\n".join(lines)


def _cost_lines(growth: Growth) -> list[str]:
    """Return what computing takes, where it is more than a chunk at a time."""
    cost = cost_of(growth.plan)
    lines = [f"memory          about {size(cost.nbytes)} for whole matrices"] if cost.nbytes else []
    if any(isinstance(tensor.recipe, Learned) for tensor in growth.plan.tensors.values()):
        lines.append(f"to learn        {size(growth.base.nbytes)} of memory hold the base")
    if growth.plan.derived is not None:
        whole = size(growth.plan.nbytes)
        lines.append(f"to verify       the grown model is loaded whole: {whole} of memory at least")
    if cost.num_alignments:
        lines.append(
            f"alignments      {cost.num_alignments} transport plans: about "
            f"{duration(cost.alignment_seconds)} of one core"
        )
    if cost.num_predictors:
        lines.append(
            f"predictors      {cost.num_predictors} learn in {cost.num_steps:,} steps: about "
            f"{duration(cost.seconds)} of one core"
        )
    return lines


def _expert_lines(growth: Growth) -> list[str]:
    found = experts_of(growth.plan)
    if not found:
        return []
    of_base = experts_of(growth.base)
    before = of_base.get("num_active_parameters", growth.base.num_parameters)
    experts, passed = (
        _from(of_base.get(key), found[key]) for key in ("num_experts", "num_experts_per_tok")
    )
    return [
        f"experts         {experts} in a layer, of which a token passes {passed}",
        f"active          {before:,} -> {found['num_active_parameters']:,} parameters for each "
        "token",
        *(f"copies          {text}" for text in _copies(growth)),
    ]


def _from(before: int | None, after: int) -> str:
    return f"{after}" if before in (None, after) else f"{before} -> {after}"


def _copies(growth: Growth) -> list[str]:
    """Return what to know of a mixture's new experts that nothing tells from the old ones."""
    return [
        "alike, and training cannot tell them apart; --drop or "
        f"{'a smaller --top-k' if step.preserves_function else '--router-noise'} can"
        for step in growth.plan.steps
        if step.arguments.get("router_noise") == 0 and not step.arguments["drop"]
    ]


def growth_block(growth: Growth) -> tuple[str, list[tuple[str, str]], str | None]:
    """Return what a growth says at its end: a title, what was made, and the next command."""
    base, plan, out = growth.base, growth.plan, printable(growth.out, 200)
    one, two = count(base.num_parameters), count(plan.num_parameters)
    grown = (
        f"{base.num_hidden_layers} layers ({one} parameters) into {plan.num_hidden_layers} ({two})"
        if _changes_layers(growth)
        else f"{one} parameters into {two}"
    )
    measured = growth.manifest.growth.measured if growth.manifest else None
    rows = [
        ("where", f"{out}, {size(growth.layout.nbytes)}{_shared(growth)}"),
        *([("layers", _connections(growth))] if _changes_layers(growth) else []),
        *([("width", _changed(growth))] if _widths(growth) else []),
        *(("copies", text) for text in _copies(growth)),
        *_learned(growth),
        ("function", promise_of(growth)),
        *([("measured", measured_short(measured))] if measured else []),
        *(("elsewhere", text) for text in _elsewhere(growth)),
        (
            "checked",
            f"{len(plan.tensors)} tensors against plan and family{_transformers(growth)}",
        ),
    ]
    following: str | None = f"hfgrow {'push' if measured else 'verify'} {shlex.quote(out)}"
    if growth.pushed:
        state = "already there, nothing to push" if growth.pushed.already else "pushed"
        where = growth.pushed.pull_request or growth.pushed.url
        rows.append(("Hub", f"{state}: {where} ({growth.pushed.visibility})"))
        following = f"hfgrow lineage {growth.target.repo_id}" if growth.target else None
    return f"Grew {grown} by {told_steps(plan.steps)}", rows, following


def growth_document(growth: Growth, *, dry_run: bool) -> dict[str, Any]:
    """Return a growth as JSON."""
    base, plan = growth.base, growth.plan
    measured = growth.manifest.growth.measured if growth.manifest else None
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
        **({"experts": experts} if (experts := experts_of(plan)) else {}),
        "num_non_embedding_parameters": {
            "base": non_embedding_parameters(base),
            "grown": non_embedding_parameters(plan),
        },
        "widths": {key: {"base": before, "grown": after} for key, before, after in _widths(growth)},
        "layer_map": list(plan.sources),
        "connection_rate": connection_rate(plan.layer_map),
        "seams": seams(plan.layer_map),
        "off_beat": asdict(found) if (found := off_beat(base, plan)) else None,
        "nbytes": growth.layout.nbytes,
        "push_nbytes_estimate": _unique_nbytes(growth),
        "files": list(growth.layout.file_names),
        "notes": list(base.notes),
        "measured": measured.to_json() if measured else None,
        "repo": growth.target.repo_id if growth.target else None,
        "private": growth.target.private if growth.target else None,
        "url": growth.pushed.url if growth.pushed else None,
        "commit": growth.pushed.commit if growth.pushed else None,
        "already_pushed": growth.pushed.already if growth.pushed else None,
        "pull_request": growth.pushed.pull_request if growth.pushed else None,
    }


def _changes_layers(growth: Growth) -> bool:
    return changes_layers(growth.plan.layer_map, growth.base.num_hidden_layers)


def _widths(growth: Growth) -> list[tuple[str, int, int]]:
    base, grown = widths_of(growth.base), widths_of(growth.plan)
    return [(key, base[key], grown[key]) for key in base if base[key] != grown[key]]


def _changed(growth: Growth) -> str:
    become_experts = bool(experts_of(growth.plan)) and not experts_of(growth.base)
    return describe_widths(_widths(growth), become_experts=become_experts)


def _learned(growth: Growth) -> list[tuple[str, str]]:
    """Return what learning made of the held-out loss, where maps were learned."""
    found = [step.arguments for step in growth.plan.steps if "initial_loss" in step.arguments]
    return [
        (
            "learned",
            f"held-out loss {one['initial_loss']:.4f} -> {one['loss']:.4f} nats per token, maps of "
            f"step {one['kept_step']}",
        )
        for one in found
    ]


def _layer_lines(growth: Growth) -> list[str]:
    if not _changes_layers(growth):
        return []
    rows = [f"{left} <- {right}" for left, right in layer_rows(growth.plan.layer_map)]
    return [
        f"connections     {_connections(growth)}",
        "layers          " + "; ".join(_few(rows)),
        *_rhythm_lines(growth),
    ]


def _rhythm_lines(growth: Growth) -> list[str]:
    """Return the order of the kinds of layers, where there are several."""
    family = growth.base.derived
    if family is None or len(set(family.kinds)) < 2:
        return []
    kinds = [family.kinds[layer] for layer in growth.plan.sources]
    before, after = describe_rhythm(family.kinds), describe_rhythm(kinds)
    # Of whole copies the base is the period, which does not show in the base alone.
    are_whole = all(kind == own for kind, own in zip(kinds, cycle(family.kinds), strict=False))
    is_kept = are_whole or before.partition(";")[2] == after.partition(";")[2]
    broken_one = "" if is_kept else f"; that of the base was {before}"
    return [f"rhythm          {after}{broken_one}"]


def _connections(growth: Growth) -> str:
    layer_map = growth.plan.layer_map
    return f"Rc {connection_rate(layer_map):.1%}, {describe_seams(layer_map)}"


def promise_of(growth: Growth) -> str:
    """Return what a growth promises of the function."""
    return "preserved" if growth.plan.preserves_function else "not preserved: a start for training"


def _elsewhere(growth: Growth) -> list[str]:
    """Return what other programs have wrong, if they have."""
    found = off_beat(growth.base, growth.plan)
    return [] if found is None else [describe_off_beat(found, "MODEL")]


def _transformers(growth: Growth) -> str:
    tensors = growth.num_transformers_tensors
    return "" if tensors is None else f"; transformers expects exactly these {tensors}"


def _shared(growth: Growth) -> str:
    if not growth.cloned_nbytes:
        return ""
    return f", {growth.cloned_nbytes / growth.layout.nbytes:.0%} shared with the base's blocks"


def _unique_nbytes(growth: Growth) -> int:
    """Return the bytes of the distinct recipes: Xet stores an identical layer once."""
    recipes = {(t.recipe, t.dtype): t.nbytes for t in growth.plan.tensors.values()}
    return sum(recipes.values())


def _few(items: Any) -> list[str]:
    listed = list(items)
    more = [f"... ({len(listed)} in all)"] if len(listed) > _MOST_ROWS else []
    return listed[:_MOST_ROWS] + more
