"""The latest event of each partition of an asset, read for many partitions in a few queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

# Ids in one query; below the limit of variables in a statement of any database.
IDS_AT_ONCE = 250

Metadata = Mapping[str, Any]
Place = tuple[dg.AssetKey, str]
Fetch = Callable[..., dg.EventRecordsResult]


@dataclass(frozen=True)
class Latest:
    """Metadata of the latest event of one kind; what was foreseen is as of then, anything else is read when asked."""

    instance: dg.DagsterInstance
    kind: dg.DagsterEventType
    _known: dict[Place, Metadata] = field(default_factory=dict[Place, Metadata])

    def foresee(self, key: dg.AssetKey, partitions: Iterable[str]) -> None:
        """Read the events of these partitions together; the empty partition is left out."""
        wanted = sorted({one for one in partitions if one})
        for some in _chunks(wanted):
            ids = self.instance.get_latest_storage_id_by_partition(key, self.kind, set(some))
            self._known.update({(key, one): {} for one in some})
            if ids:
                for record in self._fetch(key, len(ids), storage_ids=list(ids.values())):
                    self._known[key, record.partition_key or ""] = _metadata(record)

    def of(self, key: dg.AssetKey, partition: str) -> Metadata:
        """Empty where there is no event; the empty partition means an asset without partitions."""
        if (key, partition) in self._known:
            return self._known[key, partition]
        wanted = {"asset_partitions": [partition]} if partition else {}
        return next((_metadata(record) for record in self._fetch(key, 1, **wanted)), {})

    def _fetch(self, key: dg.AssetKey, limit: int, **wanted: Any) -> Sequence[dg.EventLogRecord]:
        fetch: Fetch = {
            dg.DagsterEventType.ASSET_OBSERVATION: self.instance.fetch_observations,
            dg.DagsterEventType.ASSET_MATERIALIZATION: self.instance.fetch_materializations,
        }[self.kind]
        return fetch(dg.AssetRecordsFilter(asset_key=key, **wanted), limit=limit).records


def _chunks(wanted: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(wanted), IDS_AT_ONCE):
        yield wanted[start : start + IDS_AT_ONCE]


def _metadata(record: dg.EventLogRecord) -> Metadata:
    event = record.asset_observation or record.asset_materialization
    return event.metadata if event else {}
