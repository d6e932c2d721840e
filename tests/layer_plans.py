"""Plans of models that nobody wrote, and what an operator made of their layers."""

from hfgrow.plan.plan import GrowthPlan, LayerSource, TensorPlan
from hfgrow.plan.tensors import Blend, Fill, Recipe, Stored

NORM, QUERY, OUT = "input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.o_proj.weight"

SIZES = {"hidden_size": 8, "intermediate_size": 8, "vocab_size": 8, "num_attention_heads": 2}


def plan_of(num_layers: int) -> GrowthPlan:
    """A plan of a model with a norm, q_proj and o_proj in each layer, each named by its number."""
    shapes = {NORM: (8,), QUERY: (8, 8), OUT: (8, 8)}
    tensors = {
        f"model.layers.{i}.{role}": TensorPlan(
            "F32", Stored("model.safetensors", str(i), 256 * i, shape, "F32")
        )
        for i in range(num_layers)
        for role, shape in shapes.items()
    }
    return GrowthPlan(
        folder="",
        config={**SIZES, "num_hidden_layers": num_layers},
        family="llama",
        layer_map=tuple(LayerSource(i) for i in range(num_layers)),
        tensors=tensors,
        files={},
    )


def recipe(plan: GrowthPlan, layer: int, role: str) -> Recipe:
    """What a tensor of the plan is made from."""
    return plan.tensors[f"model.layers.{layer}.{role}"].recipe


def stored(layer: int, role: str) -> Recipe:
    """The tensor of the base."""
    return recipe(plan_of(layer + 1), layer, role)


def sources(plan: GrowthPlan) -> list[int]:
    """The layer map, read off the tensors and compared with what the plan says it is."""
    found = []
    for i in range(plan.num_hidden_layers):
        copied = recipe(plan, i, NORM)
        assert isinstance(copied, Stored)
        found.append(int(copied.name))
    assert found == [source.layer for source in plan.layer_map]
    return found


def modes(plan: GrowthPlan) -> str:
    """The first letter of each layer's mode, read off the tensors and compared with the plan."""
    found = []
    for i, source in enumerate(plan.layer_map):
        match recipe(plan, i, QUERY), recipe(plan, i, OUT):
            case Stored(), Stored():
                mode = "copy"
            case Stored(), Fill():
                mode = "zero"
            case Blend(), Blend():
                mode = "average"
            case _:
                mode = "random"
        assert mode == source.mode
        found.append(mode[0])
    return "".join(found)
