"""One row → the bytes of its request line, the same in a plan and in a run.

Law: what a user's prompt builder or a provider's checks raise comes out with the row's id.
"""

from __future__ import annotations

from typing import Any

from batchor_engine.core.identity import custom_id
from batchor_engine.errors import BatchorError, PromptBuildError
from batchor_engine.job import BatchJob
from batchor_engine.models import BatchItem, PromptParts
from batchor_engine.ports.providers import BatchProvider, StructuredOutputSchema


def render_row(
    run_id: str,
    job: BatchJob[Any, Any],
    item: BatchItem[Any],
    provider: BatchProvider,
    schema: StructuredOutputSchema | None,
) -> bytes:
    """The line of the first attempt, newline included; PromptBuildError or TypeError names the row."""
    parts = build_parts(run_id, job, item)
    try:
        line = provider.render_request(
            custom_id=custom_id(item.item_id, 1), prompt_parts=parts, structured_output=schema
        )
    except BatchorError:
        raise
    except Exception as error:
        raise PromptBuildError(run_id, item.item_id, f"{type(error).__name__}: {error}") from error
    return line + b"\n"


def build_parts(run_id: str, job: BatchJob[Any, Any], item: BatchItem[Any]) -> PromptParts:
    """Call build_prompt for one row; PromptBuildError names the row, TypeError a result that is no prompt."""
    try:
        prompt: Any = job.build_prompt(item)
    except Exception as error:
        raise PromptBuildError(run_id, item.item_id, f"{type(error).__name__}: {error}") from error
    if isinstance(prompt, str):
        return PromptParts(prompt)
    if not isinstance(prompt, PromptParts):
        what = "None" if prompt is None else f"a {type(prompt).__name__}"
        raise TypeError(
            f"build_prompt must return PromptParts or a string, but returned {what} for item {item.item_id!r}: "
            "return a prompt for each item, and leave out of the items those that need none"
        )
    return prompt
