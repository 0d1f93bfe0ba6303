"""From source to sealed parts: what is refused, what is kept, what is never rendered twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from pydantic import BaseModel

from batchor_engine import (
    BatchItem,
    BatchJob,
    BatchRunner,
    ChunkPolicy,
    CsvItemSource,
    DataFrameItemSource,
    DuplicateItemError,
    OpenAIProviderConfig,
    PromptBuildError,
    PromptParts,
    RunMismatchError,
    SourceRowError,
    StructuredOutputSchemaError,
)
from batchor_engine.runtime import advance
from batchor_engine.testing import CrashError, CrashPoints

from ..stores import dump, is_there
from .conftest import World


class Open(BaseModel):
    anything: dict[str, str]


class First(BaseModel):
    a: int


class Second(BaseModel):
    a: int
    b: int


def rendered(world: World, **options: Any) -> tuple[Any, list[str]]:
    seen: list[str] = []

    def build(item: BatchItem) -> str:  # type: ignore[type-arg]
        seen.append(item.item_id)
        return f"Say {item.payload}"

    return world.job(build_prompt=build, **options), seen


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        ([BatchItem("", 1)], ValueError, "item_id"),
        ([BatchItem(7, 1)], TypeError, "item_id"),  # type: ignore[arg-type]
        ([BatchItem("a", object())], TypeError, "'a'.*payload"),
        ([BatchItem("a", 1, {"k": object()})], TypeError, "'a'.*metadata"),
        ([BatchItem("a", 1, {"batchor_lineage": "x"})], TypeError, "batchor_lineage"),
        (["a"], TypeError, "BatchItem"),
        ([BatchItem("\ud83d", 1)], ValueError, "surrogate"),
        ([BatchItem("a", 1), BatchItem("a", 2)], DuplicateItemError, "'a'"),
    ],
)
def test_a_bad_item_is_named_and_nothing_is_stored(
    world: World, items: list[Any], error: type[Exception], message: str
) -> None:
    runner = world.runner()
    with pytest.raises(error, match=message):
        runner.start(world.job(items), run_id="bad")
    assert runner.find_runs() == []
    assert world.stats()["calls_total"] == 0
    assert world.files() == []


@pytest.mark.parametrize("answer", [None, 3, {"prompt": "x"}])
def test_a_prompt_that_is_no_prompt_is_a_type_error(world: World, answer: Any) -> None:
    with pytest.raises(TypeError, match="row-0"):
        world.runner().start(world.job(1, build_prompt=lambda _item: answer))


def test_a_model_that_is_not_strict_is_refused_before_anything_is_stored(world: World) -> None:
    with pytest.raises(StructuredOutputSchemaError, match="anything"):
        world.runner().start(world.job(1, structured_output=Open))
    assert not is_there(world.store_url)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [({"run_id": "mine"}, "run_id"), ({"k": "v" * 513}, "'k'"), ({f"k{n}": "v" for n in range(15)}, "15 pairs")],
)
def test_batch_metadata_that_the_provider_would_refuse_is_refused_here(
    world: World, metadata: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        world.runner().start(world.job(1, batch_metadata=metadata))
    assert world.stats()["calls_total"] == 0


def test_remote_metadata_carries_our_ids_and_the_users(world: World) -> None:
    world.runner().start(world.job(1, batch_metadata={"team": "blue"}), run_id="marked")
    metadata = world.sandbox.batches()[0]["metadata"]
    assert metadata["run_id"] == "marked"
    assert metadata["team"] == "blue"
    assert metadata["batchor_intent"]


def test_a_failing_prompt_keeps_the_rows_before_it_and_the_run_can_go_on(world: World) -> None:
    def explode(item: BatchItem) -> str:  # type: ignore[type-arg]
        if item.item_id == "row-3":
            raise KeyError("body")
        return "x"

    with pytest.raises(PromptBuildError, match=r"row-3.*body"):
        world.runner().start(world.job(5, build_prompt=explode), run_id="stumbled")
    assert world.runner().get_run("stumbled").summary().total_items == 3
    job, seen = rendered(world, items=5)
    run = world.runner().run_and_wait(job, run_id="stumbled")
    assert seen == ["row-3", "row-4"]
    assert [result.item_id for result in run.results()] == [f"row-{n}" for n in range(5)]


def test_a_list_is_recognised_by_ids_and_payloads_when_it_comes_again(world: World) -> None:
    runner = world.runner()
    CrashPoints({"ingest.part_stored": 2}).install(runner)
    with pytest.raises(CrashError):
        runner.start(world.job(9, chunk_policy=ChunkPolicy(max_requests=3)), run_id="listed")
    other = [BatchItem(f"row-{n}", {"n": -n}) for n in range(9)]
    with pytest.raises(RunMismatchError, match="6 rows"):
        world.runner().start(world.job(other, chunk_policy=ChunkPolicy(max_requests=3)), run_id="listed")
    job, seen = rendered(world, items=9, chunk_policy=ChunkPolicy(max_requests=3))
    assert len(world.runner().run_and_wait(job, run_id="listed").results()) == 9
    assert seen == ["row-6", "row-7", "row-8"]
    assert world.stats()["paid_lines"] == 9


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("rows", [0, 2, 4])
def test_another_list_under_a_read_run_is_an_error(world: World, rows: int, finished: bool) -> None:
    run = world.runner().start(world.job(3), run_id="read")
    if finished:
        run.wait()
    with pytest.raises(RunMismatchError, match="read"):
        world.runner().start(world.job(rows), run_id="read")


def test_the_same_list_under_a_finished_run_is_compared_without_a_prompt(world: World) -> None:
    world.runner().run_and_wait(world.job(3), run_id="read")
    job, seen = rendered(world, items=3)
    assert len(world.runner().start(job, run_id="read").results()) == 3
    assert seen == []
    with pytest.raises(RunMismatchError, match="same ids and payloads"):
        world.runner().start(world.job([BatchItem(f"other-{n}", {"n": n}) for n in range(3)]), run_id="read")
    assert world.stats()["paid_lines"] == 3


def test_the_list_of_a_cancelled_run_may_be_longer_than_what_was_read(world: World) -> None:
    def slow(item: BatchItem) -> str:  # type: ignore[type-arg]
        world.clock.advance(1)
        return item.item_id

    runner = world.runner()
    runner.start(world.job(10, build_prompt=slow), run_id="given-up", deadline=3.5).cancel()
    run = runner.get_run("given-up").wait()
    assert 0 < run.summary().total_items < 10
    assert world.runner().start(world.job(10), run_id="given-up").is_finished
    with pytest.raises(RunMismatchError, match="same ids and payloads"):
        world.runner().start(world.job([BatchItem("other", 1)]), run_id="given-up")


@pytest.mark.parametrize("finished", [False, True])
def test_a_source_that_has_changed_since_it_was_read_is_told_once_and_is_no_error(
    world: World, tmp_path: Path, finished: bool
) -> None:
    path = tmp_path / "rows.csv"

    def source(at: Path = path) -> CsvItemSource:
        return CsvItemSource(at, item_id_from_row=lambda row: row["id"], payload_from_row=dict)

    path.write_text("id,text\n1,a\n2,b\n")
    run = world.runner().start(world.job(source()), run_id="read")
    if finished:
        run.wait()
    copy = tmp_path / "copy.csv"
    copy.write_bytes(path.read_bytes())
    world.runner().start(world.job(source(copy)), run_id="read")
    changed: list[Any] = [source(), DataFrameItemSource([{"id": "1"}], item_id="id"), [BatchItem("1", 1)]]
    path.write_text("id,text\n1,a\n2,b\n3,c\n")
    for items in changed:
        with pytest.warns(UserWarning, match=r"changed since run 'read' read it.*new run_id") as told:
            world.runner().start(world.job(items), run_id="read")
        assert [Path(one.filename) for one in told] == [Path(__file__)]
    path.unlink()
    last = world.runner().start(world.job(source()), run_id="read").wait()
    assert [result.item_id for result in last.results()] == ["1", "2"]
    assert world.stats()["paid_lines"] == 2


def test_a_generator_runs_but_is_not_continued_in_the_middle(world: World) -> None:
    def rows() -> Iterator[BatchItem]:  # type: ignore[type-arg]
        yield from (BatchItem(f"row-{n}", n) for n in range(6))

    runner = world.runner()
    CrashPoints({"ingest.part_stored": 1}).install(runner)
    with pytest.raises(CrashError):
        runner.start(world.job(rows(), chunk_policy=ChunkPolicy(max_requests=3)), run_id="stream")
    with pytest.raises(RunMismatchError, match="generator"):
        world.runner().start(world.job(rows(), chunk_policy=ChunkPolicy(max_requests=3)), run_id="stream")
    assert world.runner().cancel_run("stream").summary().total_items == 3
    assert len(world.runner().run_and_wait(world.job(rows()), run_id="whole").results()) == 6


@pytest.mark.parametrize("kind", ["generator", "map", "list_iterator"])
@pytest.mark.parametrize("why", ["quota", "deadline"])
def test_an_iterator_that_a_pause_or_a_deadline_stopped_is_read_on_in_the_same_process(
    world: World, kind: str, why: str
) -> None:
    rows: list[BatchItem[Any]] = [BatchItem(f"row-{n}", n) for n in range(9)]
    if why == "quota":
        world.fault("http_error", on="batches.create", status=429, code="insufficient_quota", nth=1)
    job = world.job(ONE_SHOT[kind](rows), chunk_policy=ChunkPolicy(max_requests=2))
    run = world.runner(max_transfers=1).start(job, run_id="stream", deadline=0 if why == "deadline" else None)
    assert run.summary().total_items < 9
    if why == "quota":
        assert run.control_reason == "openai_insufficient_quota"
        run.resume()
    assert [result.item_id for result in run.wait().results()] == [row.item_id for row in rows]
    assert world.stats()["paid_lines"] == 9


def stopped(world: World, runner: BatchRunner, items: Iterator[BatchItem[Any]]) -> BatchJob[Any, Any]:
    """A run of this runner that an exhausted quota paused behind the first rows, and its job."""
    world.fault("http_error", on="batches.create", status=429, code="insufficient_quota", nth=1)
    job = world.job(items, chunk_policy=ChunkPolicy(max_requests=2))
    assert 0 < runner.start(job, run_id="stream").summary().total_items < 9
    runner.resume_run("stream")
    return job


@pytest.mark.parametrize("kind", ["generator", "map", "list_iterator"])
def test_an_iterator_is_read_on_by_a_new_job_around_it(world: World, kind: str) -> None:
    """As where a cell of a notebook is run again."""
    rows: list[BatchItem[Any]] = [BatchItem(f"row-{n}", n) for n in range(9)]
    runner = world.runner(max_transfers=1)
    job = stopped(world, runner, ONE_SHOT[kind](rows))
    run = runner.start(replace(job), run_id="stream").wait()
    assert [result.item_id for result in run.results()] == [row.item_id for row in rows]
    assert world.stats()["paid_lines"] == 9


@pytest.mark.parametrize("deadline", [None, 0])
def test_another_iterator_that_is_refused_leaves_the_first_to_be_read_on(world: World, deadline: float | None) -> None:
    rows: list[BatchItem[Any]] = [BatchItem(f"row-{n}", n) for n in range(9)]
    runner = world.runner(max_transfers=1)
    job = stopped(world, runner, iter(rows))
    for another in (iter(rows), (row for row in rows)):
        with pytest.raises(RunMismatchError, match="start it with that list_iterator again"):
            runner.start(replace(job, items=another), run_id="stream", deadline=deadline)
    with pytest.raises(RunMismatchError, match="do not begin with the same"):
        runner.start(replace(job, items=rows[1:]), run_id="stream")
    run = runner.start(job, run_id="stream").wait()
    assert [result.item_id for result in run.results()] == [row.item_id for row in rows]
    assert world.stats()["paid_lines"] == 9


def test_an_iterator_that_stopped_while_its_rows_were_stored_is_not_read_on(world: World) -> None:
    rows = (BatchItem(f"row-{n}", n) for n in range(6))
    runner, job = world.runner(), world.job(rows, chunk_policy=ChunkPolicy(max_requests=2))
    CrashPoints({"ingest.part_written": 2}).install(runner)
    with pytest.raises(CrashError):
        runner.start(job, run_id="stream")
    world.clock.advance(3600)
    with pytest.raises(RunMismatchError, match="generator"):
        runner.start(job, run_id="stream")
    assert runner.cancel_run("stream").wait().summary().total_items == 2


ONE_SHOT: dict[str, Callable[[list[BatchItem[Any]]], Iterator[BatchItem[Any]]]] = {
    "generator": lambda rows: (row for row in rows),
    "map": lambda rows: map(replace, rows),
    "list_iterator": iter,
}


@pytest.mark.parametrize("kind", ONE_SHOT)
@pytest.mark.parametrize("error", [KeyError("column"), KeyboardInterrupt()])
@pytest.mark.parametrize("fails_at", [0, 2])
def test_an_iterator_that_was_read_from_does_not_stand_for_all_its_rows(
    world: World, kind: str, error: BaseException, fails_at: int
) -> None:
    rows = [BatchItem(f"row-{n}", n) for n in range(4)]
    items = ONE_SHOT[kind](rows)

    def stumble(item: BatchItem[Any]) -> str:
        if item.item_id == f"row-{fails_at}":
            raise error
        return "x"

    with pytest.raises((PromptBuildError, KeyboardInterrupt)):
        world.runner().start(world.job(items, build_prompt=stumble), run_id="again")
    with pytest.raises(RunMismatchError, match=r"generator|read from before"):
        world.runner().start(world.job(items, build_prompt=lambda _item: "x"), run_id="again")
    with pytest.raises(RunMismatchError, match=rf"{kind} that was read from before"):
        world.runner().start(world.job(items), run_id="elsewhere")
    assert "elsewhere" not in {info.run_id for info in world.runner().find_runs()}
    run = world.runner().run_and_wait(world.job(rows, build_prompt=lambda _item: "x"), run_id="again")
    assert [result.item_id for result in run.results()] == [row.item_id for row in rows]


@pytest.mark.parametrize("kind", ONE_SHOT)
def test_an_iterator_that_was_read_to_its_end_is_no_empty_source(world: World, kind: str) -> None:
    items = ONE_SHOT[kind]([BatchItem("a", 1)])
    run = world.runner().start(world.job(items), run_id="first")
    with pytest.raises(RunMismatchError, match="read from before"):
        world.runner().start(world.job(items), run_id="second")
    assert [info.run_id for info in world.runner().find_runs()] == ["first"]
    # The run that has read it goes on, also when the cell is run again.
    assert len(world.runner().start(world.job(items), run_id="first").wait().results()) == 1
    assert run.summary().total_items == 1


def test_a_changed_config_is_named_and_a_changed_cadence_is_not(world: World) -> None:
    world.runner().start(world.job(2, structured_output=First), run_id="typed")
    with pytest.raises(RunMismatchError, match="schema"):
        world.runner().start(world.job(2, structured_output=Second), run_id="typed")
    config = OpenAIProviderConfig(model="gpt-5-nano")
    with pytest.raises(RunMismatchError, match=r"provider\.model"):
        world.runner().start(world.job(2, structured_output=First, provider_config=config), run_id="typed")
    slower = OpenAIProviderConfig(model="gpt-5-mini", poll_interval_sec=9, request_timeout_sec=99, api_key="other")
    run = world.runner().start(world.job(2, structured_output=First, provider_config=slower), run_id="typed")
    assert len(run.wait().results()) == 2


def test_slices_of_a_slow_source_do_not_make_small_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advance, "SLICE_SEC", 10.0)

    def slow(item: BatchItem) -> PromptParts:  # type: ignore[type-arg]
        world.clock.advance(4)
        return PromptParts(item.item_id)

    run = world.runner().start(world.job(25, build_prompt=slow, chunk_policy=ChunkPolicy(max_requests=10)))
    assert len(world.files("*.jsonl")) > 5
    assert [batch.items for batch in run.batches()] == [10, 10, 5]
    run.wait()


def test_a_deadline_cuts_ingestion_and_skips_no_row(world: World) -> None:
    def slow(item: BatchItem) -> str:  # type: ignore[type-arg]
        world.clock.advance(1)
        return item.item_id

    run = world.runner().start(world.job(10, build_prompt=slow), run_id="short", deadline=3.5)
    assert 0 < run.summary().total_items < 10
    assert not run.is_finished
    assert [result.item_id for result in run.wait().results()] == [f"row-{n}" for n in range(10)]


def test_a_row_that_takes_long_among_many_quick_ones_is_the_last_before_the_deadline(world: World) -> None:
    def slow_in_the_middle(item: BatchItem) -> str:  # type: ignore[type-arg]
        if item.item_id == "row-400":
            world.clock.advance(60)
            # Among quick rows the clock is looked at by real time.
            until = monotonic() + 0.002
            assert any(monotonic() > until for _ in range(10**6))
        return item.item_id

    run = world.runner().start(world.job(900, build_prompt=slow_in_the_middle), run_id="middle", deadline=30)
    assert run.summary().total_items == 401
    assert not run.is_finished


def test_an_id_the_provider_would_refuse_travels_as_a_hash_and_comes_back_as_itself(world: World) -> None:
    ids = ["x" * 300, "with space", "ümlaut/☃", "a:a1", "  padded  "]
    run = world.runner().run_and_wait(world.job([BatchItem(one, 1) for one in ids]))
    assert [result.item_id for result in run.results()] == ids
    sent = [line["custom_id"] for line in world.sandbox.paid()]
    assert all(len(one) <= 64 and one.isascii() for one in sent)
    assert len(set(sent)) == len(ids)


def test_a_missing_column_names_it_and_those_there_are(world: World, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,text\n1,a\n")
    source = CsvItemSource(path, item_id_from_row=lambda row: row["ticket"], payload_from_row=dict)
    with pytest.raises(SourceRowError, match=r"ticket.*id.*text"):
        world.runner().start(world.job(source), run_id="columns")
    path.write_text("ticket,text\n1,a\n")
    fixed = CsvItemSource(path, item_id_from_row=lambda row: row["ticket"], payload_from_row=dict)
    assert len(world.runner().run_and_wait(world.job(fixed), run_id="columns").results()) == 1


def test_a_kill_before_the_first_rows_does_not_poison_the_run_id(world: World) -> None:
    runner = world.runner()
    CrashPoints({"ingest.part_written": 1}).install(runner)
    with pytest.raises(CrashError):
        runner.start(world.job(3), run_id="early")
    other = [BatchItem("new", 1)]
    assert len(world.runner().run_and_wait(world.job(other), run_id="early").results()) == 1


def test_prompts_leave_the_store_and_no_secret_enters_it(world: World) -> None:
    job = world.job(2, build_prompt=lambda item: f"zebra {item.payload}")
    world.runner().run_and_wait(job, run_id="private")
    stored = dump(world.store_url)
    assert "private" in stored
    assert "zebra" not in stored
    files = world.files()
    assert len(files) == 4
    assert not any(b"sk-test" in file.read_bytes() for file in files)
    for path in world.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_metadata_with_half_a_character_comes_back_as_it_was(world: World) -> None:
    items = [BatchItem("a", 1, {"k": "half \ud83d"}), BatchItem("b", 1, {"k": "whole 🦆"})]
    results = world.runner().run_and_wait(world.job(items)).results()
    assert [result.metadata for result in results] == [item.metadata for item in items]


def test_a_nul_in_an_id_is_refused_on_every_store(world: World) -> None:
    with pytest.raises(ValueError, match=r"run_id .* NUL"):
        world.runner().start(world.job(1), run_id="a\0b")
    with pytest.raises(ValueError, match=r"item_id .* NUL"):
        world.runner().start(world.job([BatchItem("a\0b", 1)]), run_id="r")
