"""The options of `start` as a job.

Law: a value that can never be right is wrong usage; a user's module may raise anything.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import typer
from pydantic import BaseModel

from batchor_engine.cli.place import CommandError, make_importable
from batchor_engine.config import OpenAIEndpoint
from batchor_engine.models import JSONObject


@contextmanager
def usage() -> Generator[None]:
    """A value that a config or policy refuses came from an option."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from error


def endpoint_of(text: str) -> OpenAIEndpoint:
    try:
        return OpenAIEndpoint(text)
    except ValueError:
        known = ", ".join(one.value for one in OpenAIEndpoint)
        raise typer.BadParameter(f"{text!r} is none of {known}", param_hint="'--endpoint'") from None


def options_of(given: dict[str, str]) -> JSONObject:
    """NAME=VALUE pairs as request options; a VALUE that is JSON is taken as such, any other as text."""
    return {name: _json_or_text(value) for name, value in given.items()}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def model_class(name: str) -> type[BaseModel]:
    """The Pydantic class called module:Class, which may lie in the working directory."""
    module_name, _, class_name = name.partition(":")
    if not (module_name and class_name):
        raise typer.BadParameter(f"{name!r} is not module:Class", param_hint="'--structured-output-class'")
    make_importable()
    found: Any = _import(module_name)
    for part in class_name.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        home = getattr(importlib.import_module(module_name), "__file__", None) or "a built-in module"
        raise CommandError(f"{module_name} ({home}) has no Pydantic model {class_name!r}.")
    return found


def _import(module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except Exception as error:
        # The module is a user's code, so anything may come out of it.
        raise CommandError(f"Cannot import {module_name!r}: {type(error).__name__}: {error}.") from error
