"""The straight way of a row, end to end, over a real socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from batchor_engine import (
    BatchItem,
    ChunkPolicy,
    CsvItemSource,
    ItemStatus,
    PromptParts,
    RunEvent,
    RunLifecycleStatus,
    RunNotFinishedError,
    StructuredItemResult,
    UnknownRunError,
)
from batchor_engine.runtime import readback
from batchor_engine.sandbox import SandboxAnswer, SandboxConfig, SandboxRequest
from batchor_engine.testing import CrashError, CrashPoints

from ..stores import is_there
from .conftest import World

pytestmark = pytest.mark.every_store


class Sighting(BaseModel):
    species: str
    count: int


def test_text_rows_come_back_in_item_order_with_their_metadata(world: World) -> None:
    items = [BatchItem(f"row-{n}", n, {"n": n}) for n in range(25)]
    run = world.runner().run_and_wait(world.job(items), run_id="text")
    results = run.results()
    assert [result.item_id for result in results] == [item.item_id for item in items]
    assert [result.metadata for result in results] == [item.metadata for item in items]
    assert all(result.output_text and result.attempt_count == 1 for result in results)
    assert run.status is RunLifecycleStatus.COMPLETED


def test_structured_rows_come_back_as_the_model(world: World) -> None:
    run = world.runner().run_and_wait(world.job(4, structured_output=Sighting))
    for result in run.results():
        assert isinstance(result, StructuredItemResult)
        assert isinstance(result.output, Sighting)


def test_a_class_of_todays_reads_what_fits_it_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Thinner(BaseModel):
        species: str

    world.runner().run_and_wait(world.job(2, structured_output=Sighting), run_id="r")
    monkeypatch.setattr(sys.modules[__name__], "Sighting", Thinner)
    with pytest.warns(UserWarning, match="whose fields have changed since: `output` holds what fits"):
        (result, _) = world.runner().get_run("r").results()
    assert isinstance(result, StructuredItemResult)
    assert set(result.output.model_dump()) == {"species"}
    assert set(json.loads(result.output_text or "")) == {"species", "count"}


def test_raw_response_is_the_providers_line(world: World) -> None:
    result = world.runner().run_and_wait(world.job(2)).results()[1]
    assert result.raw_response is not None
    assert result.raw_response["custom_id"] == "row-1:a1"


def test_start_returns_before_answers_and_results_wait_for_the_end(world: World) -> None:
    run = world.runner().start(world.job(3), run_id="early")
    assert run.summary().status_counts == {ItemStatus.SUBMITTED: 3}
    with pytest.raises(RunNotFinishedError):
        run.results()


def test_another_process_finishes_a_run_by_its_id(world: World) -> None:
    world.runner().start(world.job(3, structured_output=Sighting), run_id="handed-over")
    run = world.runner().get_run("handed-over").wait()
    assert [result.item_id for result in run.results()] == ["row-0", "row-1", "row-2"]


def test_starting_a_finished_run_again_sends_nothing(world: World) -> None:
    world.runner().run_and_wait(world.job(3), run_id="once")
    before = world.stats()["paid_lines"]
    again = world.runner().run_and_wait(world.job(3), run_id="once")
    assert again.is_finished
    assert world.stats()["paid_lines"] == before == 3


def test_several_parts_become_one_batch_each_at_the_policy_limit(world: World) -> None:
    run = world.runner().run_and_wait(world.job(25, chunk_policy=ChunkPolicy(max_requests=10)))
    assert [batch.items for batch in run.batches()] == [10, 10, 5]
    assert len(run.results()) == 25


def test_pages_follow_the_terminal_sequence(world: World) -> None:
    run = world.runner().run_and_wait(world.job(7, chunk_policy=ChunkPolicy(max_requests=3)))
    seen: list[str] = []
    cursor = 0
    while (page := run.read_terminal_results(after_sequence=cursor, limit=2)).items:
        seen += [item.item_id for item in page.items]
        cursor = page.next_after_sequence
    assert sorted(seen) == sorted(f"row-{n}" for n in range(7))
    assert cursor == 7
    empty = run.read_terminal_results(after_sequence=3, limit=0)
    assert (empty.items, empty.next_after_sequence) == ([], 3)
    with pytest.raises(ValueError, match="after_sequence"):
        run.read_terminal_results(after_sequence=-1)


def test_memory_store_leaves_nothing_on_disk(world: World) -> None:
    runner = world.runner(storage="memory", sleep=None)
    root = Path(runner.run_and_wait(world.job(2)).artifact_root)
    assert root.exists()
    runner.close()
    assert not root.exists()
    assert not is_there(world.store_url)


@pytest.mark.parametrize("end", ["sys.exit(0)", "runner.close()\n    sys.exit(0)"])
def test_a_forked_child_that_ends_leaves_the_files_of_a_memory_store_to_its_parent(end: str) -> None:
    script = (
        "import os, sys\n"
        "from batchor_engine import BatchRunner\n"
        "runner = BatchRunner(storage='memory')\n"
        "root = runner.host.artifact_root()\n"
        "child = os.fork()\n"
        f"if child == 0:\n    {end}\n"
        "os.waitpid(child, 0)\n"
        "print(os.path.exists(root), root)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    there, root = done.stdout.split()
    assert there == "True"
    assert not Path(root).exists()


def test_an_empty_source_is_a_completed_run(world: World) -> None:
    run = world.runner().run_and_wait(world.job([]))
    assert run.status is RunLifecycleStatus.COMPLETED
    assert run.results() == []
    assert world.stats()["calls_total"] == 0


def test_a_csv_keeps_nasty_text_byte_for_byte(world: World, tmp_path: Path) -> None:
    nasty = ["", "emoji 🦆", "line\u2028sep\u0085nel", 'quo"te\nnew,line', "word " * 4000]
    path = tmp_path / "rows.csv"
    path.write_text(
        "id,body\n" + "".join(f'{n},"{text.replace(chr(34), chr(34) * 2)}"\n' for n, text in enumerate(nasty)),
        encoding="utf-8",
    )
    prompts: dict[str, str] = {}

    def build(item: BatchItem) -> PromptParts:  # type: ignore[type-arg]
        prompts[item.item_id] = item.payload["body"]
        return PromptParts(f"<{item.payload['body']}>")

    source = CsvItemSource(path, item_id_from_row=lambda row: row["id"], payload_from_row=dict)
    run = world.runner().run_and_wait(world.job(source, build_prompt=build))
    assert prompts == {str(n): text for n, text in enumerate(nasty)}
    assert [result.item_id for result in run.results()] == ["0", "1", "2", "3", "4"]
    assert run.results()[0].metadata["batchor_lineage"]["source_item_index"] == 0


def test_status_and_results_need_neither_key_nor_model(world: World) -> None:
    world.runner().run_and_wait(world.job(2, structured_output=Sighting), run_id="typed")
    code = (
        "import sys, json\n"
        "from batchor_engine import BatchRunner\n"
        "sys.modules[sys.argv[2]] = None\n"
        "run = BatchRunner(storage=sys.argv[1]).get_run('typed')\n"
        "run.export_terminal_results(sys.argv[3])\n"
        "print(json.dumps(run.summary().completed_items))\n"
    )
    out = world.folder / "out.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, world.store_url, __name__, str(out)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin", **{name: value for name, value in os.environ.items() if name.startswith("AWS_")}},
        check=True,
    )
    assert json.loads(done.stdout) == 2
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["item_id"] for line in lines] == ["row-0", "row-1"]
    assert set(lines[0]["output_json"]) == {"species", "count"}


def test_an_unknown_run_is_a_lookup_error_and_creates_no_file(world: World) -> None:
    with pytest.raises(UnknownRunError, match="nope"):
        world.runner().get_run("nope")
    assert not is_there(world.store_url)


def test_the_end_of_a_run_is_told_once_and_its_source_is_let_go(world: World) -> None:
    runner = world.runner()
    for run_id, rows in (("empty", 0), ("full", 2)):
        world.events.clear()
        runner.run_and_wait(world.job(rows), run_id=run_id)
        assert [event.data for event in world.happened("run_finished")] == [{"status": "completed"}]
        stored = runner.storage.run(run_id)
        assert stored is not None
        assert runner.host.job_of(stored) is None


def test_events_add_up_to_the_summary(world: World) -> None:
    world.fault("line_error", custom_ids=("row-1:*",), status=400, times=None)
    world.fault("missing_line", lines=(4,))
    summary = world.runner().run_and_wait(world.job(6)).summary()
    completed = sum(int(str(event.data["completed_item_count"])) for event in world.happened("items_completed"))
    failed = sum(int(str(event.data["failed_item_count"])) for event in world.happened("items_failed"))
    assert (completed, failed) == (summary.completed_items, summary.failed_items) == (5, 1)


def test_an_observer_that_raises_changes_nothing(world: World) -> None:
    def rude(event: RunEvent) -> None:
        raise RuntimeError(event.event_type)

    assert len(world.runner(observer=rude).run_and_wait(world.job(3)).results()) == 3


def test_more_raw_files_than_may_be_open_are_read_in_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "_OPEN_RAW_FILES", 2)
    run = world.runner().run_and_wait(world.job(6, chunk_policy=ChunkPolicy(max_requests=1)))
    assert [result.raw_response["custom_id"] for result in run.results()] == [f"row-{n}:a1" for n in range(6)]


def test_a_death_between_the_last_answer_and_the_sweep_leaves_no_orphan_for_ever(world: World) -> None:
    job = world.job(6, chunk_policy=ChunkPolicy(max_requests=3))
    runner = world.runner()
    CrashPoints({"ingest.part_written": 2}).install(runner)
    with pytest.raises(CrashError):
        runner.start(job, run_id="twice")
    second = world.runner()
    CrashPoints({"collect.settled": 2}).install(second)
    with pytest.raises(CrashError):
        second.run_and_wait(job, run_id="twice")
    assert world.runner().get_run("twice").wait().is_finished


def calls_a_tool(request: SandboxRequest) -> SandboxAnswer:
    call = {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}"}
    usage = {"input_tokens": 5, "output_tokens": 7}
    return SandboxAnswer(body={"status": "completed", "output": [call], "model": request.model, "usage": usage})


@pytest.mark.parametrize("sandbox_config", [SandboxConfig(clock="polls", responder=calls_a_tool)])
@pytest.mark.parametrize("model", [None, Sighting])
def test_a_call_of_a_tool_fails_its_row_at_once_and_is_paid_once(world: World, model: type[Sighting] | None) -> None:
    run = world.runner().run_and_wait(world.job(2, structured_output=model))
    for result in run.results():
        assert (result.status, result.attempt_count) == (ItemStatus.FAILED_PERMANENT, 1)
        assert result.error is not None
        assert result.error.error_class == "tool_calls"
        assert result.error.raw_error == {"tool_calls": [{"id": "c1", "name": "look_up", "arguments": "{}"}]}
    assert run.usage().output_tokens == 14


def test_a_conversation_with_an_image_and_tools_is_answered(world: World) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    turns: list[Any] = [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A heron."},
        {"role": "user", "content": [{"type": "input_text", "text": "And this?"}, image]},
    ]
    tool = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}
    parts = PromptParts("", messages=turns, request_options={"tools": [tool]})
    assert world.runner().run_and_wait(world.job(2, build_prompt=lambda _: parts)).summary().completed_items == 2
