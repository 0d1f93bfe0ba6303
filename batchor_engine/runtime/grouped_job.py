"""Several small jobs as one: fewer runs, fewer batches, and the answers of each to be had apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from batchor_engine.core.groups import group_of, out_of_group
from batchor_engine.job import BatchJob
from batchor_engine.models import BatchItem, PromptParts
from batchor_engine.sources.groups import grouped_items

_OWN = {"items", "build_prompt"}


def grouped_job(jobs: Mapping[int, BatchJob[Any, Any]]) -> BatchJob[Any, Any]:
    """One job of the rows of all these, each in the group of its number (1 and up).

    Rows are asked about by their own job's build_prompt, which sees them with their own ids; two jobs may use the same
    ids. Everything else must be equal in all of them: ValueError names the first difference.
    """
    if not jobs:
        raise ValueError("grouped_job needs at least one job")
    if min(jobs) < 1:
        raise ValueError(f"a group has a number of 1 or more, not {min(jobs)}: group 0 is for rows without a group")
    first, *others = sorted(jobs)
    for number in others:
        _check_alike(first, jobs[first], number, jobs[number])

    def build_prompt(item: BatchItem[Any]) -> PromptParts | str:
        return jobs[group_of(item)].build_prompt(out_of_group(item))

    items = grouped_items({number: job.items for number, job in jobs.items()})
    return replace(jobs[first], items=items, build_prompt=build_prompt)


def _check_alike(number: int, job: BatchJob[Any, Any], other_number: int, other: BatchJob[Any, Any]) -> None:
    for field in fields(job):
        if field.name not in _OWN and getattr(job, field.name) != getattr(other, field.name):
            raise ValueError(
                f"the jobs of groups {number} and {other_number} differ in {field.name}: one run has one "
                "configuration for all its rows"
            )
