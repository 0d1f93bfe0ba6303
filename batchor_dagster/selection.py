"""Which engine run an operator means, from what they filled in.

Law: an order that costs answers or money never guesses; the others guess only where there is one run to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from batchor_dagster.engine_runs import ASSET_LABEL, Slot, newest_run, slot_of, slots_of, target_of
from batchor_dagster.reports import answered_of, progress_metadata
from batchor_engine import BatchRunner, RunInfo, UnknownRunError

MAX_LISTED = 20
# How far back to look for a run that has ended and could be meant.
_RECENT = 50


@dataclass(frozen=True)
class Wanted:
    """What was filled in; empty texts were left out. `guesses` allows to take the only run that `fits`."""

    asset: str
    partition: str
    run_id: str
    fits: Callable[[RunInfo], bool]
    guesses: bool
    also_ended: bool = False


def choose(runner: BatchRunner, keys: Mapping[str, dg.AssetKey], wanted: Wanted) -> RunInfo:
    """The run that is meant; a dg.Failure that says what could be meant otherwise."""
    if wanted.run_id:
        return _by_id(runner, keys, wanted)
    assets = _assets(keys, wanted.asset)
    if wanted.partition or (wanted.asset and _is_unpartitioned(runner, assets[0])):
        return _newest(runner, assets, wanted)
    found = [info for info in _candidates(runner, assets, wanted) if wanted.fits(info)]
    if len(found) == 1 and wanted.guesses:
        return found[0]
    raise dg.Failure(_which(found, wanted), allow_retries=False)


def _by_id(runner: BatchRunner, keys: Mapping[str, dg.AssetKey], wanted: Wanted) -> RunInfo:
    try:
        info = runner.info(wanted.run_id.strip())
    except UnknownRunError:
        flying = _listed([info for asset in keys for info in runner.find_runs({ASSET_LABEL: asset}, unfinished=True)])
        raise dg.Failure(f"There is no run {wanted.run_id!r} in this store. {flying}", allow_retries=False) from None
    slot = slot_of(info)
    asset = _assets(keys, wanted.asset)[0] if wanted.asset else slot.asset
    if asset != slot.asset or wanted.partition not in ("", *(one.partition for one in slots_of(info))):
        raise dg.Failure(
            f"Run {info.run_id} belongs to {target_of(info)}, not to "
            f"{Slot(asset, wanted.partition or slot.partition)}: leave run_id or the others empty.",
            allow_retries=False,
        )
    return info


def _assets(keys: Mapping[str, dg.AssetKey], name: str) -> list[str]:
    """The assets that a name means; all of them where it is empty. `<name>_batch` means `<name>`."""
    if not name:
        return list(keys)
    plain = name.strip().strip("/")
    for one in (plain, plain.removesuffix("_batch")):
        if one in keys:
            return [one]
    raise dg.Failure(f"There is no batch asset {name!r}; there are: {', '.join(sorted(keys))}.", allow_retries=False)


def _is_unpartitioned(runner: BatchRunner, asset: str) -> bool:
    return any(not slot_of(info).partition for info in runner.find_runs({ASSET_LABEL: asset}, limit=1))


def _newest(runner: BatchRunner, assets: Sequence[str], wanted: Wanted) -> RunInfo:
    slots = [Slot(asset, wanted.partition.strip()) for asset in assets]
    found = [info for slot in slots if (info := newest_run(runner, slot)) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        raise dg.Failure(f"Several assets have this partition: name one. {_listed(found)}", allow_retries=False)
    flying = [info for asset in assets for info in runner.find_runs({ASSET_LABEL: asset}, unfinished=True)]
    places = " or ".join(str(slot) for slot in slots)
    raise dg.Failure(f"Nothing was submitted for {places}. {_listed(flying)}", allow_retries=False)


def _candidates(runner: BatchRunner, assets: Sequence[str], wanted: Wanted) -> Iterator[RunInfo]:
    """Runs that could be meant: those in flight, and the latest ended ones where the order is for them too."""
    for asset in assets:
        labels = {ASSET_LABEL: asset}
        yield from (
            runner.find_runs(labels, limit=_RECENT) if wanted.also_ended else runner.find_runs(labels, unfinished=True)
        )


def _which(found: Sequence[RunInfo], wanted: Wanted) -> str:
    if not found:
        return "There is no run that this could be for." if wanted.also_ended else "No run is in flight."
    ask = "Say which run" if len(found) > 1 else "This is not done without being told which run, even if there is one"
    return f"{ask}: fill in asset and partition, or run_id. {_listed(found)}"


def _listed(found: Sequence[RunInfo]) -> str:
    if not found:
        return "No run is in flight."
    lines = [f"- {told(info)}" for info in found[:MAX_LISTED]]
    more = [f"- and {len(found) - MAX_LISTED} more"] if len(found) > MAX_LISTED else []
    return "\n".join(["There is:", *lines, *more])


def told(info: RunInfo) -> str:
    """One line about a run: where it belongs, its id, how far it is."""
    seen = progress_metadata(info)
    reason = f" ({seen.control_reason})" if seen.control_reason else ""
    state = f"{seen.control}{reason}" if not info.is_finished and seen.control != "running" else seen.status
    answered = answered_of(seen.answered or 0, seen.rows or 0, all_read=info.reading_finished)
    return f"{target_of(info)}: run {info.run_id}, {state}, {answered}"
