"""Outcomes of one partition or of many in a step, as the events that Dagster shows.

Law: a partition is materialized only with its own rows, and a partition that has none keeps the step red. No rows are
delivered without their checks, whatever the run selected: a blocking check cannot be left out by accident.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from batchor_dagster.outcome import Ended, Target, outcome
from batchor_engine import counted

DATA_VERSION_TAG = "dagster/data_version"
MAX_TOLD = 10
_Result = tuple[str, dg.MaterializeResult[Any]]


@dataclass(frozen=True)
class _Delivered:
    partition: str
    results: Mapping[dg.AssetKey, dg.MaterializeResult[Any]]
    checks: Sequence[dg.AssetCheckResult]


@dataclass(frozen=True)
class Delivery:
    """The outcomes of a step."""

    context: dg.AssetExecutionContext
    target: Target

    def one(self, ended: Ended) -> Iterator[Any]:
        """The events of a step for one partition, or for an asset without any."""
        return self._recorded(outcome(self.context, ended, self.target))

    def many(self, ended: Sequence[Ended], wanted: int) -> Iterator[Any]:
        """The events of a step for `wanted` partitions, of which some may not have ended.

        When all have answers the asset is materialized as a whole, with metadata for each partition. Else each one that
        has is materialized by itself, and a dg.Failure names those without any.
        """
        if ended and self.target.hands_over(self.context):
            raise dg.Failure(
                f"IO manager {self.target.io_manager_key!r} stores the rows of one partition at a time: leave out the "
                "single-run backfill policy of this asset, or batchor's own IO manager, which reads them by partition",
                allow_retries=False,
            )
        delivered: list[_Delivered] = []
        lost: list[dg.Failure] = []
        for one in ended:
            events: list[Any] = []
            try:
                events.extend(outcome(self.context, one, self.target))
            except dg.Failure as failure:
                lost.append(failure)
            delivered.append(_delivered(one.partition, events))
        checks = _merged(self.target.key, delivered) if len(delivered) - len(lost) == wanted else []
        if self.target.failures is not None:
            yield from self._events(self.target.failures, delivered, wanted)
        yield from self._events(self.target.key, delivered, wanted)
        yield from self._recorded(checks)
        if lost:
            raise _one_failure(lost)

    def _recorded(self, events: Iterable[Any]) -> Iterator[Any]:
        """Checks that the run planned as results, the others as plain events, which Dagster records and obeys as well.

        A plan that does not come to a result is shown as "Skipped", so the sensor's runs plan none.
        """
        planned = {one.name for one in self.context.selected_asset_check_keys}
        delivers = self.target.key in self.context.selected_asset_keys
        for event in events:
            if not isinstance(event, dg.AssetCheckResult) or event.check_name in planned:
                yield event
            elif delivers:
                yield _evaluation(event, self.target)

    def _events(self, key: dg.AssetKey, delivered: Sequence[_Delivered], wanted: int) -> Iterator[Any]:
        found = [(one.partition, one.results[key]) for one in delivered if key in one.results]
        if found and len(found) == wanted:
            yield self._whole(key, found)
        else:
            yield from _apart(key, found)

    def _whole(self, key: dg.AssetKey, found: Sequence[_Result]) -> dg.MaterializeResult[Any]:
        for partition, result in found:
            self.context.add_asset_metadata({**(result.metadata or {})}, asset_key=key, partition_key=partition)
        # Dagster has one data version for all partitions of a step.
        versions = "\n".join(result.data_version.value for _, result in found if result.data_version)
        version = dg.DataVersion(hashlib.sha256(versions.encode()).hexdigest()[:16])
        return dg.MaterializeResult(asset_key=key, data_version=version)


def _evaluation(result: dg.AssetCheckResult, target: Target) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=target.key,
        check_name=result.check_name or "",
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        blocking=target.checks.blocking,
    )


def _apart(key: dg.AssetKey, found: Sequence[_Result]) -> Iterator[dg.AssetMaterialization]:
    for partition, result in found:
        tags = {DATA_VERSION_TAG: result.data_version.value} if result.data_version else {}
        yield dg.AssetMaterialization(key, partition=partition, metadata=result.metadata, tags=tags)


def _delivered(partition: str, events: Sequence[Any]) -> _Delivered:
    results = [event for event in events if isinstance(event, dg.MaterializeResult)]
    checks = [event for event in events if isinstance(event, dg.AssetCheckResult)]
    return _Delivered(partition, {result.asset_key: result for result in results if result.asset_key}, checks)


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
    more = [f"and {counted(len(failed) - MAX_TOLD, 'more partition')}"] if len(failed) > MAX_TOLD else []
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=key,
        passed=not failed,
        severity=(failed or results)[0].severity,
        description="; ".join([*told, *more]) if failed else f"passed for {counted(len(results), 'partition')}",
        metadata={"partitions": len(results), "failed_partitions": len(failed)},
    )


def _one_failure(lost: Sequence[dg.Failure]) -> dg.Failure:
    told = [str(one.description) for one in lost[:MAX_TOLD]]
    more = [f"and {counted(len(lost) - MAX_TOLD, 'more partition')}"] if len(lost) > MAX_TOLD else []
    return dg.Failure("; ".join([*told, *more]), allow_retries=False)
