"""What a growing command was asked for, and what it did."""

from dataclasses import dataclass
from pathlib import Path

from hfgrow.checkpoint.layout import DEFAULT_MAX_SHARD_NBYTES, Layout
from hfgrow.console import count
from hfgrow.growth.steps import Steps
from hfgrow.hub.preflight import PushTarget
from hfgrow.hub.push import Pushed
from hfgrow.lineage.manifest import Manifest
from hfgrow.plan.plan import GrowthPlan


@dataclass(frozen=True, kw_only=True)
class GrowthRequest:
    """Everything that a growing command was asked for.

    Attributes:
        model: Folder, alias, org/name, hf:// or Hub URL.
        steps: The operators to apply, in order: a name in the table, and its arguments by name.
        out: The output folder; None means `./<base>-<operator>-...`.
        overwrite: Whether an existing output may be replaced.
        revision: Branch, tag or commit of the base.
        dtype: Convert every tensor, as config.json names dtypes.
        max_shard_nbytes: The most tensor bytes in one file.
        verify: Ask transformers too, and measure logits; None means only with a push.
        push: Whether to push the result.
        repo: The repository to push to; None means `<you>/<name of the output>`.
        private: The visibility of a new repository; None means that of the base.
        create_pr: Push as a pull request.
        exist_ok: Push into a repository that hfgrow did not make.
        token: The Hub token; None takes the environment's or the logged-in one.
        allow_nonfinite: Whether a base with NaN or infinity in its weights is grown all the same.
        dry_run: Stop when the plan is made.
        maps: The folder with the maps of learned steps; a dry run needs none.
        untested: Whether a type is grown that was not proven with the transformers installed here.
        record_hashes: Whether to record the sha256 of base and result also without proof or push.
        num_base_layers: How many layers the base must have, where steps count on it; None is any.
    """

    model: str
    steps: Steps
    out: Path | None = None
    overwrite: bool = False
    revision: str | None = None
    dtype: str | None = None
    max_shard_nbytes: int = DEFAULT_MAX_SHARD_NBYTES
    verify: bool | None = None
    push: bool = False
    repo: str | None = None
    private: bool | None = None
    create_pr: bool = False
    exist_ok: bool = False
    token: str | None = None
    allow_nonfinite: bool = False
    dry_run: bool = False
    maps: Path | None = None
    untested: bool = False
    record_hashes: bool = False
    num_base_layers: int | None = None

    @property
    def wants_proof(self) -> bool:
        """Whether transformers is asked too; before a push it is, unless somebody said no."""
        return not self.dry_run and (self.push if self.verify is None else self.verify)

    @property
    def wants_hashes(self) -> bool:
        """Whether the lineage has the sha256 of base and result."""
        return self.wants_proof or self.push or self.record_hashes


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What a growing command did, or would do.

    Attributes:
        base: The plan of the base.
        plan: The plan of the grown model.
        layout: Its files.
        name: Its short name.
        manifest: Its lineage; None in a dry run.
        out: Where it lies, or would.
        target: Where it is pushed, if asked for.
        pushed: What the push did.
        num_transformers_tensors: How many tensors transformers expected and found, if asked.
        cloned_nbytes: Bytes that share the base's blocks.
    """

    base: GrowthPlan
    plan: GrowthPlan
    layout: Layout
    name: str
    out: Path
    manifest: Manifest | None = None
    target: PushTarget | None = None
    pushed: Pushed | None = None
    num_transformers_tensors: int | None = None
    cloned_nbytes: int = 0

    def __repr__(self) -> str:
        layers = f"{self.base.num_hidden_layers} -> {self.plan.num_hidden_layers} layers"
        sizes = f"{count(self.base.num_parameters)} -> {count(self.plan.num_parameters)} parameters"
        return f"Growth({self.name}: {layers}, {sizes}, {self.out})"
