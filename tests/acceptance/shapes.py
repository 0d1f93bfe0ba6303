"""The five ways in which people use the engine, as the contract writes them; only the environment says which server.

A program of its own: test_shapes.py runs it in an empty folder and reads what it prints.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel

from batchor_engine import (
    BatchItem,
    BatchJob,
    BatchRunner,
    CompositeItemSource,
    CsvItemSource,
    JsonlItemSource,
    OpenAIProviderConfig,
    PromptParts,
)


def one_item_nothing_on_disk() -> Any:
    job = BatchJob(
        items=[BatchItem(item_id="haiku-7", payload="an old silent pond")],
        build_prompt=lambda it: PromptParts(prompt=f"Translate into Dutch: {it.payload}"),
        provider_config=OpenAIProviderConfig(model="gpt-5-mini", api_key="sk-..."),
    )
    return BatchRunner(storage="memory").run_and_wait(job).results()[0].output_text


def one_file_durable() -> Any:
    recipes = CsvItemSource(
        "kitchen/recipes.csv",
        item_id_from_row=lambda r: r["slug"],
        payload_from_row=lambda r: {"steps": r["steps"]},
    )
    job = BatchJob(
        items=recipes,
        build_prompt=lambda it: it.payload["steps"],
        provider_config=OpenAIProviderConfig(model="gpt-5-mini"),
    )
    run = BatchRunner().start(job, run_id="recipes-2031-w05")
    found = []
    for res in run.wait().results():
        found.append([res.item_id, res.output_text])
    return found


def several_files_one_run() -> Any:
    coast = CsvItemSource("buoys/coast.csv", item_id_from_row=lambda r: r["tag"], payload_from_row=dict)
    ocean = JsonlItemSource("buoys/ocean.jsonl", item_id_from_row=lambda r: r["tag"], payload_from_row=lambda r: r)
    source = CompositeItemSource([coast, ocean])
    job = BatchJob(
        items=source,
        build_prompt=lambda it: f"Warn of {it.payload['wave']}",
        provider_config=OpenAIProviderConfig(model="gpt-5-mini"),
    )
    results = BatchRunner().run_and_wait(job, run_id="buoys").results()
    return [[result.metadata["batchor_lineage"]["source_primary_key"], result.output_text] for result in results]


class Sighting(BaseModel):
    species: str
    count: int


def typed_output() -> Any:
    job = BatchJob(
        items=[BatchItem("log-3", "two herons near the weir")],
        build_prompt=lambda it: it.payload,
        structured_output=Sighting,
        provider_config=OpenAIProviderConfig(model="gpt-5-mini"),
    )
    result = BatchRunner().run_and_wait(job, run_id="sightings").results()[0]
    bird = result.output
    if bird is None:
        return {"error": result.error.error_class, "text": result.output_text}
    return {"type": type(bird).__name__, "count": type(bird.count).__name__}


def caption_day(photos: Any, day: str, sink: Any) -> None:
    items = [BatchItem(str(p.id), {"exif": p.exif}, metadata={"day": day}) for p in photos]
    run = BatchRunner().start(
        BatchJob(
            items=items,
            build_prompt=lambda it: f"Caption: {it.payload['exif']}",
            provider_config=OpenAIProviderConfig(model="gpt-5-mini"),
        ),
        run_id=f"captions-{day}",
    )
    for res in run.wait().results():
        sink.save(res.item_id, res.metadata["day"], res.output_text)


def step_of_a_pipeline() -> Any:
    saved: list[list[Any]] = []
    photos = [SimpleNamespace(id=at, exif={"iso": 100 * at}) for at in (1, 2)]
    caption_day(photos, "2031-02-03", SimpleNamespace(save=lambda *row: saved.append(list(row))))
    return saved


def main() -> None:
    Path("kitchen").mkdir(exist_ok=True)
    Path("buoys").mkdir(exist_ok=True)
    Path("kitchen/recipes.csv").write_text('slug,steps\nsoup,"Boil, stir"\nbread,Bake\n')
    Path("buoys/coast.csv").write_text("tag,wave\nb1,2\nb2,3\n")
    Path("buoys/ocean.jsonl").write_text('{"tag": "b1", "wave": 9}\n')
    shapes = (one_item_nothing_on_disk, one_file_durable, several_files_one_run, typed_output, step_of_a_pipeline)
    print(json.dumps({shape.__name__: shape() for shape in shapes}))


if __name__ == "__main__":
    main()
