"""Which profile this is: `pytest tests/properties --hypothesis-profile=long` for the thorough one."""

from __future__ import annotations

from hypothesis import settings

LONG = settings.get_current_profile_name() == "long"
