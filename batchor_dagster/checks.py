"""Asset checks that are read off the outcome of a run."""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg

from batchor_engine import RunSummary

FAILURE_RATE = "failure_rate"


@dataclass(frozen=True, kw_only=True)
class BatchorChecks:
    """What the outcome of each partition must satisfy; rates are shares of its rows, from 0 to 1.

    With `blocking`, a failed check stops what is downstream in the same Dagster run.
    """

    max_failure_rate: float = 0.05
    blocking: bool = False


def check_specs(asset: dg.AssetKey, checks: BatchorChecks) -> list[dg.AssetCheckSpec]:
    """One check for each threshold."""
    return [
        dg.AssetCheckSpec(
            FAILURE_RATE,
            asset=asset,
            blocking=checks.blocking,
            description=f"At most {checks.max_failure_rate:.1%} of the rows failed for good.",
        )
    ]


def check_results(
    asset: dg.AssetKey, summary: RunSummary, failures: dict[str, int], checks: BatchorChecks
) -> list[dg.AssetCheckResult]:
    """The outcome of every check; a run without rows passes."""
    rate = summary.failed_items / summary.total_items if summary.total_items else 0.0
    return [
        dg.AssetCheckResult(
            check_name=FAILURE_RATE,
            asset_key=asset,
            passed=rate <= checks.max_failure_rate,
            description=f"{summary.failed_items} of {summary.total_items} rows failed ({rate:.1%})",
            metadata={
                "failure_rate": rate,
                "max_failure_rate": checks.max_failure_rate,
                "failures": dg.JsonMetadataValue(failures),
            },
        )
    ]
