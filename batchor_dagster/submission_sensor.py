"""The submission sensor: submits partitions that are due, as many as the provider has room for.

Law: one partition gets one generation from here, so that overlapping ticks, repeated ticks and retries never pay twice.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain, zip_longest
from typing import Any, Literal

import dagster as dg

from batchor_dagster.assets import AnyAssets, flatten, result_specs
from batchor_dagster.backfills import CodeLocation, left_to, starting_runs
from batchor_dagster.due import MadeOf, Shown, Submission, has_ended, partitions_by_age, submission_of
from batchor_dagster.engine_runs import (
    ASSET_LABEL,
    GENERATION_LABEL,
    Slot,
    asset_label,
    due_generation,
    due_prefix,
    newest_run,
    slots_of,
)
from batchor_dagster.ledger import UNFINISHED, is_given_up
from batchor_dagster.metadata import (
    GENERATION_TAG,
    LATEST_RUN_TAG,
    REASON_TAG,
    RESOURCE_KEY,
    RESULTS_OF_KEY,
    SENSOR_TAG,
)
from batchor_dagster.partitions import keys_of
from batchor_dagster.resources import RESOURCE, BatchorResource
from batchor_dagster.sensors import tick_seconds
from batchor_dagster.submitters import at_work, submits
from batchor_dagster.tick import CLOCK_MARGIN_SEC
from batchor_engine import BatchRunner, ItemStatus, RunControlState, RunInfo, UnknownRunError, counted

OnUpstreamUpdate = Literal["ignore", "resubmit"]

FIRST_PAUSE_SEC = 60.0
LONGEST_PAUSE_SEC = 24 * 3600.0
# The latest runs of an asset from which the size of the next one is guessed.
_SAMPLE = 5
_TO_SEND = (ItemStatus.PENDING, ItemStatus.QUEUED_LOCAL)


def build_batchor_submission_sensor(
    *,
    assets: AnyAssets,
    max_runs_in_flight: int = 20,
    minimum_interval_seconds: int = 60,
    default_sensor_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    on_upstream_update: OnUpstreamUpdate = "ignore",
    name: str | None = None,
    resource_key: str = RESOURCE,
) -> dg.SensorDefinition:
    """A sensor that materializes `<name>_batch` of partitions that are due, oldest first.

    Due is a partition that nobody has submitted, whose upstream is materialized and whose time window is over. No more
    are submitted than `max_runs_in_flight` runs of these assets at once, and than the token budget has room for, judged
    by the size of the latest runs. A submission that failed is asked for again after a pause that doubles; one that
    a person cancelled is left to them.

    It spends money, so it is off until it is switched on. `on_upstream_update="resubmit"` also pays again for a
    partition whose upstream was materialized after it was submitted.

    Example:
        >>> build_batchor_definitions(assets=[tickets, triage], resources={"batchor": batchor},
        ...     sensors=[build_batchor_submission_sensor(assets=[tickets, triage], max_runs_in_flight=5)])
    """
    if max_runs_in_flight < 1:
        raise dg.DagsterInvalidDefinitionError(f"max_runs_in_flight must be at least 1, but is {max_runs_in_flight}")
    given = {key: one for one in flatten(assets) for key in _keys_of(one)}
    specs = [spec for spec in result_specs(assets) if spec.metadata[RESOURCE_KEY] == resource_key]
    labels = {dg.AssetKey.from_user_string(spec.metadata[RESULTS_OF_KEY]): asset_label(spec.key) for spec in specs}
    if not labels:
        raise dg.DagsterInvalidDefinitionError(
            f"build_batchor_submission_sensor found no batch asset of resource {resource_key!r}: pass what "
            "@batchor_assets returned"
        )
    rules = Rules(name or f"{resource_key}_submission_sensor", max_runs_in_flight, on_upstream_update)

    @dg.sensor(
        name=rules.sensor,
        asset_selection=dg.AssetSelection.assets(*labels),
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_sensor_status,
        required_resource_keys={resource_key},
        description="Submits partitions that are due, as many as the provider has room for.",
    )
    def submit(context: dg.SensorEvaluationContext, **_resources: object) -> dg.SensorResult:
        # Dagster passes required resources by keyword when a sensor is called directly, and only then.
        deadline = time.monotonic() + tick_seconds()
        batchor: BatchorResource = getattr(context.resources, resource_key)
        here = context.repository_def.assets_defs_by_key if context.repository_def else {}
        submissions = [submission_of(key, label, {**given, **here}) for key, label in labels.items()]
        with closing(batchor.runner()) as runner:
            origin = context.code_location_origin
            location = CodeLocation(context.repository_def, origin.location_name if origin else None)
            tick = SubmissionTick(context.instance, runner, rules, submissions, deadline, location)
            result = tick.run()
        if result.run_requests and tick.left:
            context.log.info(tick.told_left())
        return result

    return submit


@dataclass(frozen=True)
class Rules:
    """What a sensor was built with."""

    sensor: str
    max_runs_in_flight: int
    on_upstream_update: OnUpstreamUpdate


@dataclass(frozen=True)
class Due:
    """A partition to submit, the generation that all attempts to do so share, and the latest run that it has by now."""

    submission: Submission
    partition: str
    generation: str
    latest: str


@dataclass
class SubmissionTick:
    """See what is due and what is in flight; ask for as much as there is room; stops at `deadline` (monotonic)."""

    instance: dg.DagsterInstance
    runner: BatchRunner
    rules: Rules
    submissions: Sequence[Submission]
    deadline: float
    here: CodeLocation
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    # Assets of which something due was left to a backfill, and its id.
    left: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def run(self) -> dg.SensorResult:
        """Requests, or a skip reason that says what is waited for."""
        under_way = self._under_way()
        flying = [run for one in self.submissions for run in self._flying(one)]
        # A submission whose run the engine knows already is counted there.
        known = {info.labels.get(GENERATION_LABEL) for info in flying}
        begun = [one for one in under_way if one not in known]
        room = max(0, self.rules.max_runs_in_flight - len(flying) - len(begun))
        queues = [self._queue(one, under_way, room) for one in self.submissions]
        in_turn = (due for due in chain.from_iterable(zip_longest(*queues)) if due is not None)
        requests = [request for request, _ in zip(in_turn, range(room), strict=False)]
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None
            if requests
            else f"Nothing to submit: {counted(len(flying) + len(begun), 'run')} in flight"
            f" (at most {self.rules.max_runs_in_flight})"
            + ("." if room else ", so what is due waits.")
            + (f" {self.told_left()}" if self.left else ""),
        )

    def told_left(self) -> str:
        """Which backfills are waited for, and of which assets."""
        return " ".join(
            f"What is due of {asset} is left to backfill {backfill} where that has yet to start a run."
            for asset, backfill in sorted(self.left)
        )

    def _queue(self, one: Submission, under_way: Mapping[str, dg.DagsterRun], room: int) -> list[dg.RunRequest]:
        """Requests for the oldest due partitions of one asset, as many as its token budget has room for."""
        mine = sum(run.tags.get(GENERATION_TAG, "").startswith(due_prefix(one.label)) for run in under_way.values())
        room = min(room, self._tokens_allow(one, mine))
        found: list[dg.RunRequest] = []
        for due in self._due(one, under_way) if room else ():
            request = self._request(due)
            found += [request] if request else []
            if len(found) >= room or time.monotonic() >= self.deadline:
                break
        return found

    def _due(self, one: Submission, under_way: Mapping[str, dg.DagsterRun]) -> Iterator[Due]:
        # In this order: what a backfill starts meanwhile is seen as a run, and what a run ends with as shown.
        awaited = left_to(self._backfills, one.key, self.here)
        submitting = list(self._submitting(one))
        shown = Shown.read(self.instance, one)
        partitions = partitions_by_age(one, self.now, self.instance)
        queued = {key for run in submitting for key in keys_of(run.tags, partitions)}
        for partition in partitions:
            sent = shown.of[one.key].get(partition)
            if partition in queued:
                continue
            if sent is not None and self.rules.on_upstream_update == "ignore":
                continue
            if not has_ended(one.partitions_def, partition, self.now):
                continue
            made_of = shown.made_of(one, partition, self.now, self.instance)
            if made_of is None or (sent is not None and made_of.storage_id <= sent):
                continue
            if partition in awaited:
                self.left.add((one.key.to_user_string(), awaited[partition]))
                continue
            due = self._attempt(one, partition, None if sent is None else made_of)
            if due is not None and due.generation not in under_way:
                yield due

    def _attempt(self, one: Submission, partition: str, made_of: MadeOf | None) -> Due | None:
        """What to submit: again because of `made_of`, or else for the first time, as far as Dagster shows.

        None when somebody else has submitted the partition, even if that was cut short: they can go on with it. What
        this sensor has submitted, and Dagster does not show (any more), is gone on with.
        """
        slot = Slot(one.label, partition)
        newest = newest_run(self.runner, slot)
        first, latest = due_generation(slot), "" if newest is None else newest.run_id
        if made_of is not None:
            again = self._again(slot, made_of)
            return Due(one, partition, again, latest) if again else None
        last = first if newest is None else newest.labels.get(GENERATION_LABEL, "")
        return Due(one, partition, last, latest) if last == first or last.startswith(f"{first}@") else None

    def _again(self, slot: Slot, made_of: MadeOf) -> str | None:
        """The generation that submits a slot once more because of this; None where it was wiped meanwhile."""
        moment = made_of.moment(self.instance)
        if moment is None:
            return None
        first = due_generation(slot)
        # Generations were once named after the storage id, which counts from 1 again in every new instance.
        by_id = f"{first}@{made_of.storage_id}"
        if any(begun >= moment - CLOCK_MARGIN_SEC for begun in self._begun(slot, by_id)):
            return by_id
        return f"{first}@{datetime.fromtimestamp(moment, UTC).isoformat(timespec='microseconds')}"

    def _begun(self, slot: Slot, generation: str) -> Iterator[float]:
        """When Dagster's latest run and the engine's run of a generation were created, if they were."""
        for record in self.instance.get_run_records(dg.RunsFilter(tags={GENERATION_TAG: generation}), limit=1):
            yield record.create_timestamp.timestamp()
        with suppress(UnknownRunError):
            yield self.runner.info(slot.run_id(generation)).created_at.timestamp()

    def _submitting(self, one: Submission) -> Iterator[dg.DagsterRun]:
        """Dagster runs that have not ended and submit this asset, whoever asked for them."""
        for run in self._unfinished:
            if submits(run, one.key, self.here):
                yield run

    @cached_property
    def _backfills(self) -> Sequence[Any]:
        return starting_runs(self.instance)

    @cached_property
    def _unfinished(self) -> Sequence[dg.DagsterRun]:
        return at_work(self.instance)

    def _request(self, due: Due) -> dg.RunRequest | None:
        """The next attempt, unless the last one is too young or was cancelled."""
        tags = {SENSOR_TAG: self.rules.sensor, GENERATION_TAG: due.generation}
        earlier = self.instance.get_run_records(dg.RunsFilter(tags={GENERATION_TAG: due.generation}))
        if earlier and not _may_ask_again(earlier):
            return None
        # Not after their count: an older one may be deleted, and Dagster starts nothing for a key that a run has.
        attempt = earlier[0].dagster_run.run_id if earlier else "0"
        return dg.RunRequest(
            run_key=f"{due.generation}:{attempt}",
            asset_selection=[due.submission.key],
            partition_key=due.partition or None,
            tags={
                **tags,
                REASON_TAG: "due" if not earlier else "retry",
                **({LATEST_RUN_TAG: due.latest} if due.latest else {}),
            },
        )

    def _under_way(self) -> dict[str, dg.DagsterRun]:
        """Submissions that this sensor asked for and that have not ended, by generation."""
        mine = dg.RunsFilter(tags={SENSOR_TAG: self.rules.sensor}, statuses=UNFINISHED)
        found = [record for record in self.instance.get_run_records(mine) if not is_given_up(record)]
        return {record.dagster_run.tags[GENERATION_TAG]: record.dagster_run for record in found}

    def _flying(self, one: Submission) -> list[RunInfo]:
        """Runs that are not over, but for those that a later one answers again and that nothing is awaited of."""
        found = self.runner.find_runs({ASSET_LABEL: one.label}, unfinished=True)
        return [info for info in found if info.summary.active_batches or self._is_newest(info)]

    def _is_newest(self, info: RunInfo) -> bool:
        newest = (newest_run(self.runner, slot) for slot in slots_of(info))
        return any(one is not None and one.run_id == info.run_id for one in newest)

    def _tokens_allow(self, one: Submission, under_way: int) -> int:
        """How many partitions the token budget has room for; one at a time until the first has told its size."""
        latest = self.runner.find_runs({ASSET_LABEL: one.label}, limit=_SAMPLE)
        if not latest:
            return 0 if under_way else 1
        headroom = self.runner.budget_of(latest[0].run_id).headroom
        if headroom is None:
            return self.rules.max_runs_in_flight
        flying = self._flying(one)
        if any(_waits_for_room(info) for info in flying):
            return 0
        sizes = [sum(batch.tokens for batch in info.batches) for info in latest if info.batches]
        size = max(1, sum(sizes) // len(sizes)) if sizes else headroom + 1
        fits = headroom // size - under_way
        # A partition above the whole budget goes out piece by piece, alone.
        return max(fits, 0 if flying or under_way else 1)


def _waits_for_room(info: RunInfo) -> bool:
    """Rows that were read and not sent come before anything new."""
    summary = info.summary
    return summary.control_state is RunControlState.RUNNING and any(summary.status_counts.get(one) for one in _TO_SEND)


def _may_ask_again(earlier: Sequence[dg.RunRecord]) -> bool:
    last = earlier[0]
    if last.dagster_run.status is dg.DagsterRunStatus.CANCELED:
        return False
    if last.dagster_run.status in UNFINISHED and not is_given_up(last):
        return False
    return time.time() - (last.end_time or 0.0) >= min(FIRST_PAUSE_SEC * 2 ** (len(earlier) - 1), LONGEST_PAUSE_SEC)


def _keys_of(asset: object) -> list[dg.AssetKey]:
    if isinstance(asset, dg.AssetsDefinition):
        return list(asset.keys)
    return [asset.key] if isinstance(asset, dg.AssetSpec | dg.SourceAsset) else []
