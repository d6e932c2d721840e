"""The growing commands, one for each operator and one for a file of steps, and what they print."""

import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow.checkpoint.compute.cost import cost_of
from hfgrow.checkpoint.layout import parse_nbytes
from hfgrow.console import count, duration, size
from hfgrow.errors import GrowthError, Speech, UsageError, printable
from hfgrow.growth.grow import grow
from hfgrow.growth.mergekit import Passthrough
from hfgrow.growth.request import Growth, GrowthRequest
from hfgrow.growth.steps import read_steps
from hfgrow.lineage.describe import (
    describe_off_beat,
    describe_seams,
    describe_step,
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
from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.operators.operator import Operator
from hfgrow.plan.plan import connection_rate, seams
from hfgrow.plan.tensors import Learned

from . import options
from .completion import growths
from .operator_pages import example_of
from .options import Step, extra_parameters, own_parameters, parameter_of, with_extra_steps
from .terminal import OPTIONS, Console, broken, say_block

_SHARED: dict[str, tuple[Any, Any]] = {
    "out": (options.OutOption, None),
    "overwrite": (options.OverwriteOption, False),
    "dry_run": (options.DryRunOption, False),
    "revision": (options.RevisionOption, None),
    "dtype": (options.DtypeOption, None),
    "allow_nonfinite": (options.AllowNonfiniteOption, False),
    "untested": (options.UntestedOption, False),
    "max_shard_size": (options.MaxShardOption, "50GB"),
    "verify": (options.VerifyOption, None),
    "push": (options.PushOption, False),
    "repo": (options.RepoOption, None),
    "private": (options.PrivateOption, None),
    "create_pr": (options.CreatePrOption, False),
    "exist_ok": (options.ExistOkOption, False),
    "token": (options.TokenOption, None),
    "json": (options.JsonOption, False),
    "quiet": (options.QuietOption, False),
}
_APPLY_EXAMPLES = """\
hfgrow apply TinyLlama steps.yaml       # such as: [zero-depth: {g: 2}, untie]
hfgrow apply TinyLlama mergekit.yaml    # passthrough slices of mergekit
hfgrow apply Qwen/Qwen3-4B-Base openseek-mid   # a growth that hfgrow knows
hfgrow apply TinyLlama steps.yaml --dry-run"""
MODEL = parameter_of("model", options.ModelArgument, inspect.Parameter.empty)
# From the values of all parameters, the request without its steps, and who is told.
Work = Callable[[Mapping[str, Any], GrowthRequest, Console], Growth]
_StepsArgument = Annotated[
    str,
    typer.Argument(
        metavar="STEPS",
        help="A YAML list, such as: - stack: {g: 2}; a passthrough recipe of mergekit; or a growth "
        "of hfgrow's: `hfgrow recipes` lists them.",
        autocompletion=growths,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the subcommand of every operator to the program, and that of a file of steps."""
    for operator in OPERATORS.values():
        shown = example_of(operator.name)
        _register(app, operator.name, _operator_command(operator), _help(operator), shown)
    text = "Apply a list of operators in one pass, or a passthrough recipe of mergekit."
    _register(app, "apply", _apply_command(), text, _APPLY_EXAMPLES)


def _register(app: typer.Typer, name: str, run: Callable[..., None], text: str, shown: str) -> None:
    app.command(name, help=text, epilog=shown)(run)


def _operator_command(operator: Operator[...]) -> Callable[..., None]:
    return growing_command(
        [MODEL, *parameters_of(operator)], _by(lambda values: steps_of(operator, values))
    )


def parameters_of(operator: Operator[...]) -> list[inspect.Parameter]:
    """Return what the command of an operator takes besides what all growing commands do."""
    own = own_parameters(operator.parameters)
    return [*own.values(), *extra_parameters(operator, own).values()]


def steps_of(operator: Operator[...], values: Mapping[str, Any]) -> list[Step]:
    """Return the steps that values of an operator's parameters stand for, None being no value.

    Raises:
        UsageError: There is a seed, and nothing that it seeds.
    """
    names = (parameter.name for parameter in operator.parameters)
    arguments = {name: values[name] for name in names if values[name] is not None}
    return with_extra_steps(operator, arguments, values)


def _apply_command() -> Callable[..., None]:
    steps_argument = parameter_of("steps", _StepsArgument, inspect.Parameter.empty)

    def work(values: Mapping[str, Any], request: GrowthRequest, console: Console) -> Growth:
        from hfgrow.train.recipe.files import find_recipe, shipped_recipes

        model, name = values["model"], values["steps"]
        if _is_file_of_steps(model) and not Path(name).is_file():
            # The order of earlier versions.
            model, name = name, model
        try:
            file = find_recipe(name, "growths")
        except UsageError as error:
            known = shipped_recipes("growths")
            if model.removesuffix(".yaml") in known:
                words = shlex.join(["hfgrow", "apply", name, model])
                error.hint = f"the model comes first: {words}"
            elif not error.hint.startswith("did you mean"):
                names = ", ".join(known)
                error.hint = f"a file that holds such as [stack: {{g: 2}}], or one of {names}"
            raise
        found = read_steps(file)
        request = replace(request, model=model, steps=found.steps)
        if found.passthrough:
            request = _as_mergekit_says(found.passthrough, request, name, console)
        try:
            return grow(request, console)
        except GrowthError as error:
            error.speak(_IN_STEPS)
            if "step" in error.details and file != Path(name).expanduser():
                error.hint = (
                    f"{name} is for a model of another shape: hfgrow recipes {name} --copy "
                    "mine.yaml, and change the step there"
                )
            raise

    return growing_command([MODEL, steps_argument], work)


def _as_mergekit_says(
    found: Passthrough, request: GrowthRequest, name: str, console: Console
) -> GrowthRequest:
    """Return a request with what a recipe of mergekit asks for besides its slices."""
    if found.unread:
        unread = printable(", ".join(found.unread), 200)
        console.say(f"Note: {printable(name, 200)} has {unread}, which hfgrow does not read")
    converted = f" --dtype {found.dtype}" if found.dtype and not request.dtype else ""
    typed = [describe_step(*step) for step in found.steps[1:]]
    first = f"hfgrow {describe_typed(found.steps[0], request.model)}{converted}"
    console.say(f"That is: {', then '.join([first, *typed])}")
    return replace(
        request, dtype=request.dtype or found.dtype, num_base_layers=found.num_base_layers
    )


def _key(name: str, value: str) -> str | None:
    """Return an argument as a file of steps has it, and an option as it is typed."""
    if not any(operator.parameter(name) for operator in OPERATORS.values()):
        return OPTIONS.argument(name, value)
    return f"{name}: {value}" if value else name


def _entry(operator: str, given: Mapping[str, str]) -> str:
    row = OPERATORS.get(operator)
    if row is None or not all(map(row.parameter, given)):
        return OPTIONS.growth(operator, given)
    return f"[{operator}: {{{', '.join(f'{key}: {value}' for key, value in given.items())}}}]"


_IN_STEPS = Speech(_key, _entry)


def _is_file_of_steps(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml") and Path(name).is_file()


def describe_typed(step: Step, model: str) -> str:
    """Return a step as it is typed behind `hfgrow`."""
    operator, *words = describe_step(*step).split()
    return shlex.join([operator, model, *words])


def _by(steps: Callable[[Mapping[str, Any]], list[Step]]) -> Work:
    """Return the work of a command that grows by steps."""

    def work(values: Mapping[str, Any], request: GrowthRequest, console: Console) -> Growth:
        return grow(replace(request, steps=steps(values)), console)

    return work


def growing_command(own: Sequence[inspect.Parameter], work: Work) -> Callable[..., None]:
    """Return a command with its own parameters and the shared ones.

    Args:
        own: Its own parameters.
        work: Grows, given the values of all parameters and the request without its steps.
    """

    def run(**values: Any) -> None:
        console = Console(as_json=values["json"], quiet=values["quiet"])
        request = _request(values)
        _print(work(values, request, console), request, console)

    parameters = [*own, *(parameter_of(name, *shared) for name, shared in _SHARED.items())]
    parameters.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    # typer reads the options off the signature, which a function type does not declare.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _request(values: Mapping[str, Any]) -> GrowthRequest:
    if not values["push"]:
        for name in ("repo", "private", "create_pr", "exist_ok"):
            if values[name] != _SHARED[name][1]:
                option = "public" if values[name] is False else name.replace("_", "-")
                raise UsageError(f"--{option} says how to push", hint="add --push")
    return GrowthRequest(
        model=values["model"],
        steps=(),
        max_shard_nbytes=parse_nbytes(values["max_shard_size"]),
        **{
            name: values[name]
            for name in _SHARED
            if name not in ("max_shard_size", "json", "quiet")
        },
    )


def _print(growth: Growth, request: GrowthRequest, console: Console) -> None:
    if request.dry_run:
        if console.as_json:
            console.result("", growth_document(growth, dry_run=True))
            return
        lines = broken(plan_text(growth).splitlines(), console.width, behind=16)
        console.result("\n".join(lines), {})
        return
    say_block(console, *growth_block(growth))
    for note in growth.pushed.notes if growth.pushed else ():
        console.say(f"Note: {note}")
    console.result(str(growth.out), growth_document(growth, dry_run=False))


def _help(operator: Operator[...]) -> str:
    promise = "Function preserving." if operator.preserves_function else "Not function preserving."
    return f"{operator.summary} {promise} See: hfgrow operators {operator.name}"


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
        **({"experts": experts_of(plan)} if experts_of(plan) else {}),
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
