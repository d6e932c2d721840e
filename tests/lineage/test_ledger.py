"""The ledger: every stage of a chain, what it cost, and what nobody knows."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.lineage.ledger import UNKNOWN, ledger, rows
from hfgrow.lineage.manifest import Manifest
from hfgrow.lineage.reading import parse_manifest
from tests.links import GROWN, link, model
from tests.trained import DECLARED, cost, then_trained, trained_only, training


def test_the_stages_stand_in_their_order_from_the_root_on() -> None:
    found = ledger(then_trained(GROWN).followed_by(link(4, [0, 1, 2, 3])))
    assert [entry.kind for entry in found.entries] == ["root", "growth", "training", "growth"]
    assert [entry.num_parameters for entry in found.entries] == [20, 40, 40, 40]


def test_what_the_root_had_cost_is_unknown() -> None:
    root = ledger(then_trained(GROWN)).entries[0]
    assert root.source == UNKNOWN
    assert (root.tokens, root.flops, root.exact_flops, root.device_seconds) == (None,) * 4


def test_what_the_root_had_cost_can_be_declared() -> None:
    found = ledger(replace(then_trained(GROWN), root_compute=DECLARED))
    assert (found.entries[0].source, found.entries[0].tokens) == ("declared", 10**9)
    assert found.total.tokens == 10**9 + 10**6
    assert found.total.flops == pytest.approx(6 * 20 * 10**9 + 6 * 40 * 10**6)


def test_random_weights_have_cost_nothing() -> None:
    fresh = replace(DECLARED, tokens=0, flops=0.0)
    found = ledger(replace(then_trained(GROWN), root_compute=fresh))
    assert found.total == found.recorded
    assert found.total.device_seconds is not None


def test_what_is_not_known_of_one_stage_is_not_known_of_all() -> None:
    found = ledger(replace(then_trained(GROWN), root_compute=DECLARED))
    assert found.recorded.exact_flops == 5e12
    assert found.total.exact_flops is None
    assert ledger(then_trained(GROWN)).total.tokens is None


def test_of_a_mixture_of_experts_6nd_counts_what_a_token_passes() -> None:
    mixture = model(4, num_experts=8, num_experts_per_tok=2, num_active_parameters=25)
    paid = cost(40, 1000, flops=6.0 * 25 * 1000, num_active_parameters=25)
    found = ledger(Manifest((training(mixture, compute=paid),)))
    assert (found.recorded.flops, found.of_all) == (6.0 * 25 * 1000, 6.0 * 40 * 1000)
    assert rows(found)[2][2:5] == ("40, 25 active", "1 K", "1.5e+05")


def test_an_older_record_of_a_mixture_is_counted_anew() -> None:
    mixture = model(4, num_experts=8, num_experts_per_tok=2, num_active_parameters=25)
    older = Manifest((training(mixture, compute=cost(40, 1000)),))
    assert parse_manifest(json.loads(older.to_json())) == older
    assert ledger(older).recorded.flops == 6.0 * 25 * 1000


def test_what_a_token_passes_of_a_derived_family_is_what_its_run_found() -> None:
    paid = cost(40, 1000, flops=6.0 * 25 * 1000, num_active_parameters=25)
    trained = ledger(Manifest((training(model(4), compute=paid),))).entries[1]
    assert trained.num_active_parameters == 25


def test_a_growth_trains_nothing() -> None:
    found = ledger(Manifest((GROWN,)))
    assert found.entries[1].tokens == 0
    assert found.recorded.flops == 0


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=5))
def test_the_trainings_of_a_chain_are_added(tokens: list[int]) -> None:
    one = model(4)
    chain = tuple(training(one, one, compute=cost(40, n)) for n in tokens)
    recorded = ledger(Manifest(chain)).recorded
    assert recorded.tokens == sum(tokens)
    assert recorded.flops == pytest.approx(240 * sum(tokens))
    assert recorded.device_seconds == pytest.approx(3600 * len(tokens))


def test_the_table_has_a_header_every_stage_and_the_sum() -> None:
    table = rows(ledger(trained_only()))
    assert [row[0] for row in table] == ["stage", "root", "training", "recorded here"]
    assert table[2][1:] == (
        "trained",
        "40",
        "1 M",
        "2.4e+08",
        "5e+12",
        "1",
        "2 x a device",
        "measured",
    )
    assert {len(row) for row in table} == {len(table[0])}


def test_the_table_adds_the_root_only_where_it_was_declared() -> None:
    table = rows(ledger(replace(then_trained(GROWN), root_compute=DECLARED)))
    assert [row[0] for row in table[-2:]] == ["recorded here", "with the root"]


def test_the_ledger_as_json_says_null_where_nothing_is_known() -> None:
    content = ledger(trained_only()).to_json()
    assert isinstance(content["stages"], list)
    assert content["stages"][0]["tokens"] is None
    assert content["total"] == dict.fromkeys(
        ("tokens", "flops", "exact_flops", "device_seconds"), None
    )
