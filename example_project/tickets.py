"""Reads one day of tickets from its CSV file, and says in one sentence what is wrong with it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

REQUIRED = ("ticket_id", "body")
OPTIONAL = ("created_at", "channel", "customer", "subject")


class TicketFileError(ValueError):
    """The file cannot be used; the message names the file and the remedy."""


def read_tickets(path: Path) -> pd.DataFrame:
    """One row a ticket, every cell a string; `ticket_id` is unique, `body` may be empty."""
    frame = parse(path)
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        have = ", ".join(map(str, frame.columns))
        raise TicketFileError(f"{path} lacks the column {' and '.join(missing)}: it has {have}")
    if frame.empty:
        raise TicketFileError(f"{path} has no rows below its header")
    unnamed = frame.index[frame["ticket_id"].str.strip() == ""]
    if len(unnamed):
        raise TicketFileError(f"{path} has an empty ticket_id in row {unnamed[0] + 1}")
    twice = frame["ticket_id"][frame["ticket_id"].duplicated()]
    if len(twice):
        raise TicketFileError(f"{path} holds ticket_id {twice.iloc[0]!r} twice: ids must be unique in a file")
    return frame.reindex(columns=[*frame.columns, *(name for name in OPTIONAL if name not in frame)], fill_value="")


def parse(path: Path) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # A row with more cells than the header is only a warning to pandas, and its cells would be lost.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8", index_col=False)
    except FileNotFoundError:
        raise TicketFileError(f"{path} does not exist: put the day's tickets there") from None
    except pd.errors.EmptyDataError:
        raise TicketFileError(f"{path} is empty: it needs a header with {' and '.join(REQUIRED)}") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError, OSError) as error:
        raise TicketFileError(f"{path} cannot be read as CSV in UTF-8: {str(error).strip()}") from None
