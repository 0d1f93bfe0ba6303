"""`dg scaffold defs batchor_dagster.BatchorComponent NAME`: a `defs.yaml` that loads at once."""

import re
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, Field, model_validator

SAMPLE_FILE = "rows.csv"
SAMPLE_ROWS = """\
id,text
1,The lamp in the hall stays dark since Monday.
2,"Thank you, the new hub works at once!"
3,Where is my invoice?
"""


class ScaffoldParams(BaseModel):
    """What `dg scaffold defs` takes; without an input a small sample file is written."""

    llm_model: str = Field(default="gpt-5-mini", description="Model that answers")
    prompt: str | None = Field(default=None, description="Question about one row, with {column} placeholders")
    id_column: str = Field(default="id", description="Column of the rows' ids")
    input_file: str | None = Field(default=None, description="csv, jsonl or parquet file, relative to the new folder")
    input_asset: str | None = Field(default=None, description="Key of an upstream asset that holds the rows")
    output_model: str | None = Field(default=None, description="Pydantic model of one answer, as module:Class")

    @model_validator(mode="after")
    def _fits_together(self) -> "ScaffoldParams":
        if self.input_file and self.input_asset:
            raise ValueError("give one of --input-file and --input-asset")
        if (self.input_file or self.input_asset) and not self.prompt:
            raise ValueError("give --prompt with the columns of your rows, such as --prompt 'Sort this: {body}'")
        return self


class BatchorScaffolder(dg.Scaffolder[ScaffoldParams]):
    """Writes the YAML, and sample rows where no input is named."""

    @classmethod
    def get_scaffold_params(cls) -> type[ScaffoldParams]:
        return ScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[ScaffoldParams]) -> None:
        params = request.params
        if not (params.input_file or params.input_asset):
            write_sample(request.target_path.parent if request.append else request.target_path)
        dg.scaffold_component(request, attributes(_name(request.target_path), params))


def attributes(name: str, params: ScaffoldParams) -> dict[str, Any]:
    """The attributes of a new component."""
    rows = {"asset": params.input_asset} if params.input_asset else {"files": [params.input_file or SAMPLE_FILE]}
    answer: dict[str, Any] = {"output_model": params.output_model} if params.output_model else {}
    if not answer:
        answer = {
            "output_fields": {
                "topic": {"type": "enum", "values": ["problem", "praise", "question"], "description": "What it is"},
                "summary": "str",
            }
        }
    return {
        "name": name,
        "input": {**rows, "id_column": params.id_column},
        "prompt": params.prompt or "Sort this message.\n\n{text}",
        "llm_model": params.llm_model,
        **answer,
        "connection": {
            "store_url": "sqlite:///.batchor/runs.sqlite3",
            "artifacts_url": ".batchor/artifacts",
            "api_key_env_var": "OPENAI_API_KEY",
        },
    }


def write_sample(folder: Path) -> None:
    """Three rows, unless the file is there."""
    file = folder / SAMPLE_FILE
    if not file.exists():
        file.write_text(SAMPLE_ROWS, encoding="utf-8")


def _name(path: Path) -> str:
    """The folder's name as the name of an asset; of a file, that of its folder."""
    text = path.parent.name if path.suffix else path.name
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")
    return name or "answers"
