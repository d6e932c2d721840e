"""The model card: README.md made from hfgrow.json, nothing of it written by hand."""

import re
from collections.abc import Mapping
from typing import Any

from hfgrow.checkpoint.files import CARD, PICTURE, WIDTHS_PICTURE
from hfgrow.console import count
from hfgrow.errors import command, printable
from hfgrow.lineage.card_metadata import fit_for_the_hub
from hfgrow.lineage.card_sections import (
    benchmark_section,
    changed_section,
    compute_section,
    datasets,
    drawings_of,
    elsewhere_section,
    model_index,
    numbers_section,
    outcome,
    training_section,
)
from hfgrow.lineage.describe import (
    command_line,
    describe_growth,
    describe_steps,
    describe_training,
    named,
    plain,
)
from hfgrow.lineage.manifest import Link, Manifest, TrainingLink
from hfgrow.plan.operators import OPERATORS

# A longer chain is told in sums.
_MOST_TOLD = 6
# What stands for a licence in a card's metadata and names none.
_UNNAMED = ("other", "unknown")


# What is said of weights that nobody has hashed or compared.
_AS_RECORDED = ", as far as is recorded"
# A longer file is no recipe.
MAX_RECIPE_NBYTES = 1 << 16


def card_files(
    manifest: Manifest,
    repo_id: str | None = None,
    picture: bool = False,
    recipe: str | None = None,
) -> dict[str, str]:
    """Return the card, and the pictures of layers and widths that changed, by file name.

    Args:
        manifest: The model's lineage.
        repo_id: Where the model will be pushed, if that is known.
        picture: Whether the picture of its loss, loss.png, lies beside the card.
        recipe: What recipe.yaml says, if it lies beside the card.
    """
    growth = manifest.last_growth
    pictures = drawings_of(growth) if growth else {}
    return {CARD: _card(manifest, repo_id, picture, recipe), **pictures}


def drawings(manifest: Manifest) -> list[str]:
    """Return the names of the pictures of growth that belong to the card."""
    growth = manifest.last_growth
    if growth is None:
        return []
    shown = {PICTURE: growth.changes_layers, WIDTHS_PICTURE: bool(growth.grown_axes)}
    return [name for name, is_shown in shown.items() if is_shown]


def metadata(manifest: Manifest) -> dict[str, Any]:
    """Return the metadata block of the card.

    `base_model` is the nearest model of the chain that lies on the Hub, the base itself if it does.
    `base_model_relation` is `finetune`, the one of the Hub's four relations that makes the model
    tree list a grown model under its base.
    """
    is_trained = isinstance(manifest.link, TrainingLink) or bool(manifest.trained_since)
    growths = [link for link in manifest.chain if isinstance(link, Link)]
    tags = ["hfgrow", *(["model-growth"] if growths else [])]
    for link in growths if is_trained else growths[-1:]:
        for step in link.steps:
            tags += OPERATORS[step.operator].tags if step.operator in OPERATORS else ()
    tags += ["continued-pretraining"] if is_trained else []
    block: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    bases = [link.base.repo_id for link in reversed(manifest.chain) if link.base.repo_id]
    if bases:
        block |= {"base_model": bases[0], "base_model_relation": "finetune"}
    if trained_on := datasets(manifest.trainings):
        block["datasets"] = trained_on
    block |= {"tags": list(dict.fromkeys(tags))} | fit_for_the_hub(manifest.link.card)[0]
    if index := model_index(manifest.benchmarks, plain(manifest.link.result.name)):
        block["model-index"] = index
    return block


def _card(manifest: Manifest, repo_id: str | None, picture: bool, recipe: str | None) -> str:
    import yaml

    link, growth = manifest.link, manifest.last_growth
    block = yaml.safe_dump(metadata(manifest), sort_keys=False, allow_unicode=True)
    sections = [_introduction(manifest)]
    if isinstance(link, TrainingLink):
        sections.append(training_section(manifest, link, picture=picture))
    if growth is not None:
        sections += [
            changed_section(growth, manifest),
            numbers_section(growth, is_trained=growth is not link),
        ]
        is_trained = growth is not link or bool(manifest.trained_since)
        elsewhere = elsewhere_section(growth, is_trained=is_trained)
        sections += [elsewhere] if elsewhere else []
    if manifest.trainings or manifest.root_compute:
        sections.append(compute_section(manifest))
    if manifest.benchmarks:
        sections.append(benchmark_section(manifest.benchmarks))
    sections += [_use(link, repo_id), _reproduce(manifest, repo_id, recipe), _limits(manifest)]
    return f"---\n{block}---\n\n" + "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _introduction(manifest: Manifest) -> list[str]:
    link = manifest.link
    title = [f"# {plain(link.result.name)}", ""]
    since = manifest.trained_since
    if isinstance(link, TrainingLink):
        told = [f"- Since then, by another program: {plain(one.note)}" for one in since]
        story = f"{named(manifest.root)} {_story(manifest)}."
        return [*title, story, *_outcomes(link), *(["", *told] if told else [])]
    if since:
        return [
            *title,
            f"{named(link.base)} {describe_growth(link)} by `{describe_steps(link.steps)}`, and "
            "trained since by another program, which is not recorded but for what its user says:",
            "",
            *(f"- {plain(one.note)}" for one in since),
        ]
    larger = (
        "larger than its base and " if link.result.num_parameters > link.base.num_parameters else ""
    )
    return [
        *title,
        f"{named(link.base)} {describe_growth(link)} by `{describe_steps(link.steps)}`, "
        f"and not trained since{_AS_RECORDED if manifest.is_unproved else ''}.",
        f"It is {larger}a starting point for continued pretraining, not a better model yet.",
        *_earlier(manifest),
    ]


def _earlier(manifest: Manifest) -> list[str]:
    """Return what was trained before the last growth."""
    lines = []
    if manifest.trainings:
        tokens = sum(link.compute.tokens for link in manifest.trainings)
        told = f"What it grew from was trained on {count(tokens)} tokens, as this chain records."
        lines.append(told)
    if manifest.elsewhere:
        notes = "; ".join(plain(one.note) for one in manifest.elsewhere)
        lines.append(f"Another program trained what it grew from, as its user says: {notes}.")
    return lines


def _story(manifest: Manifest) -> str:
    """Return what became of the root up to the last link: grown, trained, and so on."""
    between = [one for one in manifest.elsewhere if one.after < len(manifest.chain)]
    if len(manifest.chain) > _MOST_TOLD:
        tokens = sum(link.compute.tokens for link in manifest.trainings)
        num_growths = len(manifest.chain) - len(manifest.trainings)
        done = [f"grown {_times(num_growths)}"] if num_growths else []
        if manifest.trainings:
            done.append(
                f"trained {_times(len(manifest.trainings))}, on {count(tokens)} tokens in all"
            )
        if between:
            done.append(f"trained {_times(len(between))} by another program")
        return " and ".join(done)
    steps = []
    for number, link in enumerate(manifest.chain, 1):
        steps.append(
            f"{describe_growth(link)} by `{describe_steps(link.steps)}`"
            if isinstance(link, Link)
            else describe_training(link)
        )
        notes = (plain(one.note) for one in between if one.after == number)
        steps += [f"trained by another program ({note})" for note in notes]
    return ", then ".join(steps)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _outcomes(link: TrainingLink) -> list[str]:
    return ["", *(f"- {outcome(found)}" for found in link.evaluations)] if link.evaluations else []


def _use(link: Link | TrainingLink, repo_id: str | None) -> list[str]:
    # A trained model lies in the folder of its run, which has another name.
    here = "." if isinstance(link, TrainingLink) else f"./{plain(link.result.name)}"
    name = repo_id or here
    inside = ["From inside this folder:", ""] if name == "." else []
    return [
        "## How to use",
        "",
        *inside,
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")',
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
        'tokens = tokenizer("Once upon a time", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**tokens, max_new_tokens=20)[0]))",
        "```",
    ]


def _reproduce(manifest: Manifest, repo_id: str | None, recipe: str | None) -> list[str]:
    link = manifest.link
    made = ", ".join(f"{plain(key)} {plain(value)}" for key, value in link.versions.items())
    lines = ["## How to reproduce", ""]
    if recipe is not None:
        lines += _by_recipe(recipe, repo_id)
    else:
        lines += [
            "```bash",
            *(line for i in range(len(manifest.chain)) for line in _made_by(manifest, i)),
            *_proof(manifest, repo_id),
            "```",
            "",
        ]
    if manifest.trainings:
        lines += [
            "Growth gives the same bytes again. Training on another machine does not; its text and "
            "main settings are recorded in hfgrow.json.",
            "",
        ]
    lines += [
        f"Made with {made}. Lineage, from the root:",
        "",
        *(f"{i + 1}. {_lineage_row(manifest, i)}" for i in range(len(manifest.chain))),
        f"{len(manifest.chain) + 1}. this model",
    ]
    hashes = [(name, file.sha256) for name, file in link.base.files.items() if file.sha256]
    if hashes:
        lines += ["", "Weight files of the base:", ""]
        lines += [f"- `{plain(name)}` sha256 `{plain(digest)}`" for name, digest in hashes]
    return lines


def _made_by(manifest: Manifest, i: int) -> list[str]:
    """Return the command of a link, or what it did, and the trainings elsewhere behind it."""
    link = manifest.chain[i]
    if isinstance(link, Link):
        own = command_line(link)
    else:
        own = f"# {'then ' if i else ''}{describe_training(link)}"
    since = (plain(one.note) for one in manifest.elsewhere if one.after == i + 1)
    return [own, *(f"# then trained by another program: {note}" for note in since)]


def _by_recipe(recipe: str, repo_id: str | None) -> list[str]:
    """Return the command that makes a model again by its recipe, and the recipe, folded."""
    elsewhere = None if repo_id else "output=../again"
    typed = command(f"train {repo_id or '.'}", set=elsewhere)
    where = "" if repo_id else "   # from inside this folder"
    # A fence is longer than any inside it.
    longest = max((len(run) for run in re.findall("`+", recipe)), default=0)
    fence = "`" * max(3, longest + 1)
    shown = (printable(line, 1000) for line in recipe.splitlines())
    return [
        "```bash",
        f"{typed}{where}",
        "```",
        "",
        "It reads `recipe.yaml`, which lies beside this card. Text that lay on the machine of the "
        "training is named in it, not part of it.",
        "",
        "<details><summary>recipe.yaml</summary>",
        "",
        f"{fence}yaml",
        *shown,
        fence,
        "",
        "</details>",
        "",
    ]


def _proof(manifest: Manifest, repo_id: str | None) -> list[str]:
    """Return the command that proves what of the chain can be proved."""
    name = f"./{plain(manifest.link.result.name)}"
    if manifest.trained_since:
        return [f"hfgrow verify {name}   # its weights, as recorded after that training"]
    if not manifest.trainings and not manifest.elsewhere:
        again = f"hfgrow reproduce {repo_id or name}"
        return [f"{again}   # the same from the recorded chain, sha256 compared"]
    if isinstance(manifest.link, Link):
        return [f"hfgrow verify {name}   # the last growth, against the model that it grew from"]
    return []


def _limits(manifest: Manifest) -> list[str]:
    lines = ["## Limits", ""]
    if manifest.trained_since:
        lines.append("- What the training by another program did to it was not measured here.")
    elif isinstance(manifest.link, Link):
        known = _AS_RECORDED if manifest.is_unproved else ""
        lines.append(
            f"- Not trained after growth{known}: use it as the start of continued pretraining."
        )
    else:
        told = "." if manifest.benchmarks else "; no benchmark was run."
        lines.append(f"- The losses above are of the texts named there{told}")
    if manifest.is_from_scratch:
        lines.append("- It began with random weights: it knows what the text above says, no more.")
    elif manifest.trainings:
        lines.append(
            "- It knows what its base and the text it was trained on say, with the biases and "
            "errors of both; read their cards."
        )
    else:
        lines.append(
            "- It knows what its base knows, with the base's biases and errors; read the base's "
            "card."
        )
    note = licence_note(manifest.link.card, is_from_scratch=manifest.is_from_scratch)
    return [*lines, f"- {note}"] if note else lines


def _lineage_row(manifest: Manifest, i: int) -> str:
    """Return the model that a link starts from, and whether it is known to be what was grown."""
    model, before = manifest.chain[i].base, manifest.chain[i - 1] if i else None
    at = f" at commit `{plain(model.revision)}`" if model.revision else ""
    row = f"{named(model)}{at}, {model.num_hidden_layers} layers"
    if isinstance(before, Link) and not before.is_proved:
        row += "; as far as is recorded, nothing has compared it with what it was grown from"
    return row


def licence_note(metadata: Mapping[str, Any], *, is_from_scratch: bool) -> str:
    """Return what to look at before a model is published; empty where the licence says it all.

    Nothing is invented and nothing judged: the licence is known by its name only.

    Args:
        metadata: What the model's card inherits.
        is_from_scratch: Whether the model has no base that somebody else made.
    """
    if "license" not in metadata:
        if is_from_scratch:
            return "It names no licence: choose one before you publish it."
        return "The base's card names no licence; ask its authors before you publish this."
    given = metadata["license"]
    licences = [plain(name) for name in (given if isinstance(given, list) else [given])]
    name, link = (plain(metadata.get(key, "")) for key in ("license_name", "license_link"))
    return next(filter(None, (_note_of(licence, name, link) for licence in licences)), "")


def _note_of(licence: str, name: str, link: str) -> str:
    if licence.lower() in _UNNAMED:
        name = name or "one of its own"
        where = f" ({link})" if link else ""
        return (
            f"The base's licence is {name}{where}; read whether a model made from it may be "
            "published, and how."
        )
    parts = licence.lower().split("-")
    if "nd" in parts:
        return f"The base's licence, {licence}, lets nobody share what is made from it."
    if "nc" in parts or "noncommercial" in parts:
        return f"The base's licence, {licence}, allows no commercial use, of this model either."
    return ""
