"""What can go wrong around the demo, said in one line."""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on; the message is the whole explanation."""
