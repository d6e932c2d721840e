"""More experts for a mixture: copies of those it has, and of their rows of the router.

Copy `c` of expert `e` of `E` is expert `c E + e`. With `m` equal copies of every row of the router
the softmax over all scores gives each copy `p_e / m`, and the `m K` best scores are those of all
copies of the `K` best experts. What they add is `m (p_e / m) f_e(x) = p_e f_e(x)` for each, also
where shares are divided by their sum, which stays. So a token that passes `m K` experts passes the
function of the base.

With fewer it does not: the best scores are the `m` copies of one expert, and of `K` different ones
`K / m` are left. Noise on the copies' rows, the same for all experts of a set of copies, lifts the
scores of one set over those of another, by an amount that depends on the token. Where that is more
than what separates the `K` best, they all come from one set: the experts of the base, with shares
as they were.
"""

from dataclasses import replace
from math import sqrt
from random import Random

from hfgrow.errors import UsageError, argument, printable
from hfgrow.plan.axes import FRESH, AxisMap, copied, identity
from hfgrow.plan.depth import HIDDEN, initial_std
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.experts import MAX_EXPERTS, normalises_shares, with_experts
from hfgrow.plan.families.table import Family, Role, layer_of, layer_prefix
from hfgrow.plan.operators.operator import check_amount
from hfgrow.plan.plan import GrowthPlan, TensorPlan
from hfgrow.plan.tensors import Blend, Fresh, Lift, Normal, Recipe

# What copies get where the function cannot stay: docs/operators.md has what it was chosen by.
ROUTER_NOISE = 3.0
MAX_ROUTER_NOISE = 100.0


def with_expert_copies(
    base: GrowthPlan,
    *,
    experts: int,
    top_k: int | None,
    router_noise: float | None,
    drop: float,
    key: str,
) -> tuple[GrowthPlan, dict[str, object], bool]:
    """Return a mixture with more experts, what was told with every default, and its promise.

    Args:
        base: The plan of a mixture with a table.
        experts: How many experts each layer gets, a multiple of those it has.
        top_k: How many a token passes; None is as many times more as there are experts.
        router_noise: How far the scores of copies stand apart; None is none where the function
            can stay, else `ROUTER_NOISE`.
        drop: The share of each copy's neurons that begin anew.
        key: Seeds what is random.

    Raises:
        UsageError: The mixture cannot be grown so.
    """
    family = FAMILIES[base.family]
    before, passed = family.sizes(base.config)["experts"], int(base.config["num_experts_per_tok"])
    _check_experts(experts, before)
    exact = experts // before * passed
    top_k = exact if top_k is None else top_k
    _check_top_k(top_k, experts, 2 if passed > 1 and normalises_shares(base.config) else 1)
    if router_noise is None:
        router_noise = 0.0 if top_k == exact else ROUTER_NOISE
    if not 0 <= router_noise <= MAX_ROUTER_NOISE:
        raise UsageError(
            f"{argument('router_noise')} must be from 0 to {MAX_ROUTER_NOISE:g}, not "
            f"{printable(router_noise, 40)}"
        )
    check_amount("drop", drop)
    growing = _Copying(base, family, experts, router_noise, drop, f"{key}/{experts}")
    told: dict[str, object] = {"experts": experts, "top_k": top_k}
    told |= {"router_noise": float(router_noise), "drop": drop}
    preserves = top_k == exact and not router_noise and not drop
    config = with_experts(base.config, experts, top_k)
    return replace(base, config=config, tensors=growing.tensors()), told, preserves


def _check_experts(experts: int, before: int) -> None:
    most = MAX_EXPERTS // before * before
    if most < 2 * before:
        raise UsageError(f"the {before} experts of the base are as many as hfgrow plans")
    if not 2 * before <= experts <= most or experts % before:
        raise UsageError(
            f"{argument('experts')} must be a multiple of the {before} experts that each layer "
            f"has, from {2 * before} to {most}, not {printable(experts, 40)}",
            hint=f"try {argument('experts', 2 * before)}",
        )


def _check_top_k(top_k: int, experts: int, least: int) -> None:
    if not least <= top_k <= experts:
        why = ": of one expert the share is always 1, from which a router learns nothing"
        raise UsageError(
            f"{argument('top_k')} must be from {least} to {experts}, not {printable(top_k, 40)}"
            f"{why if top_k == 1 else ''}",
            hint=f"try {argument('top_k', least)}",
        )


class _Copying:
    """The tensors of a mixture with more experts.

    Args:
        base: The plan to grow.
        family: Its table.
        experts: The experts that a layer gets.
        router_noise: How far the scores of copies stand apart.
        drop: The share of a copy's neurons that begin anew.
        key: Seeds what is random.
    """

    def __init__(
        self,
        base: GrowthPlan,
        family: Family,
        experts: int,
        router_noise: float,
        drop: float,
        key: str,
    ) -> None:
        self._base, self._key = base, key
        self._noise, self._drop = router_noise, drop
        self._roles, sizes = family.roles(base.config), family.sizes(base.config)
        self._before, self._experts = sizes["experts"], experts
        self._size = sizes["expert_ffn"]
        self._stream = identity(sizes["hidden"])
        self._patterns = [role.tensor for role in family.layer if "*" in role.tensor]
        self._router = next(
            role.tensor for role in family.layer if role.dimensions[0] == (("experts",),)
        )
        # A set of its own for each copy, the same in every layer.
        self._pieces = {
            expert: self._piece(expert) for expert in range(self._before, experts) if drop
        }

    def tensors(self) -> dict[str, TensorPlan]:
        """Return what every tensor is made from, copies behind the expert before them."""
        found: dict[str, TensorPlan] = {}
        last = [pattern.replace("*", str(self._before - 1)) for pattern in self._patterns]
        for name, tensor in self._base.tensors.items():
            layer, suffix = layer_of(name) or (-1, "")
            if suffix == self._router:
                found[name] = replace(tensor, recipe=self._routed(name, tensor.recipe))
                continue
            found[name] = tensor
            if suffix in last:
                found |= self._copies(layer_prefix(layer), self._patterns[last.index(suffix)])
        return found

    def _copies(self, prefix: str, pattern: str) -> dict[str, TensorPlan]:
        found = {}
        for expert in range(self._before, self._experts):
            suffix = pattern.replace("*", str(expert % self._before))
            name = prefix + pattern.replace("*", str(expert))
            tensor = self._base.tensors[prefix + suffix]
            recipe = self._expert(name, self._roles[suffix], tensor.recipe, expert)
            found[name] = replace(tensor, recipe=recipe)
        return found

    def _expert(self, name: str, role: Role, recipe: Recipe, expert: int) -> Recipe:
        """Return a matrix of a copy, some neurons of which may begin anew."""
        if not self._drop:
            return recipe
        piece = self._pieces[expert]
        std = initial_std(role, recipe.shape[1], self._base.num_hidden_layers)
        if role.dimensions[0] == HIDDEN:
            fresh = Fresh(f"{self._key}/{name}", columns=std)
            return Lift(recipe, self._stream, piece, fresh=fresh)
        return Lift(recipe, piece, self._stream, fresh=Fresh(f"{self._key}/{name}", rows=std))

    def _piece(self, expert: int) -> AxisMap:
        drawn = {
            *Random(f"{self._key}/{expert}").sample(
                range(self._size), round(self._drop * self._size)
            )
        }
        return copied(self._size, [FRESH if i in drawn else i for i in range(self._size)])

    def _routed(self, name: str, recipe: Recipe) -> Recipe:
        """Return the rows of the router, those of copies with the noise of their set."""
        before, copies = self._before, self._experts // self._before - 1
        rows = Lift(recipe, copied(before, [*range(before)] * (copies + 1)), self._stream)
        if not self._noise:
            return rows
        std = self._noise / sqrt(self._stream.size)
        noise = Normal((copies, self._stream.size), std, f"{self._key}/{name}")
        sets = [FRESH] * before + [c for c in range(copies) for _ in range(before)]
        return Blend(((1.0, rows), (1.0, Lift(noise, copied(copies, sets), self._stream))))
