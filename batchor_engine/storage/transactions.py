"""Transactions on a server that may go away in the middle.

Law: a transaction happens once or its caller is told. One that was rolled back is done again; after a COMMIT without an
answer its receipt is looked for, and nothing is done again on a guess.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from batchor_engine.errors import StoreError
from batchor_engine.storage import dialect, receipts
from batchor_engine.storage.dialect import Trouble
from batchor_engine.storage.receipts import Names, Receipt

T = TypeVar("T")

# As long as a restart of the server may take; less than a lease lasts, so who waits may still be the owner.
RECONNECT_SEC = 45.0
_LONGEST_PAUSE_SEC = 1.0
_MOST_CONFLICTS = 20


class _UndoneError(Exception):
    """The connection was lost at COMMIT, and the transaction did not happen."""


class Transactions:
    """Runs functions in transactions of one engine."""

    def __init__(self, engine: Engine, location: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._engine = engine
        self._location = location
        self._sleep = sleep
        self._reached = False
        self._names = Names()

    def write(self, act: Callable[[Connection], T]) -> T:
        return self._patiently(lambda: self._write_once(act))

    def read(self, act: Callable[[Connection], T], engine: Engine) -> T:
        return self._patiently(lambda: self._once(act, engine))

    def _patiently(self, once: Callable[[], T]) -> T:
        """Again after a lost connection, for a while, and after a conflict, some times."""
        gives_up = time.monotonic() + RECONNECT_SEC
        tries = 0
        while True:
            try:
                result = once()
            except _UndoneError:
                if time.monotonic() >= gives_up:
                    raise StoreError(
                        f"{self._location} loses each connection at COMMIT: nothing was written."
                    ) from None
            except DBAPIError as error:
                trouble = dialect.trouble_of(error)
                lost = trouble is Trouble.LOST and self._reached and time.monotonic() < gives_up
                if not lost and not (trouble is Trouble.CONFLICT and tries < _MOST_CONFLICTS):
                    raise
            else:
                self._reached = True
                return result
            self._pause(tries)
            tries += 1

    def _pause(self, tries: int) -> None:
        longest = min(0.02 * 2**tries, _LONGEST_PAUSE_SEC)
        self._sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads callers, protects nothing

    def _once(self, act: Callable[[Connection], T], engine: Engine) -> T:
        with engine.connect() as connection, connection.begin():
            return act(connection)

    def _write_once(self, act: Callable[[Connection], T]) -> T:
        with self._names.one() as name:
            result, receipt = self._try(act, name)
            if receipt is None or self._landed(receipt):
                return result
            raise _UndoneError

    def _try(self, act: Callable[[Connection], T], name: str) -> tuple[T, Receipt | None]:
        """One transaction; with its receipt where the COMMIT got no answer, and without where nothing is in doubt."""
        with self._engine.connect() as connection:
            transaction = connection.begin()
            try:
                result = act(connection)
                receipt = receipts.leave(connection, name)
            except BaseException:
                transaction.rollback()
                raise
            try:
                transaction.commit()
            except DBAPIError as error:
                if dialect.trouble_of(error) is not Trouble.LOST:
                    raise
                return result, receipt
        return result, None

    def _landed(self, receipt: Receipt) -> bool:
        """Whether a transaction whose COMMIT got no answer has happened; StoreError where nobody can say."""
        found: bool | None = None
        # The look's own error must not leave as it is: it would be taken for the write's, and the write be done again.
        with suppress(DBAPIError):
            found = self._patiently(lambda: self._once(lambda it: receipts.is_there(it, receipt), self._engine))
        if found is None:
            raise StoreError(f"{self._location} was lost while it committed, and cannot say whether it did: try again.")
        return found
