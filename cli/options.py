"""The options that commands share, declared once so that they read the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "Folder, alias, org/name, hf://org/name@rev or Hub URL."

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="A model grown by hfgrow.")]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit of the model.")
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="Hub token; HF_TOKEN or `hf auth login` keep it out of the shell's history.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout, also on error.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result on stdout.")]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="DIR", help="Output folder.  [default: ./BASE-OPERATOR-...]"
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace an existing output, once the new one is complete."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan; write and download nothing.")
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="Convert all tensors: bfloat16, float16, float32, float64.  [default: none]",
    ),
]
AllowNonfiniteOption = Annotated[
    bool, typer.Option("--allow-nonfinite", help="Grow weights that hold NaN or infinity too.")
]
MaxShardOption = Annotated[
    str, typer.Option("--max-shard-size", metavar="SIZE", help="Most tensor bytes in one file.")
]
VerifyOption = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Load with transformers, hash, measure logits.  [default: with --push]",
        show_default=False,
    ),
]
PushOption = Annotated[bool, typer.Option("--push", help="Push the grown model to the Hub.")]
RepoOption = Annotated[
    str | None,
    typer.Option("--repo", metavar="NAME", help="Target.  [default: YOU/BASE-OPERATOR-...]"),
]
PrivateOption = Annotated[
    bool | None,
    typer.Option(
        "--private/--public",
        help="Visibility of a new repository.  [default: as the base]",
        show_default=False,
    ),
]
CreatePrOption = Annotated[bool, typer.Option("--create-pr", help="Push as a pull request.")]
ExistOkOption = Annotated[
    bool, typer.Option("--exist-ok", help="Push into a repository that hfgrow did not make.")
]
