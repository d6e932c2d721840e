"""hfgrow from Python: what a shell completes, how objects show themselves, commands as calls."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hfgrow
from hfgrow.console import Silent, usual_progress
from hfgrow.errors import OutputError

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "first-steps.ipynb"
LONGEST_REPR = 300


@pytest.fixture(scope="module")
def growth(tmp_path_factory: pytest.TempPathFactory) -> hfgrow.Growth:
    out = tmp_path_factory.mktemp("calls") / "demo-stack-g2"
    steps = [("stack", {"g": 2})]
    return hfgrow.grow(hfgrow.GrowthRequest(model="demo", steps=steps, out=out))


def test_a_shell_completes_every_name() -> None:
    assert set(hfgrow.__all__) == set(dir(hfgrow))
    for name in hfgrow.__all__:
        assert getattr(hfgrow, name) is not None


def test_asking_for_names_imports_nothing() -> None:
    code = "import sys, hfgrow; dir(hfgrow); print('torch' in sys.modules, 'yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_what_a_cell_shows_is_a_line(growth: hfgrow.Growth) -> None:
    things: list[Any] = [
        growth,
        growth.plan,
        growth.manifest,
        hfgrow.inspect("demo"),
        hfgrow.budget("demo", tokens="1M"),
        hfgrow.FAMILIES["llama"],
        hfgrow.OPERATORS["stack"],
    ]
    for thing in things:
        assert len(repr(thing)) < LONGEST_REPR, thing
    assert repr(growth).startswith("Growth(demo-stack-g2: 6 -> 12 layers, 1.44 M -> 2.62 M")


def test_a_model_in_memory_grows_into_one_that_is_tied_again() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base: Any = AutoModelForCausalLM.from_pretrained(hfgrow.pull("demo"))
    assert base.config.tie_word_embeddings
    grown = hfgrow.grow_model(base, [("zero-depth", {"g": 2})])
    assert type(grown) is type(base)
    assert grown.lm_head.weight is grown.model.embed_tokens.weight
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(grown(tokens).logits, base(tokens).logits)


def test_tensors_in_memory_load_strictly_as_their_page_says() -> None:
    from transformers import AutoModelForCausalLM

    base: Any = AutoModelForCausalLM.from_pretrained(hfgrow.pull("demo"))
    state, config = hfgrow.grow_state_dict(base, [("stack", {"g": 2})])
    settings = type(base.config)(**config)
    _, info = type(base).from_pretrained(
        None, config=settings, state_dict=state, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_a_model_is_pulled_into_a_folder_and_not_over_another(tmp_path: Path) -> None:
    assert hfgrow.pull("demo", out=tmp_path / "here") == tmp_path / "here"
    weights = (tmp_path / "here" / "model.safetensors").read_bytes()
    assert weights == (hfgrow.pull("demo") / "model.safetensors").read_bytes()
    with pytest.raises(OutputError, match="exists"):
        hfgrow.pull("demo", out=tmp_path / "here")
    hfgrow.pull("demo", out=tmp_path / "here", overwrite=True)


def test_models_are_measured_side_by_side(growth: hfgrow.Growth) -> None:
    base, grown = hfgrow.evaluate(["demo", growth.out], "demo", tokens="2K", device="cpu")
    assert grown.num_parameters > base.num_parameters
    assert base.texts[0].loss.num_tokens == grown.texts[0].loss.num_tokens
    assert base.texts[0].loss.loss < grown.texts[0].loss.loss
    assert re.fullmatch(
        r"ModelLoss\(demo: 1.44 M parameters; demo \d\.\d+ nats a token, \d\.\d+ bits a byte\)",
        repr(base),
    )


def test_a_verification_shows_what_was_compared_and_measured(growth: hfgrow.Growth) -> None:
    shown = repr(hfgrow.verify(growth.out))
    assert len(shown) < LONGEST_REPR
    assert shown.startswith("Verified(demo-stack-g2: 110 tensors; Measured(loss 3.5567 -> 3.6537")


def test_a_budget_takes_a_model_or_parameters_and_not_both() -> None:
    assert hfgrow.budget(parameters="7B", tokens="300B").g == 4
    with pytest.raises(hfgrow.GrowthError, match="either a model or parameters"):
        hfgrow.budget("demo", parameters="7B", tokens="1B")


def test_a_script_is_told_nothing_unless_it_asks(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(usual_progress(), Silent)
    hfgrow.inspect("demo")
    assert capsys.readouterr() == ("", "")
    hfgrow.inspect("demo", progress=hfgrow.Bars())
    assert "demo" in capsys.readouterr().err


def test_a_recipe_runs_from_python(tmp_path: Path) -> None:
    from tests.train.runs import recipe

    asked = recipe(tmp_path, output=str(tmp_path / "other"))
    made = hfgrow.train(asked, overrides=[f"output={tmp_path}/run"], on_cpu=True, quiet=True)
    assert made.folder == tmp_path / "run" / "final"
    assert made.tokens == 3072
    assert made.losses[0].after < made.losses[0].before
    assert repr(made).startswith("Trained(run: 2 layers")


def test_the_notebook_has_ten_lines_or_few_more() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    lines = [
        line for c in cells if c["cell_type"] == "code" for line in c["source"] if line.strip()
    ]
    assert len(lines) == 10
    assert all(not cell.get("outputs") for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs_and_pushes(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from tests.hub_server import Hub
    from tests.hub_server.fixtures import hub_environment

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with Hub() as hub:
        variables = hub_environment(hub, tmp_path / "hf") | {"OMP_NUM_THREADS": "1"}
        client = nbclient.NotebookClient(
            notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
        )
        client.execute(env=variables)
        assert "model.safetensors" in hub.files("alice/demo-grown-and-trained")
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("Trained(" in str(output.get("data")) for output in shown)
