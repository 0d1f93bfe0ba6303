"""The few questions that the demo asks Dagster, through its public GraphQL endpoint."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from example_project.demo.trouble import DemoError

LOADED = """{ workspaceOrError { ... on Workspace { locationEntries {
  loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
BACKFILL = """mutation ($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  ... on PartitionKeysNotFoundError { message } } }"""
RUNS = """{ runsOrError(limit: 500) { ... on Runs { results {
  runId status assetSelection { path } tags { key value } } } } }"""
MATERIALIZED = """query ($key: AssetKeyInput!, $days: [String!]) { assetOrError(assetKey: $key) { ... on Asset {
  assetMaterializations(partitions: $days) { runId partition timestamp } } } }"""
CHECKS = """query ($key: AssetKeyInput!, $name: String!) {
  assetCheckExecutions(assetKey: $key, checkName: $name, limit: 500) {
    runId status evaluation { success description partition } } }"""
FAILURE = """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events { __typename
  ... on ExecutionStepFailureEvent { stepKey error { message } failureMetadata { description } }
  ... on RunFailureEvent { message } } } } }"""
TERMINATE = """mutation ($ids: [String!]!) { terminateRuns(
  runIds: $ids, terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) {
  __typename } }"""
REEXECUTE = """mutation ($p: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $p) {
  __typename ... on PythonError { message } } }"""

# Dagster is on this machine: a proxy of the environment must not come between.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


@dataclass(frozen=True)
class DagsterRun:
    """A run of Dagster as the demo needs it."""

    run_id: str
    status: str
    assets: frozenset[str]
    tags: dict[str, str]

    @property
    def partition(self) -> str:
        return self.tags.get("dagster/partition", "")


class DagsterApi:
    """A client of one Dagster instance on this machine."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def is_loaded(self) -> bool:
        """True once the code location is there; an error in it ends the demo."""
        try:
            entries = self._ask(LOADED)["workspaceOrError"]["locationEntries"]
        except (OSError, ValueError, KeyError, DemoError):
            return False
        for entry in entries:
            place = entry["locationOrLoadError"]
            if place and place["__typename"] == "PythonError":
                raise DemoError(f"the example project does not load: {place['message'].strip().splitlines()[-1]}")
        return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)

    def backfill(self, assets: Sequence[str], days: Sequence[str]) -> str:
        """Ask for these assets and days, as the backfill page would; the backfill's id."""
        keys = [{"path": [asset]} for asset in assets]
        params = {"assetSelection": keys, "partitionNames": list(days), "fromFailure": False}
        answer = self._ask(BACKFILL, p=params)["launchPartitionBackfill"]
        if "backfillId" not in answer:
            raise DemoError(f"Dagster refused the backfill: {answer.get('message', answer['__typename'])}")
        return answer["backfillId"]

    def runs(self) -> list[DagsterRun]:
        """The latest runs, newest first."""
        return [
            DagsterRun(
                run_id=one["runId"],
                status=one["status"],
                assets=frozenset("/".join(key["path"]) for key in one["assetSelection"] or ()),
                tags={tag["key"]: tag["value"] for tag in one["tags"]},
            )
            for one in self._ask(RUNS)["runsOrError"]["results"]
        ]

    def materialized_by(self, asset: str, days: Sequence[str]) -> dict[str, str]:
        """The run that last materialized each day of an asset; days without one are left out."""
        answer = self._ask(MATERIALIZED, key={"path": [asset]}, days=list(days))["assetOrError"]
        events = sorted(answer.get("assetMaterializations", ()), key=lambda event: float(event["timestamp"]))
        return {event["partition"]: event["runId"] for event in events}

    def checks(self, asset: str, name: str) -> dict[str, tuple[bool, str]]:
        """By run: whether the check passed, and what it says."""
        found = self._ask(CHECKS, key={"path": [asset]}, name=name)["assetCheckExecutions"]
        told = {one["runId"]: one["evaluation"] for one in found if one["evaluation"]}
        return {run_id: (said["success"], said["description"] or "") for run_id, said in told.items()}

    def why_failed(self, run_id: str) -> str:
        """The first failure of a run, in one line."""
        for event in self._ask(FAILURE, id=run_id)["logsForRun"].get("events", ()):
            said = (event.get("failureMetadata") or {}).get("description") or (event.get("error") or {}).get("message")
            if said:
                return f"{event['stepKey']}: {said.strip().splitlines()[0]}"
        return "Dagster does not say why"

    def end_runs(self, run_ids: Sequence[str]) -> None:
        """Mark runs as cancelled whose processes are gone."""
        if run_ids:
            self._ask(TERMINATE, ids=list(run_ids))

    def run_again(self, run_id: str) -> None:
        """Re-execute a run from where it failed, as the button on the run page would."""
        answer = self._ask(REEXECUTE, p={"parentRunId": run_id, "strategy": "ALL_STEPS"})["launchRunReexecution"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise DemoError(f"Dagster refused to run {run_id} again: {answer.get('message', answer['__typename'])}")

    def _ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with DIRECT.open(request, timeout=30) as answer:
            said = json.load(answer)
        if said.get("errors"):
            raise DemoError(f"Dagster did not understand the demo: {said['errors'][0]['message']}")
        return said["data"]
