"""What a mixture of experts is, by the names of `Model` in hfgrow.json."""

from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.derived import DerivedFamily, experts_in, is_of_experts
from hfgrow.plan.plan import GrowthPlan


def experts_of(plan: GrowthPlan) -> dict[str, int]:
    """Return the record of a mixture of experts, by the names of `Model`; empty if it is none."""
    if plan.derived is not None:
        return _experts_of_derived(plan, plan.derived)
    family = FAMILIES[plan.family]
    if not family.has_experts:
        return {}
    active = sum(
        tensor.num_elements * family.share(name, plan.config)
        for name, tensor in plan.tensors.items()
    )
    return {
        "num_experts": family.sizes(plan.config)["experts"],
        "num_experts_per_tok": int(plan.config["num_experts_per_tok"]),
        "num_active_parameters": round(active),
    }


def _experts_of_derived(plan: GrowthPlan, family: DerivedFamily) -> dict[str, int]:
    chosen, num_experts = experts_in(plan.settings)
    held = sum(
        tensor.num_elements
        for name, tensor in plan.tensors.items()
        if family.layer_of(name) and is_of_experts(name, tensor.shape, num_experts)
    )
    # A config class has defaults for experts that no layer has.
    if num_experts < 2 or not held:
        return {}
    return {
        "num_experts": num_experts,
        "num_experts_per_tok": chosen,
        "num_active_parameters": plan.num_parameters - round((1 - chosen / num_experts) * held),
    }
