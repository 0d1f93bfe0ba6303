"""The token budget that all runs of one account and model share.

Law: what is reserved is a maintained sum. It is taken with the claim and given back once, when the provider ends the
batch or it is proved that the provider never had it.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from batchor_engine.core.records import ScopeRecord
from batchor_engine.storage.schema import scopes


def reserve(connection: Connection, name: str, tokens: int, budget: int | None) -> bool:
    """Add to the scope's reservation unless that would pass the budget (None: no budget)."""
    record = _locked(connection, name)
    if budget is not None and record.reserved + tokens > budget:
        return False
    connection.execute(scopes.update().where(scopes.c.name == name).values(reserved=scopes.c.reserved + tokens))
    return True


def give_back(connection: Connection, name: str, tokens: int) -> None:
    connection.execute(scopes.update().where(scopes.c.name == name).values(reserved=scopes.c.reserved - tokens))


def find(connection: Connection, name: str) -> ScopeRecord:
    row = connection.execute(select(scopes).where(scopes.c.name == name)).one_or_none()
    return ScopeRecord(name, 0, None) if row is None else ScopeRecord(row.name, row.reserved, row.learned_limit)


def learn_limit(connection: Connection, name: str, limit: int) -> None:
    _locked(connection, name)
    connection.execute(scopes.update().where(scopes.c.name == name).values(learned_limit=limit))


def _locked(connection: Connection, name: str) -> ScopeRecord:
    row = connection.execute(select(scopes).where(scopes.c.name == name).with_for_update()).one_or_none()
    if row is None:
        connection.execute(scopes.insert().values(name=name, reserved=0))
        return ScopeRecord(name, 0, None)
    return ScopeRecord(row.name, row.reserved, row.learned_limit)
