"""Asset checks that are read off the outcome of a run."""

from __future__ import annotations

import dagster as dg

from batchor_engine import RunSummary

FAILURE_RATE = "failure_rate"
DEFAULT_MAX_FAILURE_RATE = 0.05


def failure_rate_spec(asset: dg.AssetKey, *, max_failure_rate: float, blocking: bool = False) -> dg.AssetCheckSpec:
    """The check that at most this share of the rows, from 0 to 1, failed for good."""
    return dg.AssetCheckSpec(
        FAILURE_RATE,
        asset=asset,
        blocking=blocking,
        description=f"At most {max_failure_rate:.1%} of the rows failed for good.",
    )


def failure_rate_result(
    asset: dg.AssetKey, summary: RunSummary, failures: dict[str, int], *, max_failure_rate: float
) -> dg.AssetCheckResult:
    """The outcome of the check; a run without rows passes."""
    rate = summary.failed_items / summary.total_items if summary.total_items else 0.0
    return dg.AssetCheckResult(
        check_name=FAILURE_RATE,
        asset_key=asset,
        passed=rate <= max_failure_rate,
        description=f"{summary.failed_items} of {summary.total_items} rows failed ({rate:.1%})",
        metadata={
            "failure_rate": rate,
            "max_failure_rate": max_failure_rate,
            "failures": dg.JsonMetadataValue(failures),
        },
    )
