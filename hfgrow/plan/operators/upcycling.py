"""The operator that makes a mixture of experts of a dense model, or gives a mixture more of them.

A dense layer's MLP becomes experts, and a fresh router before them. The function stays, because the
shares that a router gives a token's experts sum to 1 and what they are shares of is the same:

* whole copies: any experts will do, `sum over e of p_e f(x) = f(x)`;
* shards: the neurons are cut into `G` pieces, `f = f_1 + ... + f_G`. Experts come in groups that
  hold each piece once, and a group's rows of the router are equal, so that its experts come
  together or not at all. With the down projections times `G` the shares of `t` groups,
  `p_j / G` for each expert, give `sum over j of p_j / G sum over i of G f_i(x) = f(x)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Annotated, Any

from hfgrow.errors import UsageError, argument, printable
from hfgrow.plan.axes import FRESH, AxisMap, copied, identity
from hfgrow.plan.depth import initial_std
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.experts import MAX_EXPERTS
from hfgrow.plan.families.table import Config, Role, layer_of, layer_prefix
from hfgrow.plan.operators.expert_copies import with_expert_copies
from hfgrow.plan.operators.operator import (
    Amount,
    Mark,
    Operator,
    Seed,
    check_amount,
    check_seed,
    operator,
)
from hfgrow.plan.plan import GrowthPlan, TensorPlan, in_place
from hfgrow.plan.tensors import Fill, Fresh, Lift, Normal, Recipe

# 16 bytes of bfloat16: transformers multiplies all experts in one product, whose rows begin so.
_SIZE_STEP = 8
_GATE, _UP, _DOWN = "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"


@dataclass(frozen=True, slots=True)
class _Mixture:
    """What a dense family becomes.

    Attributes:
        family: The model type.
        defaults: What the dense class takes where config.json is silent, and the other does not.
        num_experts: The config key of their number.
        expert_size: That of their neurons.
        router: The name of its tensor in a layer.
        expert: The names of an expert's tensors, by those of the MLP.
        settled: From the dense config and the new one to the keys that are particular.
    """

    family: str
    defaults: Mapping[str, Any]
    num_experts: str
    expert_size: str
    router: str
    expert: Mapping[str, str]
    settled: Callable[[Config, int], Mapping[str, Any]]


def _settle_mixtral(config: Config, size: int) -> dict[str, Any]:
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise UsageError(f"{key} is true, and a mixtral has no biases")
    window = config.get("sliding_window", 4096) if config["model_type"] == "mistral" else None
    return {"sliding_window": window, "layer_types": ...}


def _settle_qwen2(config: Config, size: int) -> dict[str, Any]:
    return {
        **FAMILIES["qwen2"].per_layer(config),
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "qkv_bias": True,
        "shared_expert_intermediate_size": size,
    }


def _settle_qwen3(config: Config, size: int) -> dict[str, Any]:
    kinds = set(FAMILIES["qwen3"].per_layer(config)["layer_types"])
    if len(kinds) > 1:
        raise UsageError(
            "some layers have a sliding window and others have none, which a qwen3_moe cannot say"
        )
    return {
        "use_sliding_window": kinds == {"sliding_attention"},
        "layer_types": ...,
        "max_window_layers": ...,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _settle_olmo2(config: Config, size: int) -> dict[str, Any]:
    return {"norm_topk_prob": True, "layer_types": ...}


_OF_QWEN = {
    _GATE: "mlp.experts.*.gate_proj.weight",
    _UP: "mlp.experts.*.up_proj.weight",
    _DOWN: "mlp.experts.*.down_proj.weight",
}
_LLAMA = _Mixture(
    family="mixtral",
    defaults={"rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "rope_theta": 1e4},
    num_experts="num_local_experts",
    expert_size="intermediate_size",
    router="block_sparse_moe.gate.weight",
    expert={
        _GATE: "block_sparse_moe.experts.*.w1.weight",
        _UP: "block_sparse_moe.experts.*.w3.weight",
        _DOWN: "block_sparse_moe.experts.*.w2.weight",
    },
    settled=_settle_mixtral,
)
_QWEN2 = _Mixture(
    family="qwen2_moe",
    defaults={},
    num_experts="num_experts",
    expert_size="moe_intermediate_size",
    router="mlp.gate.weight",
    expert=_OF_QWEN,
    settled=_settle_qwen2,
)
_MIXTURES: Mapping[str, _Mixture] = {
    "llama": _LLAMA,
    "mistral": replace(_LLAMA, defaults={"rms_norm_eps": 1e-6, "rope_theta": 1e4}),
    "olmo2": replace(
        _QWEN2,
        family="flex_olmo",
        defaults={
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 2048,
            "rope_theta": 1e4,
            "pad_token_id": 1,
            "eos_token_id": 50279,
        },
        expert_size="intermediate_size",
        settled=_settle_olmo2,
    ),
    "qwen2": _QWEN2,
    "qwen3": replace(_QWEN2, family="qwen3_moe", settled=_settle_qwen3),
}


@operator(
    "upcycle",
    axis="experts",
    preserves_function=True,
    formula=(
        "f_e = f, or G f_(e mod G) with f = f_0 + .. + f_(G-1); router row e of group e // G; of a "
        "mixture f_e = f_(e mod E), router row e mod E"
    ),
    paper=(
        "Komatsuzaki et al. 2022, Sparse Upcycling, https://arxiv.org/abs/2212.05055; "
        "He et al. 2024, Upcycling Large Language Models into Mixture of Experts, "
        "https://arxiv.org/abs/2410.07524; Nakamura et al. 2025, Drop-Upcycling, "
        "https://arxiv.org/abs/2502.19261; Dwivedi et al. 2026, Expert Upcycling, "
        "https://arxiv.org/abs/2604.19835"
    ),
    tags=("mixture-of-experts", "upcycling"),
)
def upcycle(
    own: Operator[...],
    base: GrowthPlan,
    *,
    experts: int,
    top_k: int | None = None,
    shards: int = 1,
    drop: Amount = 0.0,
    router_noise: Annotated[float | None, Mark.VARIANT] = None,
    seed: Seed = 0,
) -> GrowthPlan:
    """Make a mixture of experts, copies or shards of every MLP, or give a mixture more of them.

    Llama and Mistral become Mixtral, Qwen2 Qwen2-MoE, Qwen3 Qwen3-MoE, OLMo2 FlexOLMo, with a fresh
    router. Function preserving in whole copies and in shards; not where neurons are dropped, which
    makes experts differ from the start. The shared expert of Qwen2-MoE begins with a down
    projection of zeros.

    These mixtures get copies of their experts, and of the rows of their routers: function
    preserving where a token passes as many times more experts as there are, and neither noise nor
    dropping tells copies apart.

    Source: Sec. 2 of the first paper; the second's virtual groups and weight scaling for shards;
    the third's re-initialisation, here with the spread of a fresh model's weights; the fourth's
    copies of experts. That one adds noise to biases of the router, which these mixtures lack.

    Args:
        own: The operator, for the record.
        base: The plan to grow.
        experts: How many experts each layer gets, shards counted one by one; of a mixture a
            multiple of those it has.
        top_k: How many of them a token passes; 2 by default, or one group of shards; of a mixture
            as many times more as there are experts, and fewer change the function.
        shards: Into how many pieces, of which each expert is one, the MLP is cut; 1 copies it.
        drop: The share of each expert's neurons that begin anew, from 0 to 1; of a mixture of each
            copy's.
        router_noise: How far the scores of a mixture's copies stand apart, in nats for an input of
            mean square 1; by default 0 where the function can stay, else 3. Copies that neither
            this nor dropping tells apart stay alike in training.
        seed: Seeds what is random; the same seed gives the same bytes.

    Raises:
        UsageError: The model cannot become such a mixture.
    """
    family = FAMILIES.get(base.family)
    if family is not None and family.has_experts:
        return _with_more(own, base, experts, top_k, shards, drop, router_noise, seed)
    if base.family not in _MIXTURES:
        grown = [name for name, one in FAMILIES.items() if one.has_experts]
        own_experts = ", and no table of experts that it may have" if base.derived else ""
        raise UsageError(
            f"there is no mixture of experts for a {printable(base.family)} to become{own_experts}",
            hint=f"it makes mixtures of {', '.join(_MIXTURES)}, and gives more experts to "
            f"{', '.join(grown)}",
        )
    if router_noise is not None:
        raise UsageError(
            f"{argument('router_noise')} tells copies of a mixture's experts apart, and the base "
            "is dense: its router is fresh",
            hint=f"leave it out; {argument('drop', 0.5)} makes the experts differ",
        )
    if top_k is None:
        top_k = 2 if shards == 1 else shards
    _check_counts(base, experts, top_k, shards)
    check_amount("drop", drop)
    check_seed(seed)
    told = {"experts": experts, "top_k": top_k, "shards": shards, "drop": drop, "seed": seed}
    mixture = _MIXTURES[base.family]
    growing = _Growing(base, mixture, experts, shards, drop, f"{seed}/{own.name}")
    return replace(
        base,
        config=_config(base, mixture, experts, top_k, shards),
        family=mixture.family,
        tensors=growing.tensors(),
        steps=(*base.steps, in_place(base, own.step(told, preserves_function=drop == 0))),
    )


def _with_more(
    own: Operator[...],
    base: GrowthPlan,
    experts: int,
    top_k: int | None,
    shards: int,
    drop: float,
    router_noise: float | None,
    seed: int,
) -> GrowthPlan:
    """Return a mixture with copies of its experts."""
    if shards != 1:
        raise UsageError(
            f"{argument('shards')} cuts the MLPs of a dense model, and the base is a mixture, "
            "whose experts are copied whole",
            hint=f"leave it out, or upcycle the dense model with {argument('shards', shards)}",
        )
    check_seed(seed)
    grown, told, preserves = with_expert_copies(
        base,
        experts=experts,
        top_k=top_k,
        router_noise=router_noise,
        drop=drop,
        key=f"{seed}/{own.name}",
    )
    step = own.step({**told, "seed": seed}, preserves_function=preserves)
    return replace(grown, steps=(*base.steps, in_place(base, step)))


def dense_config(config: Config) -> dict[str, Any]:
    """Return a config whose dense model has the tensors that a mixture was made of.

    Args:
        config: The config of a mixture that `upcycle` made. Of two dense families that become it
            the first stands for both; windows, which are of no tensor, are left out.
    """
    windows = ("layer_types", "max_window_layers", "sliding_window", "use_sliding_window")
    dense = next(
        name for name, mixture in _MIXTURES.items() if mixture.family == config["model_type"]
    )
    rest = {key: value for key, value in config.items() if key not in windows}
    return {**rest, "model_type": dense, "architectures": [FAMILIES[dense].architecture]}


def _check_counts(base: GrowthPlan, experts: int, top_k: int, shards: int) -> None:
    size = FAMILIES[base.family].sizes(base.config)["ffn"]
    if shards < 1 or size % shards:
        near = [n for n in range(2, min(size, 64) + 1) if size % n == 0]
        raise UsageError(
            f"{argument('shards')} must divide the intermediate_size {size} of the base, which "
            f"{printable(shards, 40)} does not",
            hint=f"it can be {', '.join(map(str, near[:8]))}" if near else "",
        )
    if shards > 1 and size // shards % _SIZE_STEP:
        raise UsageError(
            f"shards of {size // shards} neurons are no multiple of {_SIZE_STEP}, which the "
            "products of transformers want in half precision",
            hint=f"take fewer {argument('shards')}",
        )
    if not 2 * shards <= experts <= MAX_EXPERTS or experts % shards:
        wanted = f"a multiple of the {shards} shards" if shards > 1 else "a number"
        raise UsageError(
            f"{argument('experts')} must be {wanted} from {2 * shards} to {MAX_EXPERTS}, not "
            f"{printable(experts, 40)}",
            hint=f"try {argument('experts', 8 * shards)}",
        )
    least = shards if shards > 1 else 2
    if not least <= top_k <= experts or top_k % shards:
        why = (
            "a token passes whole groups of shards"
            if shards > 1
            else "of one expert the share is always 1, from which a router learns nothing"
        )
        raise UsageError(
            f"{argument('top_k')} must be "
            + (f"a multiple of the {shards} shards " if shards > 1 else "")
            + f"from {least} to {experts}, not {printable(top_k, 40)}: {why}",
            hint=f"try {argument('top_k', least)}",
        )


def _config(
    base: GrowthPlan, mixture: _Mixture, experts: int, top_k: int, shards: int
) -> dict[str, Any]:
    family, grown = FAMILIES[base.family], FAMILIES[mixture.family]
    sizes = family.sizes(base.config)
    size = sizes["ffn"] // shards
    config = {
        **base.config,
        **mixture.settled(base.config, size),
        "model_type": mixture.family,
        "architectures": [grown.architecture],
        # Said whatever the class would say, for the other class says something else.
        "num_key_value_heads": sizes["kv_heads"],
        "head_dim": sizes["head_dim"],
        "tie_word_embeddings": family.is_tied(base.config),
        mixture.num_experts: experts,
        "num_experts_per_tok": top_k,
        mixture.expert_size: size,
    }
    for key, value in mixture.defaults.items():
        if key == "rope_theta":
            _settle_theta(config, value)
        else:
            config.setdefault(key, value)
    config = {key: value for key, value in config.items() if value is not ...}
    if objection := grown.objection(config):
        raise UsageError(f"transformers would refuse the grown config.json: {objection}")
    return config


def _settle_theta(config: dict[str, Any], theta: float) -> None:
    """Write the base of the rotary frequencies down where the dense class has it by default."""
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" not in rope and "rope_theta" not in config:
        config["rope_parameters"] = {**rope, "rope_theta": theta}
    elif not isinstance(rope, dict):
        config.setdefault("rope_theta", theta)


class _Growing:
    """The tensors of one growth.

    Args:
        base: The plan to grow.
        mixture: What it becomes.
        experts: The experts of a layer.
        shards: Into how many pieces an MLP is cut.
        drop: The share of neurons that begin anew.
        key: Seeds what is random.
    """

    def __init__(
        self,
        base: GrowthPlan,
        mixture: _Mixture,
        experts: int,
        shards: int,
        drop: float,
        key: str,
    ) -> None:
        self._base, self._mixture, self._key = base, mixture, key
        self._experts, self._shards, self._drop = experts, shards, drop
        family = FAMILIES[base.family]
        self._roles = family.roles(base.config)
        self._sizes = family.sizes(base.config)
        self._size = self._sizes["ffn"] // shards
        self._stream = identity(self._sizes["hidden"])
        self._pieces = [self._piece(expert) for expert in range(experts)]

    def tensors(self) -> dict[str, TensorPlan]:
        """Return what every tensor of the mixture is made from."""
        found: dict[str, TensorPlan] = {}
        for name, tensor in self._base.tensors.items():
            place = layer_of(name)
            if place is None or place[1] not in self._mixture.expert:
                found[name] = tensor
                continue
            if place[1] == _GATE:
                found |= self._around(layer_prefix(place[0]), tensor.dtype)
            for expert in range(self._experts):
                inside = self._mixture.expert[place[1]].replace("*", str(expert))
                new = layer_prefix(place[0]) + inside
                recipe = self._expert(new, self._roles[place[1]], tensor.recipe, expert)
                found[new] = replace(tensor, recipe=recipe)
        return found

    def _expert(self, name: str, role: Role, recipe: Recipe, expert: int) -> Recipe:
        """Return a matrix of an expert: the MLP's, or the rows or columns of its neurons."""
        piece = self._pieces[expert]
        if piece.is_identity:
            return recipe
        reads = role.tensor != _DOWN
        shape = (piece.size, recipe.shape[1]) if reads else (recipe.shape[0], piece.size)
        if recipe == Fill(recipe.shape, 0.0) and not self._drop:
            return Fill(shape, 0.0)
        std = initial_std(role, shape[1], self._base.num_hidden_layers) if self._drop else 0.0
        fresh = Fresh(f"{self._key}/{name}", rows=std, columns=std * self._shards)
        if reads:
            return Lift(recipe, piece, self._stream, fresh=fresh)
        return Lift(recipe, self._stream, piece, fresh=fresh)

    def _piece(self, expert: int) -> AxisMap:
        """Return which neurons an expert has; those that begin anew come from none."""
        first = expert % self._shards * self._size
        # A set of its own for each expert, the same in every layer.
        drawn = Random(f"{self._key}/{expert}").sample(
            range(self._size), round(self._drop * self._size)
        )
        sources = [first + i for i in range(self._size)]
        for i in drawn:
            sources[i] = FRESH
        kept = copied(self._sizes["ffn"], sources)
        if self._shards == 1:
            return kept
        spans = (replace(s, backward=s.backward * self._shards) for s in kept.spans)
        return AxisMap(kept.base, tuple(spans))

    def _around(self, prefix: str, dtype: str) -> dict[str, TensorPlan]:
        """Return the router of a layer, and the shared expert where the class has one."""
        hidden, groups = self._sizes["hidden"], self._experts // self._shards
        spread = float(self._base.config.get("initializer_range") or 0.02)

        def fresh(name: str, rows: int) -> Normal:
            return Normal((rows, hidden), spread, f"{self._key}/{prefix}{name}")

        router: Recipe = fresh(self._mixture.router, groups)
        if self._shards > 1:
            of_group = copied(groups, [e // self._shards for e in range(self._experts)])
            router = Lift(router, of_group, self._stream)
        found: dict[str, Recipe] = {self._mixture.router: router}
        if self._mixture.family == "qwen2_moe":
            shared = "mlp.shared_expert"
            found |= {
                f"{shared}.gate_proj.weight": fresh(f"{shared}.gate_proj.weight", self._size),
                f"{shared}.up_proj.weight": fresh(f"{shared}.up_proj.weight", self._size),
                f"{shared}.down_proj.weight": Fill((hidden, self._size), 0.0),
                "mlp.shared_expert_gate.weight": Fill((1, hidden), 0.0),
            }
        return {prefix + name: TensorPlan(dtype, recipe) for name, recipe in found.items()}
