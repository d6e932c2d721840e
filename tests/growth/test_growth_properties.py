"""Any sizes, any head layout, any list of steps: the function stays, and the order of work too."""

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hfgrow import grow_state_dict
from hfgrow.errors import UsageError
from tests.checkpoints import TRAITS, logits
from tests.growths import with_exact_norms

Steps = list[tuple[str, dict[str, object]]]
EXACT = 1e-12


def make(model_type: str, **sizes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = AutoConfig.for_model(
        model_type, **TRAITS[model_type], vocab_size=64, pad_token_id=0, **sizes
    )
    auto_model: Any = AutoModelForCausalLM
    model = auto_model.from_config(config, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.2 * noise if "norm" in name else 0.3 * noise)
    return model.eval()


def regrown(model: Any, state: dict[str, Any], config: dict[str, Any]) -> Any:
    loaded = type(model).from_pretrained(
        None, config=type(model.config)(**config), state_dict=state, dtype=torch.float64
    )
    return loaded.eval()


def error(model: Any, steps: Steps) -> float:
    try:
        grown = regrown(model, *grow_state_dict(model, steps))
    except UsageError:
        assume(False)
    expected, found = logits(with_exact_norms(model)), logits(with_exact_norms(grown))
    return float((found - expected).abs().max() / expected.abs().max())


@st.composite
def bases(draw: st.DrawFn) -> Any:
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    heads = kv_heads * group
    return make(
        draw(st.sampled_from(["llama", "qwen3", "gemma2", "phi3", "smollm3"])),
        hidden_size=heads * 2 * draw(st.integers(1, 3)),
        intermediate_size=draw(st.integers(3, 20)),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_hidden_layers=2,
        tie_word_embeddings=draw(st.booleans()),
    )


@st.composite
def widths(draw: st.DrawFn, config: Any) -> dict[str, object]:
    """Targets above the base: any neurons, any width that the heads divide, any groups."""
    heads = config.num_attention_heads
    kv_heads = config.num_key_value_heads
    new_kv_heads = kv_heads + draw(st.integers(0, 3))
    new_heads = new_kv_heads * (heads // kv_heads + draw(st.integers(0, 2)))
    hidden = config.hidden_size + draw(st.integers(0, 20))
    return {
        "ffn": config.intermediate_size + draw(st.integers(1, 20)),
        "kv_heads": new_kv_heads,
        "heads": new_heads,
        "hidden_size": -(-hidden // new_heads) * new_heads,
    }


@given(data=st.data(), base=bases())
@settings(max_examples=15)
def test_copies_of_any_sizes_keep_the_function(data: st.DataObject, base: Any) -> None:
    operator = data.draw(st.sampled_from(["hyperclone-noisy", "split", "net2net", "lemon"]))
    arguments = data.draw(widths(base.config)) | {"noise": data.draw(st.floats(0, 1))}
    assert error(base, [(operator, arguments)]) <= EXACT


@given(data=st.data(), base=bases())
@settings(max_examples=10)
def test_new_units_of_any_sizes_keep_the_function(data: st.DataObject, base: Any) -> None:
    operator = data.draw(st.sampled_from(["zero-width", "random-width"]))
    assert error(base, [(operator, data.draw(widths(base.config)))]) <= EXACT


STEPS = st.lists(
    st.sampled_from(
        [
            ("zero-depth", {"g": 2}),
            ("random-depth", {"g": 2, "seed": 1}),
            ("hyperclone-noisy", {"g": 2, "noise": 0.5}),
            ("split", {"ffn": 30}),
            ("lemon", {"hidden_size": 60}),
            ("zero-width", {"heads": 12}),
            ("head-dim", {"factor": 2}),
            ("untie", {}),
        ]
    ),
    min_size=2,
    max_size=4,
    # A step that was taken, such as untie, often cannot be taken again.
    unique_by=lambda step: step[0],
)


@pytest.fixture(scope="module")
def small() -> Any:
    return make(
        "llama",
        hidden_size=12,
        intermediate_size=15,
        num_attention_heads=3,
        num_key_value_heads=3,
        num_hidden_layers=2,
        tie_word_embeddings=True,
    )


@given(steps=STEPS)
@settings(max_examples=12)
def test_any_list_of_preserving_steps_preserves_the_function(small: Any, steps: Steps) -> None:
    assert error(small, steps) <= EXACT * len(steps)


@given(steps=STEPS, data=st.data())
@settings(max_examples=12)
def test_a_growth_may_be_parted_anywhere(small: Any, steps: Steps, data: st.DataObject) -> None:
    """Two growths one after the other give the bits of one: composition is associative."""
    try:
        state, config = grow_state_dict(small, steps)
    except UsageError:
        assume(False)
    cut = data.draw(st.integers(1, len(steps) - 1))
    between, between_config = grow_state_dict(small, steps[:cut])
    parted, parted_config = grow_state_dict(between, steps[cut:], config=between_config)
    assert parted_config == config
    assert parted.keys() == state.keys()
    assert all(torch.equal(parted[name], state[name]) for name in state)
