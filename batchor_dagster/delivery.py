"""Outcomes of one partition or of many in a step, as the events that Dagster shows.

Law: a partition is materialized only with its own rows, and a partition that has none keeps the step red.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from batchor_dagster.checks import BatchorChecks
from batchor_dagster.outcome import Ended, outcome

DATA_VERSION_TAG = "dagster/data_version"
MAX_TOLD = 10


@dataclass(frozen=True)
class _Delivered:
    partition: str
    result: dg.MaterializeResult[Any] | None
    checks: Sequence[dg.AssetCheckResult]


@dataclass(frozen=True)
class Delivery:
    """Where outcomes go: a step, its result asset with its checks, and the asset that submitted the rows."""

    context: dg.AssetExecutionContext
    key: dg.AssetKey
    checks: BatchorChecks
    submitted_by: dg.AssetKey

    def one(self, ended: Ended) -> Iterator[Any]:
        """The events of a step for one partition, or for an asset without any."""
        return outcome(self.context, ended, self.key, self.checks, submitted_by=self.submitted_by)

    def many(self, ended: Sequence[Ended], wanted: int) -> Iterator[Any]:
        """The events of a step for `wanted` partitions, of which some may not have ended.

        When all have answers the asset is materialized as a whole, with metadata for each partition. Else each one that
        has is materialized by itself, and a dg.Failure names those without any.
        """
        good: list[_Delivered] = []
        lost: list[dg.Failure] = []
        for one in ended:
            try:
                good.append(_delivered(one.partition, list(self.one(one))))
            except dg.Failure as failure:
                lost.append(failure)
        yield from self._whole(good) if len(good) == wanted else self._apart(good)
        if lost:
            raise _one_failure(lost)

    def _whole(self, good: Sequence[_Delivered]) -> Iterator[Any]:
        checks = _merged(self.key, good)
        results = [(one.partition, one.result) for one in good if one.result is not None]
        if not results:
            yield from checks
            return
        for partition, result in results:
            self.context.add_asset_metadata({**(result.metadata or {})}, asset_key=self.key, partition_key=partition)
        # Dagster has one data version for all partitions of a step.
        versions = "\n".join(result.data_version.value for _, result in results if result.data_version)
        version = dg.DataVersion(hashlib.sha256(versions.encode()).hexdigest()[:16])
        yield dg.MaterializeResult(asset_key=self.key, check_results=checks, data_version=version)

    def _apart(self, good: Sequence[_Delivered]) -> Iterator[Any]:
        for one in good:
            if one.result is not None:
                tags = {DATA_VERSION_TAG: one.result.data_version.value} if one.result.data_version else {}
                yield dg.AssetMaterialization(
                    self.key, partition=one.partition, metadata=one.result.metadata, tags=tags
                )


def _delivered(partition: str, events: Sequence[Any]) -> _Delivered:
    result = next((event for event in events if isinstance(event, dg.MaterializeResult)), None)
    alone = [event for event in events if isinstance(event, dg.AssetCheckResult)]
    return _Delivered(partition, result, [*(result.check_results or () if result else ()), *alone])


def _merged(key: dg.AssetKey, good: Sequence[_Delivered]) -> list[dg.AssetCheckResult]:
    """One result for each check of the step: it passes when it passes for every partition."""
    by_name: dict[str, list[dg.AssetCheckResult]] = {}
    for one in good:
        for check in one.checks:
            by_name.setdefault(check.check_name or "", []).append(check)
    return [_merge(key, name, results) for name, results in by_name.items()]


def _merge(key: dg.AssetKey, name: str, results: Sequence[dg.AssetCheckResult]) -> dg.AssetCheckResult:
    failed = [one for one in results if not one.passed]
    told = [one.description or "" for one in failed[:MAX_TOLD]]
    more = [f"and {len(failed) - MAX_TOLD} partitions more"] if len(failed) > MAX_TOLD else []
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=key,
        passed=not failed,
        severity=(failed or results)[0].severity,
        description="; ".join([*told, *more]) if failed else f"passed for all {len(results)} partitions",
        metadata={"partitions": len(results), "failed_partitions": len(failed)},
    )


def _one_failure(lost: Sequence[dg.Failure]) -> dg.Failure:
    told = [str(one.description) for one in lost[:MAX_TOLD]]
    more = [f"and {len(lost) - MAX_TOLD} partitions more"] if len(lost) > MAX_TOLD else []
    return dg.Failure("; ".join([*told, *more]), allow_retries=False)
