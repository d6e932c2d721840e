"""The card of a trained model: what was done, on what, at what cost, and nothing that is untrue."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.errors import ModelError, OutputError
from hfgrow.lineage.canvas import write_picture
from hfgrow.lineage.card import card_files, metadata
from hfgrow.lineage.describe import training_lines
from hfgrow.lineage.manifest import Compute, Manifest
from hfgrow.lineage.reading import manifest_of
from hfgrow.lineage.records import Elsewhere
from tests.links import GROWN, link, model
from tests.trained import (
    EVALUATED,
    HUB_TEXT,
    LOCAL_TEXT,
    cost,
    then_trained,
    trained_only,
    training,
)

AGAIN = link(4, [0, 1, 2, 3, 0, 1, 2, 3])


def card(manifest: Manifest, **more: Any) -> str:
    return card_files(manifest, **more)["README.md"]


def test_the_introduction_says_what_was_grown_and_trained() -> None:
    text = card(then_trained(GROWN))
    assert (
        "`org/base` grown from 2 to 4 layers by `stack --g 2`, then trained on 1 M tokens." in text
    )


def test_the_introduction_says_what_became_of_the_loss() -> None:
    text = card(then_trained(GROWN))
    assert (
        "- Loss on `held.txt`, nats per token: 3.000 before growth, 4.250 just after it, "
        "2.500 after training." in text
    )


def test_a_model_of_random_weights_has_no_base_to_speak_of() -> None:
    nothing = cost(40, tokens=0, source="declared")
    text = card(replace(trained_only(), root_compute=nothing))
    limits = text.partition("## Limits")[2]
    assert "random weights" in limits
    for untrue in ("base's", "authors", "cards"):
        assert untrue not in limits


def test_every_setting_is_told() -> None:
    text = card(trained_only())
    assert "`betas 0.9,0.95`, `weight_decay 0.1`, `document_mask False`" in text


def test_nothing_says_that_a_trained_model_was_not_trained() -> None:
    text = card(then_trained(GROWN))
    for untrue in ("not trained", "Not trained", "not a better model", "hfgrow reproduce"):
        assert untrue not in text


def test_a_training_alone_tells_of_no_growth() -> None:
    files = card_files(trained_only(evaluations=(replace(EVALUATED, before_growth=None),)))
    assert list(files) == ["README.md"]
    text = files["README.md"]
    assert "`org/base` trained on 1 M tokens." in text
    before_compute = text.split("## Compute")[0]
    for absent in ("growth", "grown", "layers.svg", "recover"):
        assert absent not in before_compute.replace("text-generation", "")


def test_a_growth_after_training_is_a_start_again_and_says_what_went_before() -> None:
    text = card(then_trained(GROWN).followed_by(AGAIN))
    assert "and not trained since" in text
    assert "What it grew from was trained on 1 M tokens" in text
    assert "Not trained after growth" in text
    assert "## Compute" in text
    assert "## Training" not in text
    assert "hfgrow verify ./name" in text
    assert "hfgrow reproduce" not in text


def test_a_training_by_another_program_between_two_links_is_part_of_the_story() -> None:
    whole = then_trained(GROWN).followed_by(AGAIN)
    whole = whole.followed_by(training(AGAIN.result))
    done = replace(whole, elsewhere=(Elsewhere(1, "2B tokens by axolotl", GROWN.result.files),))
    text = card(done)
    assert (
        "by `stack --g 2`, then trained by another program (2B tokens by axolotl), then trained on "
        "1 M tokens, then grown from 4 to 8 layers" in text
    )
    assert "Since then" not in text


def test_a_second_training_tells_the_whole_story() -> None:
    manifest = then_trained(GROWN).followed_by(AGAIN)
    text = card(manifest.followed_by(training(AGAIN.result)))
    assert (
        "`org/base` grown from 2 to 4 layers by `stack --g 2`, then trained on 1 M tokens, then "
        "grown from 4 to 8 layers by `stack --g 2`, then trained on 1 M tokens." in text
    )
    assert "This is the last of 2 trainings" in text
    assert "the last of 2 growths" in text


def test_a_long_chain_is_told_in_sums() -> None:
    chain = tuple(training(AGAIN.base, AGAIN.base) for _ in range(7))
    text = card(Manifest((GROWN, *chain)))
    assert "`org/base` grown once and trained 7 times, on 7 M tokens in all." in text
    other = Elsewhere(1, "2B tokens by axolotl", GROWN.result.files)
    text = card(Manifest((GROWN, *chain), elsewhere=(other,)))
    assert "7 M tokens in all and trained once by another program." in text


def test_the_training_section_says_how() -> None:
    text = card(then_trained(GROWN))
    for line in (
        "| tokens | 1,000,000 |",
        "| optimizer | `adamw` |",
        "| learning rate | 0.0003, schedule `wsd` |",
        "| batch | 65,536 tokens, in sequences of 1,024 |",
        "| precision | `bf16` |",
        "| trained weights | `all` |",
        "| `notes.txt` | local text, split `train` | 100,000 | 1 |",
    ):
        assert line in text.splitlines()


def test_the_losses_stand_in_a_table_with_bits_per_byte() -> None:
    row = "| `held.txt` | 4,096 | 3.0000 | 4.2500 | 2.5000 | 250 K | 1.7500 | 1.0000 |"
    assert row in card(then_trained(GROWN)).splitlines()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recovered_tokens": 250_000}, "250 K"),
        ({"recovered_tokens": None, "after": 3.5}, "not recovered"),
        ({"recovered_tokens": None, "after": 2.5}, "not seen"),
        ({"recovered_tokens": None, "before": 3.0}, "0"),
        ({"recovered_tokens": 250_000, "after": 3.5}, "250 K, higher again in the end"),
    ],
    ids=str,
)
def test_how_long_recovery_took_is_said_as_far_as_it_is_known(
    changes: dict[str, Any], said: str
) -> None:
    text = card(then_trained(GROWN, evaluations=(replace(EVALUATED, **changes),)))
    (row,) = [line for line in text.splitlines() if line.startswith("| `held.txt`")]
    assert row.split(" | ")[5] == said


def test_the_picture_is_linked_where_there_is_one() -> None:
    assert "![loss](loss.png)" in card(then_trained(GROWN), picture=True)
    assert "loss.png" not in card(then_trained(GROWN))


def test_the_picture_of_the_layers_stays_with_a_trained_model() -> None:
    assert set(card_files(then_trained(GROWN))) == {"README.md", "layers.svg"}


def test_the_compute_section_is_the_ledger() -> None:
    declared = Compute(20, 16, 10**9, 6.0 * 20 * 10**9, source="declared")
    lines = card(replace(then_trained(GROWN), root_compute=declared)).splitlines()
    training_row = (
        "| training | trained | 40 | 1 M | 2.4e+08 | 5e+12 | 1 | 2 x a device | measured |"
    )
    assert training_row in lines
    assert any(line.startswith("| root | name | 20 | 1 B | 1.2e+11 |") for line in lines)


def test_of_a_mixture_of_experts_both_counts_are_told() -> None:
    paid = Compute(40, 32, 1000, 6.0 * 25 * 1000, num_active_parameters=25)
    text = card(Manifest((training(model(4), compute=paid),)))
    assert "6ND counts the parameters that a token passes, its active ones" in text
    assert "with all of them what is recorded here would be 2.4e+05 FLOPs" in text
    assert "Of a mixture of experts" not in card(then_trained(GROWN))


def test_a_chain_of_growths_has_no_compute_section() -> None:
    assert "## Compute" not in card(Manifest((GROWN,)))


def test_only_datasets_of_the_hub_are_metadata() -> None:
    python = replace(HUB_TEXT, dataset="demo", label="demo")
    block = metadata(trained_only(data=(LOCAL_TEXT, python, HUB_TEXT, HUB_TEXT)))
    assert block["datasets"] == ["org/texts"]
    assert "datasets" not in metadata(trained_only(data=(LOCAL_TEXT,)))


def test_the_nearest_model_on_the_hub_is_the_base_model() -> None:
    assert metadata(then_trained(GROWN))["base_model"] == "org/base"
    published = replace(GROWN.result, repo_id="me/grown", revision="1" * 40)
    block = metadata(Manifest((replace(GROWN, result=published), training(published))))
    assert (block["base_model"], block["base_model_relation"]) == ("me/grown", "finetune")


def test_the_tags_say_growth_only_where_there_was_some() -> None:
    assert metadata(trained_only())["tags"] == ["hfgrow", "continued-pretraining"]
    assert metadata(then_trained(GROWN))["tags"] == [
        "hfgrow",
        "model-growth",
        "depth-upscaling",
        "stacking",
        "continued-pretraining",
    ]


def test_the_metadata_are_yaml() -> None:
    text = card(then_trained(GROWN, card={"license": "mit", "language": ["no"]}))
    assert yaml.safe_load(text.split("---\n")[1])["language"] == ["no"]


def test_no_name_of_a_record_becomes_markup() -> None:
    """Also in a card that is written by the run itself, which nobody reads back first."""
    evil = '"><b>`|[x](http://evil)\n# h'
    manifest = then_trained(
        GROWN,
        optimizer=evil,
        schedule=evil,
        precision=evil,
        trainable=evil,
        data=(replace(LOCAL_TEXT, label=evil, split=evil), replace(HUB_TEXT, dataset=evil)),
        evaluations=(replace(EVALUATED, label=evil),),
        compute=cost(40, device=evil),
    )
    text = card(manifest)
    for markup in ("<b>", "](http://evil", "\n# h"):
        assert markup not in text


@pytest.mark.parametrize(
    ("trainable", "settings", "said"),
    [
        ("all", {}, "0.0003, schedule"),
        ("all", {"new_learning_rate": 0.01}, "0.0003, new layers 0.01, schedule"),
        ("new", {"new_learning_rate": 0.01}, "| new layers 0.01, schedule"),
        (
            "new+embeddings",
            {"new_learning_rate": 0.01, "embedding_learning_rate": 0.001},
            "| new layers 0.01, embeddings 0.001, schedule",
        ),
        ("new+embeddings", {"new_learning_rate": 0.01}, "0.0003, new layers 0.01, schedule"),
    ],
)
def test_the_learning_rates_are_those_that_trained(
    trainable: str, settings: dict[str, float], said: str
) -> None:
    text = card(trained_only(trainable=trainable, settings=settings))
    (row,) = (line for line in text.splitlines() if line.startswith("| learning rate"))
    assert said in row


def test_of_very_many_texts_the_first_are_told_and_the_others_counted() -> None:
    texts = tuple(replace(LOCAL_TEXT, label=f"part-{i}.txt") for i in range(53))
    text = card(trained_only(data=texts))
    assert "`part-49.txt`" in text
    assert "part-50.txt" not in text
    assert "| and 3 more, in hfgrow.json | | | |" in text


def test_what_trained_is_told_where_it_was_not_all() -> None:
    (link,) = trained_only(trainable="new").trainings
    assert "trained weights: new" in training_lines(link)
    (link,) = trained_only().trainings
    assert not [line for line in training_lines(link) if line.startswith("trained weights")]


def test_a_folder_that_is_not_there_has_no_lineage(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        manifest_of(LocalFolder(tmp_path / "nothing"))


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*loss\.png: Not a directory"):
        write_picture(tmp_path / "file" / "loss.png", b"")
