"""Rows arrive downstream in the form that the consumer's annotation asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import BaseModel

from batchor_dagster import BatchorChecks, BatchorResults, batchor_assets
from batchor_engine import BatchJob
from example_project.models import Product, Sentiment, TicketTriage
from tests.on_dagster.shop import (
    DAY,
    FOUR_ROWS,
    NEXT_DAY,
    Shop,
    days,
    failure_of,
    job_for,
    tickets_asset,
    triage_assets,
)


def read_as(shop: Shop, annotation: Any, look: Callable[[Any], Any]) -> Any:
    """What a consumer with this annotation sees of a finished, unpartitioned run."""
    seen: list[Any] = []

    def reader(triage):
        seen.append(look(triage))

    reader.__annotations__ = {} if annotation is None else {"triage": annotation}
    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(), dg.asset(reader)])
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    result = shop.materialize(defs, "triage", "reader")
    return seen[0] if result.success else failure_of(result)


@pytest.mark.parametrize("annotation", [list[TicketTriage], list, None])
def test_a_list_holds_the_answers_in_row_order(shop: Shop, annotation: Any) -> None:
    read = read_as(shop, annotation, list)
    assert [type(one) for one in read] == [TicketTriage] * 3
    assert [one.product for one in read] == [Product.LAMP, Product.HUB, Product.OTHER]


def test_a_frame_holds_every_row_with_its_error(shop: Shop) -> None:
    frame = read_as(shop, pd.DataFrame, lambda frame: frame.copy())
    assert list(frame["item_id"]) == ["a", "b", "c", "d"]
    assert list(frame["status"]) == ["completed", "completed", "failed_permanent", "completed"]
    assert frame.loc[2, "error_class"] == "refusal"
    assert frame.loc[0, "urgency"] == "high"


def test_a_table_holds_typed_columns(shop: Shop) -> None:
    table = read_as(shop, pa.Table, lambda table: table)
    assert table.num_rows == 4
    assert pa.types.is_struct(table.schema.field("sentiment").type)


def test_a_handle_reads_when_asked(shop: Shop) -> None:
    def look(results: BatchorResults) -> tuple[Any, ...]:
        ids = [result.item_id for result in results.iter_results()]
        failed = [result.item_id for result in results.iter_failures()]
        return len(results), ids, failed, [type(one) for one in results], results.to_arrow().num_rows

    assert read_as(shop, BatchorResults, look) == (4, ["a", "b", "c", "d"], ["c"], [TicketTriage] * 3, 4)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (list[Sentiment], "triage holds TicketTriage, not Sentiment: annotate it list[TicketTriage]"),
        (list[str], "triage holds TicketTriage, not str: annotate it list[TicketTriage]"),
        (dict[str, list], "triage has no partitions: annotate it with what the dict would hold"),
        (dict[int, list], "use list[Model], pandas.DataFrame"),
    ],
)
def test_an_annotation_that_does_not_fit_is_named(shop: Shop, annotation: Any, words: str) -> None:
    assert words in read_as(shop, annotation, list)


@pytest.mark.parametrize("annotation", [list[BaseModel], Any])
def test_a_wider_annotation_fits(shop: Shop, annotation: Any) -> None:
    assert len(read_as(shop, annotation, list)) == 3


def test_an_unknown_form_is_refused_with_the_known_ones(shop: Shop) -> None:
    assert "use list[Model], pandas.DataFrame" in read_as(shop, int, int)


def test_a_text_job_gives_texts(shop: Shop) -> None:
    seen: list[Any] = []

    @batchor_assets(name="words", checks=BatchorChecks(max_failure_rate=1.0))
    def words() -> BatchJob:
        return job_for(FOUR_ROWS)

    @dg.asset
    def reader(words: list) -> None:
        seen.extend(words)

    defs = shop.definitions([words, reader])
    shop.materialize(defs, "words_batch")
    shop.sandbox.finish()
    assert shop.materialize(defs, "words", "reader").success
    assert len(seen) == 3
    assert all(isinstance(text, str) for text in seen)


def partitioned(shop: Shop, reader: dg.AssetsDefinition) -> dg.Definitions:
    defs = shop.definitions([tickets_asset(FOUR_ROWS, days), triage_assets(partitions_def=days), reader])
    for day in (DAY, NEXT_DAY):
        shop.materialize(defs, "tickets", "triage_batch", partition_key=day)
    shop.sandbox.finish()
    for day in (DAY, NEXT_DAY):
        shop.materialize(defs, "triage", partition_key=day)
    return defs


LENIENT = {"allow_missing_partitions": True}


def test_a_dict_has_one_entry_for_each_partition(shop: Shop) -> None:
    seen: dict[str, int] = {}

    @dg.asset(ins={"triage": dg.AssetIn(metadata=LENIENT)})
    def reader(triage: dict[str, pd.DataFrame]) -> None:
        seen.update({day: len(frame) for day, frame in triage.items()})

    assert shop.materialize(partitioned(shop, reader), "reader").success
    assert seen == {DAY: 4, NEXT_DAY: 4}


def test_a_partition_without_results_is_named(shop: Shop) -> None:
    @dg.asset
    def reader(triage: dict[str, list]) -> None: ...

    result = shop.materialize(partitioned(shop, reader), "reader")
    assert failure_of(result) == (
        "triage[2026-03-04] was never submitted: materialize triage_batch for it; 2 more partitions have no results "
        "either. To read those that are there: dg.AssetIn(metadata={'allow_missing_partitions': True})"
    )


def test_a_partition_at_the_provider_says_who_will_bring_it(shop: Shop) -> None:
    @dg.asset(partitions_def=days)
    def reader(triage: list) -> None: ...

    defs = shop.definitions([tickets_asset(FOUR_ROWS, days), triage_assets(partitions_def=days), reader])
    shop.materialize(defs, "tickets", "triage_batch", partition_key=DAY)
    result = shop.materialize(defs, "reader", partition_key=DAY)
    assert failure_of(result) == (
        f"triage[{DAY}] is not finished, 0 of 4 rows have an end: the sensor materializes it when the provider is done"
    )


def test_a_partition_without_any_answer_says_why(shop: Shop) -> None:
    @dg.asset
    def reader(triage: list) -> None: ...

    defs = shop.definitions([tickets_asset([{"id": "a", "body": ""}]), triage_assets(), reader])
    shop.materialize(defs, "tickets", "triage_batch")
    shop.sandbox.finish()
    shop.materialize(defs, "triage")
    assert failure_of(shop.materialize(defs, "reader")) == (
        "triage has no answer (refusal × 1): retry its failed rows, or materialize triage_batch again"
    )


def test_several_partitions_need_a_dict(shop: Shop) -> None:
    @dg.asset(ins={"triage": dg.AssetIn(metadata=LENIENT)})
    def reader(triage: list) -> None: ...

    result = shop.materialize(partitioned(shop, reader), "reader")
    assert "covers 5 partitions of triage: annotate it dict[str, …]" in failure_of(result)


def test_the_io_manager_stores_nothing(shop: Shop) -> None:
    @dg.asset(io_manager_key="batchor_io_manager")
    def misplaced() -> int:
        return 1

    defs = shop.definitions([tickets_asset(FOUR_ROWS), triage_assets(), misplaced])
    assert "which only reads results of batch jobs" in failure_of(shop.materialize(defs, "misplaced"))
