"""From numbers to words: checks by threshold, pictures, tables of failures, usage keys, links to the provider."""

from __future__ import annotations

import base64
import re
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import dagster as dg
import pytest

from batchor_dagster import BatchorChecks, BatchorMetadataSet, BatchorResource
from batchor_dagster.checks import check_results, check_specs
from batchor_dagster.columns import cell
from batchor_dagster.facts import Facts
from batchor_dagster.failures import INVALID, REFUSED, TRUNCATED, by_class, class_table, meaning, unanswered
from batchor_dagster.plots import INLINE_CHARS, outcome_plot, progress_plot
from batchor_dagster.reports import submission_metadata, usage_metadata
from batchor_engine import Cost, RunUsage
from tests.on_dagster.shop import FOUR_ROWS, Shop, materialized, tickets_asset, triage_assets

KEY = dg.AssetKey("triage")
FAILURES = {
    "refusal": 3,
    "invalid_json": 2,
    "structured_output_validation_failed": 2,
    "incomplete_answer": 1,
    "batch_output_missing_row": 1,
    "batch_terminal_expired": 4,
}


def facts(cost: Cost = Cost(Decimal("1.25")), **changed: Any) -> Facts:  # noqa: B008 - a frozen value
    known: dict[str, Any] = {
        "rows": 100,
        "completed": 87,
        "failed": 13,
        "attempts": 120,
        "failures": FAILURES,
        "usage": RunUsage(1000, 200, 300, 50),
        "cost": cost,
    }
    return Facts(**{**known, **changed})


@pytest.mark.parametrize(
    ("threshold", "measured", "words"),
    [
        ("max_failure_rate", 0.13, "13 of 100 rows failed for good (13.0%); at most {} allowed"),
        ("max_invalid_rate", 0.04, "4 of 100 rows had an answer that is not valid (4.0%); at most {} allowed"),
        ("max_refusal_rate", 0.03, "3 of 100 rows were declined or filtered (3.0%); at most {} allowed"),
        ("max_truncated_rate", 0.01, "1 of 100 rows had their answer cut (1.0%); at most {} allowed"),
        ("max_missing_rows", 5, "5 of 100 rows were never answered; at most {} rows allowed"),
        ("max_cost_usd", 1.25, "$1.25; at most {} allowed"),
    ],
)
def test_a_check_passes_up_to_its_threshold_and_fails_above(threshold: str, measured: float, words: str) -> None:
    for limit, passed in ((measured, True), (measured * 0.5, False)):
        checks = BatchorChecks(**{"max_failure_rate": None, threshold: int(limit) if measured == 5 else limit})
        (spec,), (result,) = check_specs(KEY, checks), check_results(KEY, facts(), checks)
        assert result.check_name == spec.name == threshold.removeprefix("max_")
        assert result.passed is passed
        assert result.severity is dg.AssetCheckSeverity.ERROR
        assert re.fullmatch(re.escape(words).replace(r"\{\}", r"[\d.,%$]+"), result.description or "")
        assert result.metadata[spec.name].value == measured


def test_every_failure_is_of_one_kind_at_most() -> None:
    assert not INVALID & REFUSED
    assert not (INVALID | REFUSED) & TRUNCATED
    assert unanswered(dict.fromkeys(INVALID | REFUSED | TRUNCATED, 1)) == 0


def test_a_check_that_only_warns_says_so_and_a_blocking_one_too() -> None:
    checks = BatchorChecks(max_refusal_rate=0.0, warn_only=frozenset({"refusal_rate"}), blocking=True)
    severities = {one.check_name: one.severity.value for one in check_results(KEY, facts(), checks)}
    assert severities == {"failure_rate": "ERROR", "refusal_rate": "WARN"}
    assert all(spec.blocking for spec in check_specs(KEY, checks))


def test_an_unknown_price_is_no_price_within_the_budget() -> None:
    checks = BatchorChecks(max_failure_rate=None, max_cost_usd=5)
    (result,) = check_results(KEY, facts(Cost(None, note="unknown price: who knows")), checks)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.description == "The cost is not known (unknown price: who knows); at most $5.00 allowed"


def test_a_check_names_its_partition() -> None:
    (result,) = check_results(KEY, facts(), BatchorChecks(), partition="2026-03-02")
    assert (result.description or "").startswith("2026-03-02: 13 of 100")
    assert result.metadata["partition"].value == "2026-03-02"


def test_a_run_without_rows_passes_every_check() -> None:
    nothing = facts(rows=0, completed=0, failed=0, failures={}, cost=Cost(Decimal(0)))
    checks = BatchorChecks(max_failure_rate=0, max_invalid_rate=0, max_missing_rows=0, max_cost_usd=0)
    assert [result.passed for result in check_results(KEY, nothing, checks)] == [True] * 4


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"max_failure_rate": 1.5}, "max_failure_rate must be between 0 and 1, not 1.5"),
        ({"max_missing_rows": -1}, "max_missing_rows must be at least 0"),
        ({"max_cost_usd": float("nan")}, "max_cost_usd must be at least 0"),
        ({"warn_only": frozenset({"refusals"})}, "names no check 'refusals'; known: failure_rate, "),
    ],
)
def test_a_threshold_that_cannot_be_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        BatchorChecks(**wrong)


def svg_of(plot: dg.MarkdownMetadataValue | None) -> ElementTree.Element:
    assert plot is not None
    assert len(plot.value) < INLINE_CHARS
    found = re.search(r"base64,([^)]+)\)", plot.value)
    assert found
    return ElementTree.fromstring(base64.b64decode(found[1]))


def texts(svg: ElementTree.Element) -> str:
    return "".join(svg.itertext())


def test_an_outcome_is_a_bar_that_fits_in_place_however_many_classes_there_are() -> None:
    many = [(f"a_class_of_failures_with_a_long_name_{n}", 10 - n) for n in range(9)]
    svg = svg_of(outcome_plot(999_955, many))
    widths = [int((path.get("d") or "").split("h")[1]) for path in svg.iter("{http://www.w3.org/2000/svg}path")]
    assert sum(widths) == 320
    assert min(widths) >= 2
    assert "completed 999,955 (100.0%)" in texts(svg)
    assert "other failures" in texts(svg)


def test_an_outcome_names_every_class_when_there_are_few() -> None:
    shown = texts(svg_of(outcome_plot(90, [("refusal", 7), ("invalid_json", 3)])))
    assert shown == "■ completed 90 (90.0%)■ refusal 7 (7.0%)■ invalid_json 3 (3.0%)"
    assert outcome_plot(0, []) is None


def test_progress_tells_read_rows_from_answered_and_open_ones() -> None:
    shown = texts(svg_of(progress_plot(completed=50, failed=2, answered=80, rows=100)))
    assert shown == "■ completed 50 (50.0%)■ failed 2 (2.0%)■ answered 28 (28.0%)■ open 20 (20.0%)"
    assert progress_plot(0, 0, 0, 0) is None


def test_the_table_of_classes_has_the_most_frequent_first_and_says_what_they_mean() -> None:
    table = class_table(FAILURES, [])
    assert table
    assert [record.data["error_class"] for record in table.records][:2] == ["batch_terminal_expired", "refusal"]
    assert all(record.data["meaning"] for record in table.records)
    assert sum(int(record.data["rows"]) for record in table.records) == 13
    assert (meaning("never_heard_of"), class_table({}, []), by_class({})) == ("", None, [])


def delivered(shop: Shop) -> BatchorMetadataSet:
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets()])
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    first = materialized(shop.materialize(defs, "triage"), "triage")[0].metadata
    again = materialized(shop.materialize(defs, "triage"), "triage")[0].metadata
    usage = {key: value.value for key, value in first.items() if key.startswith("openai.gpt-5-mini.")}
    told = BatchorMetadataSet.extract(first)
    assert told.input_tokens
    assert told.output_tokens
    assert usage == {
        "openai.gpt-5-mini.calls": 4,
        "openai.gpt-5-mini.total_tokens": told.input_tokens + told.output_tokens,
        "openai.gpt-5-mini.prompt_tokens": told.input_tokens,
        "openai.gpt-5-mini.completion_tokens": told.output_tokens,
    }
    assert not [key for key in again if key.startswith("openai.")]
    return told


def test_an_outcome_shows_reasons_costs_links_and_usage_once(shop: Shop) -> None:
    told = delivered(shop)
    assert told.cost_usd
    assert "priced as OpenAI charges" in (told.cost or "")
    assert told.failed_rows
    assert [record.data["item_id"] for record in told.failed_rows.records] == ["c"]
    assert told.failure_classes
    assert told.failure_classes.records[0].data["meaning"] == "The model declined to answer."
    assert told.submission == dg.MetadataValue.asset(dg.AssetKey("triage_batch"))
    assert told.submission_run
    run = shop.instance.get_run_by_id(told.submission_run.run_id)
    assert run
    assert dg.AssetKey("triage_batch") in (run.asset_selection or set())
    # The sandbox has no dashboard.
    assert told.provider_page is None
    assert told.provider_batches
    assert "platform.openai.com" not in told.provider_batches.value
    away = BatchorResource(store_url=shop.batchor.store_url, artifacts_url=shop.batchor.artifacts_url)
    runner = away.runner()
    info = runner.find_runs()[0]
    told = submission_metadata(runner.get_run(info.run_id), info)
    page = f"https://platform.openai.com/batches/{info.batches[0].provider_batch_id}"
    assert told.provider_page == dg.MetadataValue.url(page)
    assert told.provider_batches
    assert f"]({page})" in told.provider_batches.value
    runner.close()


def test_only_new_usage_of_a_run_is_shown(shop: Shop) -> None:
    shop.materialize(shop.definitions(), "tickets", "triage_batch")
    with shop.runner() as runner:
        run = runner.get_run(shop.infos()[0].run_id)
        shown = BatchorMetadataSet(run_id=run.run_id, attempts=100, input_tokens=900, output_tokens=100)
        assert set(usage_metadata(run, facts(), shown).values()) == {20, 300, 100, 200}
        other = BatchorMetadataSet(run_id="another", attempts=100, input_tokens=900, output_tokens=100)
        assert usage_metadata(run, facts(), other)["openai.gpt-5-mini.calls"] == 120


def test_a_cell_of_a_table_reads_like_words() -> None:
    assert cell({"mood": "calm", "confidence": 0.6}) == "mood: calm, confidence: 0.6"
    assert cell([{"kind": "order"}, {"kind": "room"}]) == "kind: order; kind: room"
    assert [cell(value) for value in (None, [], True, 7, "ランプ")] == ["", "", "true", "7", "ランプ"]
    assert len(cell("x" * 500)) == 120


def test_an_outcome_begins_with_what_people_look_for_and_ends_with_what_is_large(shop: Shop) -> None:
    defs = shop.definitions()
    assert shop.materialize(defs, "tickets", "triage_batch").success
    shop.sandbox.finish()
    (shown,) = materialized(shop.materialize(defs, "triage"), "triage")
    names = [key.removeprefix("batchor/") for key in shown.metadata if key.startswith("batchor/")]
    assert names[:6] == ["run_id", "status", "outcomes", "rows", "completed", "failed"]
    assert names[-3:] == ["failure_classes", "failed_rows", "preview"]
    assert names.index("submission_run") < names.index("failure_classes")
