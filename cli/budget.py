"""The command `hfgrow budget`: when to grow, from what, and what each part costs."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hfgrow.checkpoint.read import read
from hfgrow.console import amount, duration, shown
from hfgrow.data.sources import TextSource, named_source
from hfgrow.errors import UsageError, printable, require
from hfgrow.growth.models import base_name, files_of, locate
from hfgrow.hub.client import HubClient
from hfgrow.lineage.canvas import check_picture, format_of, write_picture
from hfgrow.plan.operators.stacking import stack
from hfgrow.study.budget import (
    BOUND,
    DEFAULT_G,
    DEVICES,
    MOST_SHARE,
    PAPER,
    REPORTED,
    Budget,
    TimingLaw,
    budget_of,
    draw_budget,
    growth_factor_advice,
    reported_tokens_per_parameter,
)
from hfgrow.train.peaks import USUAL_MFU
from hfgrow.train.recipe.speech import in_keys

from . import options
from .terminal import OPTIONS, Console, broken

if TYPE_CHECKING:
    from hfgrow.study.law_fit import Fit

_EXAMPLES = """\
hfgrow budget TinyLlama --g 4 --tokens 300B
hfgrow budget --parameters 7B --tokens 300B
hfgrow budget --parameters 1.1B --flops 8e20 --plot budget.png
hfgrow budget demo --g 2 --tokens 2M --data demo --recipe mine.yaml"""
_MINUTE = 60
# The method from a fresh model on, as recipes: for trainings of one batch and more of the paper's,
# and for less.
_PAPER_RECIPE, _SMALL_RECIPE = "paper-gstack", "demo-gstack"
_PAPER_BATCH = 1 << 21
_HINT = "hfgrow budget --parameters 7B --tokens 300B, or hfgrow budget MODEL --g 4 --tokens 100B"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("budget", epilog=_EXAMPLES)(budget)


def budget(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help=f"The base to be stacked. {options.MODEL_HELP}"),
    ] = None,
    parameters: Annotated[
        str | None,
        typer.Option(
            "--parameters", "--params", metavar="N", help="Of the grown model, without MODEL: 7B."
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens",
            metavar="D",
            help="The compute, as the tokens that the grown model could train on from scratch: "
            "C = 6 N D.",
        ),
    ] = None,
    flops: Annotated[
        str | None, typer.Option("--flops", metavar="C", help="The compute itself: 1e22.")
    ] = None,
    g: Annotated[int, typer.Option("--g", help="Growth factor of the depth.")] = DEFAULT_G,
    fit: Annotated[
        list[Path] | None,
        typer.Option(
            "--fit",
            metavar="FILE",
            help="Fit the law's constants to results of your own: results.json of a study of "
            "growth timing, or JSON as `hfgrow docs budget` says. Can be given several times; "
            "without a target, only that.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw it: FILE.png or FILE.svg."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="Write it as a recipe of `hfgrow train`; needs MODEL and --data.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="Text of the recipe, as `hfgrow data prepare` takes it. Can be given several "
            "times.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing picture or recipe.")
    ] = False,
    revision: options.RevisionOption = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Say after how many tokens to grow, what then remains, and what both cost.

    The growth timing is that of Du et al. 2024 (arXiv 2405.15319, Sec. 4.2), or a fit to your own
    results. More: hfgrow docs budget
    """
    console = Console(as_json=json, quiet=quiet)
    kind = None if plot is None else format_of(plot)
    law, found = PAPER, None
    if fit:
        require("--fit", "numpy")
        from hfgrow.study.law_fit import fit_files

        found = fit_files(fit, f"fitted to {', '.join(printable(path, 200) for path in fit)}")
        law = found.law
    asked = (model, parameters, tokens, flops)
    if found is not None and asked == (None, None, None, None):
        if plot is not None:
            raise UsageError("--plot draws a budget, and there is none", hint=_HINT)
        console.result("\n".join(_fit_lines(found)), {"fit": found.to_json()})
        return
    _check(model, parameters, tokens, flops)
    if revision is not None and model is None:
        raise UsageError(f"--revision {printable(revision)} is of MODEL, and none is given")
    if plot is not None:
        check_picture(plot, overwrite=overwrite)
        require("--plot", "matplotlib", extra="plots")
    sources = _sources(model, recipe, data)
    if recipe is not None:
        from hfgrow.study.budget_recipe import check_recipe, recipe_text, write_recipe

        check_recipe(recipe, overwrite=overwrite)
        require("--recipe", "pydantic")
    num_base, name, layers, text = None, None, None, ""
    if model is None:
        num_parameters = amount(str(parameters), "--parameters")
    else:
        client = HubClient(token=token)
        ref = locate(model, revision, client, console)
        plan = read(files_of(ref, client))
        name, grown = ref.repo_id or base_name(ref), stack(plan, g=g)
        num_parameters, num_base = float(grown.num_parameters), float(plan.num_parameters)
        layers = (plan.num_hidden_layers, grown.num_hidden_layers)
    result = budget_of(
        num_parameters=num_parameters,
        flops=amount(flops, "--flops")
        if flops is not None
        else 6 * num_parameters * amount(str(tokens), "--tokens"),
        g=g,
        num_base_parameters=num_base,
        law=law,
    )
    document = {"model": name, "num_hidden_layers": layers, **result.to_json()}
    if model is not None and recipe is not None:
        words = ["hfgrow", "budget", model, "--g", str(g)]
        words += [] if revision is None else ["--revision", revision]
        words += ["--tokens", tokens] if tokens is not None else ["--flops", str(flops)]
        words += [word for path in fit or () for word in ("--fit", str(path))]
        with in_keys(OPTIONS):
            text = recipe_text(
                result,
                f"hf://{ref.repo_id}@{revision}" if revision and ref.repo_id else model,
                base_name(ref),
                plan.settings,
                sources,
                shlex.join(words),
            )
    if found is not None:
        document["fit"] = found.to_json()
    if plot is not None and kind is not None:
        write_picture(plot, draw_budget(result, kind))
        document["plot"] = str(plot)
        console.say(f"Drawn: {printable(plot, 200)}")
    if recipe is not None:
        write_recipe(recipe, text)
        document["recipe"] = str(recipe)
    lines = [] if found is None else _fit_lines(found)
    lines += _lines(result, name, layers)
    lines += [_recipe_line(result)] if model is None else []
    console.result("\n".join(broken(lines, console.width, behind=13)), document)
    console.say(f"Next: {_next(model, result, recipe)}")


def _sources(
    model: str | None, recipe: Path | None, data: Sequence[str] | None
) -> list[TextSource]:
    """Return the text of the recipe that was asked for."""
    if recipe is None:
        if data:
            raise UsageError("--data is the text of a recipe", hint="add --recipe FILE")
        return []
    if model is None:
        raise UsageError(
            "--recipe needs MODEL, the base that the recipe begins with",
            hint=f"of a fresh one: hfgrow recipes {_PAPER_RECIPE} --copy FILE",
        )
    if not data:
        raise UsageError("--recipe needs text to train on", hint="add --data FILE, or a dataset")
    return [named_source(word) for word in data]


def _next(model: str | None, found: Budget, recipe: Path | None) -> str:
    """Return what follows a budget: a run, the growth itself, or a recipe to put it into."""
    if recipe is not None:
        return f"hfgrow train {shlex.quote(printable(recipe, 200))} --dry-run"
    if model is not None:
        return f"hfgrow stack {shlex.quote(printable(model, 200))} --g {found.g}"
    return f"hfgrow recipes {_recipe_of(found)} --copy mine.yaml"


def _recipe_of(found: Budget) -> str:
    is_small = min(found.base_tokens, found.continued_tokens) < _PAPER_BATCH
    return _SMALL_RECIPE if is_small else _PAPER_RECIPE


def _recipe_line(found: Budget) -> str:
    """Return what a budget of a fresh model is in its recipe."""
    base, more = (round(tokens) for tokens in (found.base_tokens, found.continued_tokens))
    return (
        f"recipe       {_recipe_of(found)}, with your model as its base, stages.0.train.tokens: "
        f"{base:_}, stages.1.grow.g: {found.g}, stages.2.train.tokens: {more:_}"
    )


def _check(
    model: str | None, parameters: str | None, tokens: str | None, flops: str | None
) -> None:
    if (model is None) == (parameters is None):
        both = "MODEL and --parameters both say" if model else "neither MODEL nor --parameters says"
        raise UsageError(f"{both} how large the grown model is; give one of them", hint=_HINT)
    if (tokens is None) == (flops is None):
        both = "--tokens and --flops both say" if tokens else "neither --tokens nor --flops says"
        raise UsageError(f"{both} what the compute is; give one of them", hint=_HINT)


def _lines(budget: Budget, name: str | None, layers: tuple[int, int] | None) -> list[str]:
    n, base = shown(budget.num_parameters), shown(budget.num_base_parameters)
    share = budget.base_flops / budget.flops
    base_is = f"{printable(name)}, {base} parameters" if name else f"{base} parameters (N / g)"
    depth = f", {layers[0]} layers to {layers[1]}" if layers else ""
    lines = [
        f"target       N = {n} parameters, g = {budget.g}{depth}",
        f"compute      C = {budget.flops:.4g} FLOPs: {shown(budget.scratch_tokens)} tokens of the "
        "target from scratch (C = 6 N D)",
        f"base         {base_is}: train it on d = {shown(budget.base_tokens)} tokens, then grow",
        f"grown model  train it on {shown(budget.continued_tokens)} tokens more",
        f"split        base {budget.base_flops:.3g} FLOPs ({share:.2%}), grown model "
        f"{budget.continued_flops:.3g} FLOPs ({1 - share:.2%})",
        *_device_lines(budget),
        f"law          {budget.law.formula}; {budget.law.source}",
        f"             {_confidence(budget)}",
    ]
    if budget.is_clamped:
        lines.append(
            f"             clamped: it says {shown(budget.law_tokens)}; a base gets at most "
            f"{MOST_SHARE:.0%} of the tokens from scratch"
        )
    lines.append(f"g            {budget.g}: {growth_factor_advice(budget.g)}")
    lines += _argument(budget)
    if name:
        lines.append("note         a base that has seen more than d has its compute behind it")
    return [*lines, *_expected(budget)]


def _device_lines(budget: Budget) -> list[str]:
    """Return how long one device takes; of what is over in a minute nobody asks."""
    took = {name: budget.device_seconds(name) for name in DEVICES}
    if max(took.values()) < _MINUTE:
        return []
    told = ", ".join(f"{duration(seconds)} of one {name}" for name, seconds in took.items())
    return [f"devices      {told}, at {USUAL_MFU:.0%} of its peak"]


def _confidence(budget: Budget) -> str:
    law = budget.law
    fitted = (
        f"N {shown(law.parameters[0])} to {shown(law.parameters[1])}, "
        f"C {law.flops[0]:.2g} to {law.flops[1]:.2g}"
    )
    if not budget.outside:
        return f"inside what it was fitted on ({fitted})"
    return f"extrapolated: {' and '.join(budget.outside)} outside what it was fitted on ({fitted})"


def _argument(budget: Budget) -> list[str]:
    """Return what two papers say of growing here, each with its range, and where they part."""
    least, most = reported_tokens_per_parameter()
    sizes = [found.num_parameters for found in REPORTED]
    if budget.disputes:
        verdict = f"they disagree here: {'; '.join(budget.disputes)}"
    elif budget.g <= BOUND.g:
        verdict = "they do not contradict each other here"
    else:
        verdict = f"they agree here: g = {budget.g} is above what either recommends"
    unseen = []
    if not least <= budget.tokens_per_parameter <= most:
        unseen.append(f"{budget.tokens_per_parameter:.3g} tokens a parameter")
    if budget.g != DEFAULT_G:
        unseen.append(f"g = {budget.g}")
    if unseen:
        verdict += (
            f"; {' and '.join(unseen)} {'are' if len(unseen) > 1 else 'is'} outside where the "
            "first's speed-ups were seen"
        )
    return [
        f"argument     grow, g from 2 to {DEFAULT_G}, whatever the budget (Du et al. 2024; seen "
        f"at {least:.0f} to {most:,.0f} tokens a parameter, {shown(min(sizes))} to "
        f"{shown(max(sizes))} parameters, g = {DEFAULT_G})",
        f"             g = {BOUND.g} is reliable, the gain is largest below "
        f"{BOUND.tokens_per_parameter:g} tokens a parameter, and from some larger g on scratch is "
        f"better ({BOUND.source}; dense language models and MLPs)",
        f"             {verdict}",
    ]


def _expected(budget: Budget) -> list[str]:
    """Return what the paper reports, and what the least and the most of it would mean here."""
    least, most = (shown(tokens) for tokens in budget.expected_tokens)
    return [
        "reported     speed-ups over training from scratch, in FLOPs at equal loss, with g = 4:",
        *(
            f"             {found.speedup:6.1%} at {shown(found.num_parameters)}, {found.where}"
            for found in REPORTED
        ),
        f"expected     if that holds here, the loss of {shown(budget.scratch_tokens)} tokens from "
        f"scratch for the FLOPs of {least} to {most}",
        *([f"             a guess: {', '.join(budget.doubts)}"] if budget.doubts else []),
    ]


def _fit_lines(found: "Fit") -> list[str]:
    law: TimingLaw = found.law
    constants = zip("abc", (law.a, law.b, law.c), found.errors, strict=True)
    return [
        f"fit          {law.formula}",
        f"             {', '.join(f'{k} = {v:.4g} +- {error:.2g}' for k, v, error in constants)} "
        "(standard errors)",
        f"             {len(found.points)} points, N {shown(law.parameters[0])} to "
        f"{shown(law.parameters[1])}, C {law.flops[0]:.3g} to {law.flops[1]:.3g}",
        f"             residual {found.residual:.3g} in log10 d, a factor of "
        f"{10**found.residual:.3g}; degrees of freedom: {found.degrees}",
        *(
            [f"             {found.left_out} more left out: no best timing among those tried"]
            if found.left_out
            else []
        ),
        f"             the paper's: {PAPER.formula}",
    ]
