"""Registers the profile of `pytest tests/properties --hypothesis-profile=long`."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("long", settings.get_profile("default"))
