"""What `hfgrow inspect` says of a model whose family transformers tells."""

from collections import Counter
from itertools import groupby
from typing import Any

from hfgrow.console import size
from hfgrow.errors import printable
from hfgrow.growth.proven_growths import COPIES, SILENT, is_proven
from hfgrow.lineage.manifest import non_embedding_parameters
from hfgrow.plan.families.derived import DerivedFamily, rhythm
from hfgrow.plan.plan import GrowthPlan

_MOST_RUNS = 12


def derived_document(name: str, plan: GrowthPlan, family: DerivedFamily) -> dict[str, Any]:
    """Return what is known of a model as JSON."""
    found = rhythm(family.kinds)
    return {
        "model": name,
        "family": plan.family,
        "derived_from_transformers": family.version,
        "architecture": family.architecture,
        "num_hidden_layers": plan.num_hidden_layers,
        "kinds_of_layers": list(family.kinds),
        "rhythm": None if found is None else {"first": found[0], "period": found[1]},
        "sizes": dict(family.sizes),
        "num_parameters": plan.num_parameters,
        "num_non_embedding_parameters": non_embedding_parameters(plan),
        "nbytes": plan.nbytes,
        "dtypes": sorted({tensor.dtype for tensor in plan.tensors.values()}),
        "files": {name: file.nbytes for name, file in plan.files.items()},
        "can_grow": ["num_hidden_layers"],
        "proven": {operator: is_proven(family, operator) for operator in ("stack", "zero-depth")},
        "notes": list(plan.notes),
    }


def derived_lines(plan: GrowthPlan, family: DerivedFamily, document: dict[str, Any]) -> list[str]:
    """Return the same for people."""
    sizes = ", ".join(f"{key} {value}" for key, value in family.sizes.items() if value)
    version = family.version
    return [
        f"model        {printable(document['model'])}",
        f"family       {plan.family} ({family.architecture}), derived from transformers {version}",
        f"layers       {plan.num_hidden_layers}, {_kinds(family.kinds)}",
        f"rhythm       {_rhythm(family.kinds)}",
        f"sizes        {sizes}",
        f"parameters   {plan.num_parameters:,} ({document['num_non_embedding_parameters']:,} "
        "non-embedding)",
        f"weights      {size(plan.nbytes)} in {len(plan.files)} "
        f"file{'s' if len(plan.files) > 1 else ''}, {', '.join(document['dtypes'])}",
        f"can grow     in depth: {_growths(family)}",
        *(f"note         {note}" for note in plan.notes),
    ]


def _kinds(kinds: tuple[str, ...]) -> str:
    if len(set(kinds)) == 1:
        return "all of one kind"
    return f"{len(set(kinds))} kinds: " + ", ".join(
        f"{number} {kind}" for kind, number in Counter(kinds).items()
    )


def _rhythm(kinds: tuple[str, ...]) -> str:
    runs = [(kind, len(list(run))) for kind, run in groupby(kinds)]
    shown = " ".join(
        f"{number}{kind}" if number > 1 else kind for kind, number in runs[:_MOST_RUNS]
    )
    more = " ..." if len(runs) > _MOST_RUNS else ""
    found = rhythm(kinds)
    if found is None:
        return f"{shown}{more}; no period"
    first, period = found
    return f"{shown}{more}; period {period}" + (f" behind the first {first}" if first else "")


def _growths(family: DerivedFamily) -> str:
    """Return which growths were proven with the transformers installed here."""
    parts = []
    for names, what in ((COPIES, "copies of layers"), (SILENT, "layers that add nothing")):
        state = "proven" if is_proven(family, names[0]) else "not proven, --untested"
        parts.append(f"{what} ({state})")
    return ", ".join(parts)
