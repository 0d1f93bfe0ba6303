from __future__ import annotations

from typing import Any

import openai
import pytest

from batchor_engine.sandbox import Fault, FaultKind, Phases
from batchor_engine.sandbox.faults import CALL_KINDS, LINE_KINDS


def test_validation_fails_with_the_line_numbers_of_the_script(shop: Any) -> None:
    shop.server.faults.add(Fault("validation_failed", lines=(2, 5), code="invalid_request", message="bad row"))
    batch = shop.done(shop.lines(6))
    assert batch.status == "failed"
    assert [(one.code, one.message, one.line) for one in batch.errors.data] == [
        ("invalid_request", "bad row", 2),
        ("invalid_request", "bad row", 5),
    ]
    assert shop.done(shop.lines(6)).status == "completed"


def test_validation_may_fail_without_line_numbers(shop: Any) -> None:
    shop.server.faults.add(Fault("validation_failed"))
    assert [one.line for one in shop.done(shop.lines(2)).errors.data] == [None]


def test_token_limit_exceeded_carries_the_limit(shop: Any) -> None:
    shop.server.faults.add(Fault("token_limit_exceeded", limit=1_350_000, times=2))
    for _ in range(2):
        error = shop.done(shop.lines(1)).errors.data[0]
        assert error.code == "token_limit_exceeded"
        assert "Limit: 1,350,000 enqueued tokens." in error.message
    assert shop.done(shop.lines(1)).status == "completed"


def test_a_batch_may_fail_for_quota(shop: Any) -> None:
    shop.server.faults.add(Fault("batch_failed"), Fault("batch_failed", nth=2, code="billing_hard_limit_reached"))
    codes = [shop.done(shop.lines(1)).errors.data[0].code for _ in range(2)]
    assert codes == ["insufficient_quota", "billing_hard_limit_reached"]


@pytest.mark.parametrize(("kind", "status", "code"), [
    ("expire", "expired", "batch_expired"),
    ("cancel", "cancelled", "batch_cancelled"),
])  # fmt: skip
@pytest.mark.parametrize("at", [0, 3, 8])
def test_a_batch_ends_early_with_k_of_n_answers(shop: Any, kind: str, status: str, code: str, at: int) -> None:
    shop.server.faults.add(Fault(kind, at=at))
    batch = shop.done(shop.lines(8))
    assert batch.status == status
    assert getattr(batch, f"{status}_at") is not None
    done, rest = shop.by_id(batch.output_file_id), shop.by_id(batch.error_file_id)
    assert (len(done), len(rest)) == (at, 8 - at)
    assert {row["error"]["code"] for row in rest.values()} <= {code}
    assert (batch.output_file_id is None, batch.error_file_id is None) == (at == 0, at == 8)
    assert shop.server.stats()["paid_lines"] == at


@pytest.mark.parametrize("phase", ["validating", "in_progress", "finalizing"])
def test_a_stuck_batch_stays_in_its_phase_until_pushed(shop: Any, phase: str) -> None:
    shop.server.faults.add(Fault("stuck", phase=phase))
    batch = shop.submit(shop.lines(2))
    assert {shop.client.batches.retrieve(batch.id).status for _ in range(4)} == {phase}
    assert shop.end(batch).status == "completed"


def test_a_stuck_batch_can_be_cancelled(shop: Any) -> None:
    shop.server.faults.add(Fault("stuck", phase="in_progress"))
    batch = shop.submit(shop.lines(2))
    shop.client.batches.retrieve(batch.id)
    shop.client.batches.cancel(batch.id)
    assert shop.client.batches.retrieve(batch.id).status == "cancelled"


def test_an_unknown_status_is_shown_in_place_of_a_phase(open_shop: Any) -> None:
    shop = open_shop(polls=Phases(1, 1, 0, 0))
    shop.server.faults.add(Fault("odd_status", phase="validating", word="scheduling"))
    batch = shop.submit(shop.lines(1))
    seen = [shop.client.batches.retrieve(batch.id).status for _ in range(3)]
    assert seen == ["scheduling", "in_progress", "completed"]


@pytest.mark.parametrize(("kind", "value"), [("null_file_id", None), ("empty_file_id", "")])
def test_file_ids_may_be_null_or_empty(shop: Any, kind: str, value: str | None) -> None:
    shop.server.faults.add(Fault(kind, which="both"))
    batch = shop.done(shop.lines(1))
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("completed", value, value)


def test_an_error_file_may_be_there_and_empty(shop: Any) -> None:
    shop.server.faults.add(Fault("empty_error_file"))
    batch = shop.done(shop.lines(1))
    assert (shop.raw(batch.error_file_id), len(shop.rows(batch.output_file_id))) == (b"", 1)


def test_the_output_file_may_be_gone(shop: Any) -> None:
    shop.server.faults.add(Fault("output_gone"))
    batch = shop.done(shop.lines(1))
    assert batch.output_file_id
    with pytest.raises(openai.NotFoundError):
        shop.raw(batch.output_file_id)


def test_counts_may_lie_and_usage_may_be_missing(shop: Any) -> None:
    shop.server.faults.add(Fault("counts_lie"), Fault("no_usage"))
    batch = shop.done(shop.lines(3))
    assert (batch.request_counts.total, batch.usage) == (0, None)
    assert len(shop.rows(batch.output_file_id)) == 3


def test_the_last_line_may_be_cut_off(shop: Any) -> None:
    shop.server.faults.add(Fault("truncated_last_line"))
    batch = shop.done(shop.lines(3))
    raw = shop.raw(batch.output_file_id)
    assert (raw.count(b"\n"), raw.endswith(b"\n")) == (2, False)
    stats = shop.server.stats()
    assert (stats["paid_lines"], stats["dropped_lines"]) == (3, 1)
    assert shop.client.files.retrieve(batch.output_file_id).bytes == len(raw)


def test_a_batch_fault_chooses_its_batch_by_metadata(shop: Any) -> None:
    shop.server.faults.add(Fault("expire", metadata={"part": "2"}))
    assert shop.done(shop.lines(1), metadata={"part": "1"}).status == "completed"
    assert shop.done(shop.lines(1), metadata={"part": "2"}).status == "expired"
    assert shop.done(shop.lines(1), metadata={"part": "2"}).status == "completed"


def test_every_kind_of_fault_is_named_in_a_test() -> None:
    from pathlib import Path

    texts = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*_faults.py"))
    assert [kind for kind in FaultKind if f'"{kind}"' not in texts] == []
    assert frozenset() == CALL_KINDS & LINE_KINDS
