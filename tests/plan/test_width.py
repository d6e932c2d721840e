"""What a growth in width says of itself: widths, no layers, the same function.

Whether training tells copies apart: the embedded model, twice as wide, 100 steps of AdamW.

What is new can learn: within a few steps of training every new weight moves.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import hfgrow
from hfgrow.checkpoint.compute.moments import Mode
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import UsageError
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators import OPERATORS
from tests.checkpoints import MakeCheckpoint, load, write_checkpoint
from tests.program import call_hfgrow

CHANGED = "hidden_size 32 -> 48, intermediate_size 48 -> 72"
WORDS = ("hyperclone-noisy", "base", "--hidden-size", "48", "--ffn", "72")


@pytest.fixture(scope="module")
def place(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("width")
    shutil.copytree(make_checkpoint("qwen3", tied=True), folder / "base")
    return folder


@pytest.fixture(scope="module")
def grown(place: Path) -> tuple[Path, str]:
    """The grown folder, and what its growth said."""
    finished = call_hfgrow(*WORDS, "--untie", "--verify", cwd=place)
    assert finished.returncode == 0, finished.stderr
    return place / finished.stdout.strip(), finished.stderr


def test_a_dry_run_tells_widths_and_no_layers(place: Path) -> None:
    text = call_hfgrow(*WORDS, "--dry-run", cwd=place).stdout
    assert f"width           {CHANGED}" in text
    assert "layers" not in text
    finished = call_hfgrow(*WORDS, "--dry-run", "--json", cwd=place)
    document: dict[str, Any] = json.loads(finished.stdout)
    assert document["widths"] == {
        "hidden_size": {"base": 32, "grown": 48},
        "intermediate_size": {"base": 48, "grown": 72},
    }
    assert document["preserves_function"] is True


def test_the_end_of_a_growth_tells_widths_and_no_layers(grown: tuple[Path, str]) -> None:
    folder, said = grown
    assert folder.name == "base-untie-hyperclone-noisy-hs48-f72"
    lines = [line for line in said.splitlines() if not line.startswith(("Note", "Measuring"))]
    assert lines[0].startswith("Grew ")
    assert " parameters into " in lines[0]
    assert f"  width     {CHANGED}" in lines
    assert "layers" not in said
    assert len(lines) <= 10


def test_the_chain_tells_widths(grown: tuple[Path, str]) -> None:
    lines = call_hfgrow("lineage", grown[0]).stdout.splitlines()
    assert f"      | {CHANGED}" in lines
    assert any("hfgrow apply steps.yaml base  # steps.yaml: " in line for line in lines)


@pytest.mark.parametrize("command", ["verify", "reproduce"])
def test_a_growth_in_width_is_proved(place: Path, grown: tuple[Path, str], command: str) -> None:
    finished = call_hfgrow(command, grown[0], cwd=place)
    assert finished.returncode == 0, finished.stderr


def test_the_picture_is_of_widths_and_not_of_layers(grown: tuple[Path, str]) -> None:
    assert not (grown[0] / "layers.svg").exists()
    card = (grown[0] / "README.md").read_text()
    assert "layers.svg" not in card
    assert "](widths.svg)" in card
    assert "hidden_size: 32 to 48" in (grown[0] / "widths.svg").read_text()


def test_the_record_says_where_units_come_from(grown: tuple[Path, str]) -> None:
    step = json.loads((grown[0] / "hfgrow.json").read_text())["chain"][-1]["steps"][-1]
    assert step["axes"]["hidden"] == "32 -> 0-31, 0-15"


def test_a_growth_in_depth_of_a_wider_model_is_told_and_proved(
    place: Path, grown: tuple[Path, str]
) -> None:
    out = place / "deeper"
    finished = call_hfgrow("stack", grown[0], "--g", "2", "--branch-scale", "1", "--out", out)
    assert finished.returncode == 0, finished.stderr
    for command in ("verify", "reproduce"):
        again = call_hfgrow(command, out, cwd=place)
        assert again.returncode == 0, again.stderr
    assert "grown from 4 to 8 layers by" in (out / "README.md").read_text()
    shutil.rmtree(out)


DEMO = Path(hfgrow.__file__).parent / "demo"
STEPS, BATCH, LENGTH, RATE = 100, 2, 64, 1e-3
# Tensors and the axis on which their copies lie.
COPIES = [
    ("embed_tokens", 1),
    ("q_proj", 0),
    ("gate_proj", 0),
    ("gate_proj", 1),
    ("down_proj", 0),
    ("down_proj", 1),
]
NOISY: dict[str, object] = {"g": 2, "noise": 0.1}
LOUD: dict[str, object] = {"g": 2, "noise": 0.5}
# Growth, mode of the moments -> whether copies stay copies.
CASES: list[tuple[str, dict[str, object], Mode, bool]] = [
    ("hyperclone", {"g": 2}, "reset", True),
    ("hyperclone", {"g": 2}, "copy", True),
    ("hyperclone", {"g": 2}, "asym", False),
    ("hyperclone-noisy", NOISY, "reset", False),
    ("hyperclone-noisy", NOISY, "copy", False),
    ("hyperclone-noisy", LOUD, "reset", False),
]


def train(model: Any, optimizer: Any, num_steps: int) -> float:
    """Train on windows of the probe text, the same for every model; return the last loss."""
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO)
    text = (Path(hfgrow.__file__).parent / "growth" / "probe.txt").read_text(encoding="utf-8")
    tokens = torch.tensor(tokenizer(text)["input_ids"])
    generator = torch.Generator().manual_seed(1)
    loss = 0.0
    for _ in range(num_steps):
        starts = torch.randint(len(tokens) - LENGTH, (BATCH,), generator=generator)
        batch = torch.stack([tokens[i : i + LENGTH] for i in starts.tolist()])
        result = model(batch, labels=batch)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        loss = result.loss.item()
    return loss


def adamw(model: Any) -> Any:
    return torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95))


def parameters_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def differences(tensors: dict[str, torch.Tensor]) -> list[float]:
    """The relative distance of the two copies of what `COPIES` names, over all layers."""
    found = []
    for name, axis in COPIES:
        halves = [tensor.chunk(2, axis) for key, tensor in tensors.items() if name in key]
        one, other = (torch.cat([half[i].flatten() for half in halves]) for i in (0, 1))
        found.append(float((one - other).norm() / one.norm()))
    return found


@pytest.fixture(scope="module")
def base() -> tuple[Any, dict[str, Any]]:
    """The embedded model in float32, and the state of AdamW after some steps."""
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(DEMO, dtype=torch.float32)
    optimizer = adamw(model)
    train(model, optimizer, 20)
    return model, {name: optimizer.state[p] for name, p in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize(("operator", "arguments", "mode", "alike"), CASES)
def test_only_what_is_told_apart_grows_apart(
    operator: str,
    arguments: dict[str, object],
    mode: Mode,
    alike: bool,
    base: tuple[Any, dict[str, Any]],
) -> None:
    small, state = base
    steps = [(operator, arguments)]
    weights, config = hfgrow.grow_state_dict(small, steps)
    model = type(small).from_pretrained(
        None, config=type(small.config)(**config), state_dict=weights
    )
    grown_state = hfgrow.grow_optimizer_state(hfgrow.plan_state_dict(small, steps), state, mode)
    optimizer = adamw(model)
    for name, parameter in model.named_parameters():
        if name in grown_state:
            optimizer.state[parameter] = grown_state[name]
    before = parameters_of(model)
    loss = train(model, optimizer, STEPS)
    after = parameters_of(model)
    updates = {name: tensor - before[name] for name, tensor in after.items()}
    rows = zip(COPIES, *map(differences, (before, after, updates)), strict=True)
    print(f"\n{operator} {arguments}, moments {mode}: loss {loss:.4f}; before, after, updates")
    for (name, axis), *values in rows:
        copies = f"{name} {'columns' if axis else 'rows'}"
        print(f"  {copies:22}", *(f"{value:.1e}" for value in values))
    if alike:
        assert max(differences(after)) < 1e-6
    else:
        assert min(differences(updates)) > 5e-3


GROWTHS = {
    "zero-width": ("zero-width", "--g", "2"),
    "lemon with a remainder": ("lemon", "--hidden-size", "40", "--ffn", "60"),
    "head-dim": ("head-dim", "--factor", "2"),
    "hyperclone-noisy": ("hyperclone-noisy", "--hidden-size", "48", "--ffn", "60"),
    "random-width": ("random-width", "--g", "2", "--mask", "0.1"),
    "zero-depth": ("zero-depth", "--g", "2"),
    "random-depth": ("random-depth", "--g", "2"),
}


def trained(model: Any, num_steps: int) -> Any:
    """Train on random tokens that hold the whole vocabulary."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    tokens = torch.randperm(64, generator=torch.Generator().manual_seed(3)).view(2, 32)
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss: Any = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("growth", GROWTHS)
def test_every_matrix_moves_in_every_place(
    growth: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    operator, *arguments = GROWTHS[growth]
    base = make_checkpoint(traits=False)
    finished = call_hfgrow(operator, base, *arguments, "--out", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    model = load(tmp_path / "out")[0]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained(model, 4)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embed" not in name:
            still = float((parameter == before[name]).float().mean())
            assert still < 0.01, f"{still:.0%} of {name} never moves"


@pytest.mark.parametrize(
    ("widths", "hint"),
    [
        ({"hidden_size": 48}, "hidden_size=48 heads=6"),
        ({"heads": 8}, "hidden_size=64 heads=8"),
        ({"hidden_size": 70}, "hidden_size=80 heads=10"),
    ],
    ids=str,
)
def test_a_width_that_breaks_the_factors_of_longrope_says_which_keeps_them(
    tmp_path: Path, widths: dict[str, int], hint: str
) -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 2, "long_factor": [2.0] * 2}
    more: dict[str, Any] = {"rope_scaling": rope, "original_max_position_embeddings": 64}
    base = read(LocalFolder(write_checkpoint(tmp_path / "base", "phi3", **more)))
    with pytest.raises(UsageError, match="longrope has 2 factors") as caught:
        OPERATORS["zero-width"](base, **widths)
    assert hint in caught.value.hint
    sizes = dict(part.split("=") for part in hint.split())
    grown = OPERATORS["zero-width"](base, **{key: int(size) for key, size in sizes.items()})
    assert not FAMILIES["phi3"].objection(grown.config)


@pytest.mark.parametrize(
    ("operator", "widths", "message"),
    [
        ("hyperclone", {}, "there is no target width: g, hidden_size, ffn, heads or kv_heads"),
        ("hyperclone", {"g": 1}, "growth factor g must be from 2 to 21845 here, not 1"),
        ("hyperclone", {"g": 2, "ffn": 96}, "g multiplies every width; leave out ffn, or g"),
        ("hyperclone", {"ffn": 60}, "hyperclone copies whole multiples; ffn 60 is none of 48"),
        ("hyperclone", {"ffn": 10}, "ffn=10 is not between the base's 48 and 1048576"),
        ("hyperclone-noisy", {"ffn": 48}, "the base has these widths already"),
        ("hyperclone-noisy", {"heads": 9}, "9 query heads are no multiple of 2 key-value heads"),
        ("head-dim", {"factor": 1}, "the factor of head_dim must be at least 2, not 1"),
        ("head-dim", {"factor": 10**7}, "a width of 80000000 is more than the 1048576 of hfgrow"),
    ],
    ids=str,
)
def test_a_width_that_cannot_be_is_refused(
    operator: str, widths: dict[str, int], message: str, make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint()))
    with pytest.raises(UsageError, match=f"^{message}$"):
        OPERATORS[operator](base, **widths)


def test_a_head_that_is_rotated_in_part_keeps_its_size(tmp_path: Path) -> None:
    base = read(LocalFolder(write_checkpoint(tmp_path / "base", partial_rotary_factor=0.5)))
    with pytest.raises(UsageError, match="head_dim cannot grow: only a part of it is rotary"):
        OPERATORS["head-dim"](base, factor=2)


def test_heads_that_no_map_is_known_for_keep_their_number(make_checkpoint: MakeCheckpoint) -> None:
    base = read(LocalFolder(make_checkpoint("minicpm3")))
    with pytest.raises(UsageError, match="num_attention_heads of minicpm3 cannot grow") as caught:
        OPERATORS["hyperclone"](base, g=2)
    assert caught.value.hint == "grow hidden_size or ffn alone"
