"""Another store than the one that the rows were submitted with is never told as nothing submitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from tests.on_dagster.shop import DAY, FOUR_ROWS, Shop, days, failure_of, tickets_asset, triage_assets

from ..stores import new_url


@pytest.mark.parametrize("partition", [None, DAY])
def test_a_run_that_dagster_shows_and_this_store_lacks_is_named_with_the_store(
    shop: Shop, store_kind: str, tmp_path: Path, partition: str | None
) -> None:
    partitions = days if partition else None

    @dg.asset(partitions_def=partitions)
    def reader(triage: list) -> None: ...

    assets = [tickets_asset(FOUR_ROWS, partitions), triage_assets(partitions_def=partitions), reader]
    where = {"partition_key": partition} if partition else {}
    assert shop.materialize(shop.definitions(assets), "tickets", "triage_batch", **where).success
    (info,) = shop.infos()
    shop.sandbox.finish()
    (request,) = shop.tick(shop.definitions(assets)).run_requests or []

    other = tmp_path / "other"
    other.mkdir()
    lost = replace(shop, store_url=new_url(store_kind, other))
    defs = lost.definitions(assets)
    with lost.runner() as runner:
        said = (
            f"Dagster shows that run {info.run_id} was submitted, but this store, {runner.storage.location}, does not"
        )
    assert failure_of(lost.materialize(defs, "triage", **where)).startswith(said)
    assert failure_of(lost.materialize(defs, "reader", **where)).startswith(said)
    assert failure_of(lost.obey(defs, request)).startswith(said)
    assert shop.obey(shop.definitions(assets), request).success
