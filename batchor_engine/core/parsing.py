"""From the text of an answer to the user's model.

Law: whatever an answer holds, and whatever the model's own validators do, the only error is StructuredOutputError: one
bad answer is one failed item.
"""

from __future__ import annotations

import re
from typing import cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from batchor_engine.core.text import words_of
from batchor_engine.errors import StructuredOutputError
from batchor_engine.models import JSONValue, ModelT

EMPTY_RESPONSE_TEXT = "empty_response_text"
INVALID_JSON = "invalid_json"
VALIDATION_FAILED = "structured_output_validation_failed"

_FENCE = re.compile(r"\s*```[\w+-]*\s(?P<inside>.*?)\s*```\s*", re.DOTALL)
_SHOWN_ERRORS = 3


def parse_answer(text: str | None, model: type[ModelT]) -> ModelT:
    """Read an answer as `model`; a Markdown fence around the whole of it is taken off first."""
    if not text or text.isspace():
        raise StructuredOutputError(EMPTY_RESPONSE_TEXT, "the answer holds no text where a JSON object was expected")
    try:
        # A JSON text never starts with a backquote, so stripping cannot change one that is good.
        return model.model_validate_json(text if text[0] == "{" else strip_fence(text))
    except ValidationError as error:
        raise _refusal(error, model.__name__) from None
    except (Exception, SystemExit) as error:
        # The model's own validators are user code; neither a defect nor an exit of theirs may stop a whole batch.
        why = f"{model.__name__} raised {type(error).__name__}: {words_of(error)}"
        raise StructuredOutputError(VALIDATION_FAILED, why) from error


def strip_fence(text: str) -> str:
    """The inside of a Markdown fence that surrounds the whole text, else the text as it is."""
    fenced = _FENCE.fullmatch(text)
    return fenced["inside"] if fenced else text


def _refusal(error: ValidationError, model_name: str) -> StructuredOutputError:
    # Inputs and URLs stay out: the answer itself is kept beside the error.
    details = error.errors(include_url=False, include_input=False, include_context=False)
    if details and details[0]["type"] == "json_invalid":
        return StructuredOutputError(INVALID_JSON, f"the answer is not JSON: {details[0]['msg']}")
    shown = "; ".join(f"{_place(item)}: {item['msg']}" for item in details[:_SHOWN_ERRORS])
    more = f" (and {len(details) - _SHOWN_ERRORS} more)" if len(details) > _SHOWN_ERRORS else ""
    return StructuredOutputError(
        VALIDATION_FAILED, f"the answer does not fit {model_name}: {shown}{more}", raw_error=_as_json(details)
    )


def _place(item: ErrorDetails) -> str:
    return ".".join(str(part) for part in item["loc"]) or "the whole answer"


def _as_json(details: list[ErrorDetails]) -> JSONValue:
    return [{"type": item["type"], "loc": cast(JSONValue, list(item["loc"])), "msg": item["msg"]} for item in details]
