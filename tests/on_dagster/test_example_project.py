"""The example project: its data, its rules, its definitions, and its one-line complaints about bad files."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from batchor_engine import model_output_schema
from batchor_engine.sandbox import SandboxAnswer, SandboxRequest
from example_project import settings, write_tickets
from example_project.charts import bars
from example_project.models import Product, TicketTriage, Urgency
from example_project.responder import respond
from example_project.tickets import TicketFileError, read_tickets


def asked(body: str, subject: str = "") -> SandboxAnswer:
    prompt = f"Subject: {subject}\nBody:\n{body}"
    return respond(SandboxRequest("c", "/v1/responses", "gpt-5-mini", {}, prompt))


def answered(body: str, subject: str = "") -> TicketTriage:
    return TicketTriage.model_validate_json(asked(body, subject).text)


@pytest.fixture(scope="module")
def all_tickets() -> pd.DataFrame:
    return pd.concat([read_tickets(file) for file in sorted(settings.DEFAULT_DATA.glob("*.csv"))])


def test_the_days_hold_some_hundred_tickets_with_unique_ids(all_tickets: pd.DataFrame) -> None:
    assert 400 < len(all_tickets) < 700
    assert all_tickets["ticket_id"].is_unique


def test_the_nasty_tickets_are_there(all_tickets: pd.DataFrame) -> None:
    bodies = all_tickets["body"]
    assert (bodies.str.strip() == "").sum() >= 3
    assert bodies.str.split().str.len().max() >= 4000
    for mark in ("\u2028", "🔥", "\x85", '"\n"', "ランプ", "=HYPERLINK"):
        assert (bodies + all_tickets["subject"]).str.contains(mark, regex=False).any(), mark


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    for number, (day, count) in enumerate(write_tickets.DAYS.items()):
        write_tickets.write_day(tmp_path / f"{day}.csv", day, number, count)
        assert (tmp_path / f"{day}.csv").read_bytes() == (settings.DEFAULT_DATA / f"{day}.csv").read_bytes()


def test_every_ticket_gets_an_answer_or_a_refusal(all_tickets: pd.DataFrame) -> None:
    answers = [asked(row.body, row.subject) for row in all_tickets.itertuples()]
    refused = [answer for answer in answers if answer.refusal]
    assert 0 < len(refused) < 0.05 * len(answers)
    assert all(TicketTriage.model_validate_json(answer.text) for answer in answers if not answer.refusal)


def test_answers_make_sense() -> None:
    burnt = answered("The lamp in the nursery smells of burnt plastic, order FL-12345.")
    assert (burnt.product, burnt.urgency) == (Product.LAMP, Urgency.CRITICAL)
    assert {entity.text for entity in burnt.entities} == {"nursery", "FL-12345"}
    charged = answered("My card was charged twice for Fernlight Care, 4.99 EUR each time.")
    assert charged.refund_eur == pytest.approx(4.99)
    assert answered("Guten Tag, bitte helfen Sie mir mit dem Hub.").language == "de"


def test_the_model_fits_a_strict_schema() -> None:
    assert model_output_schema(TicketTriage)


def test_the_definitions_hold_the_assets_their_checks_and_three_sensors() -> None:
    from example_project.definitions import defs

    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        "tickets",
        "triage_batch",
        "triage",
        "triage_failures",
        "urgent",
    }
    assert {key.name for key in graph.asset_check_keys} == {"failure_rate", "refusal_rate", "missing_rows"}
    running = {sensor.name: sensor.default_status is dg.DefaultSensorStatus.RUNNING for sensor in defs.sensors or ()}
    assert running == {
        "batchor_polling_sensor": True,
        "batchor_submission_sensor": False,
        "urgent_when_triaged": True,
    }


def test_the_chart_is_small_enough_to_be_shown_inline() -> None:
    assert len(bars({"critical": 1234, "high": 5678, "normal": 99999, "low": 0})) < 1000


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "does not exist: put the day's tickets there"),
        (b"", "is empty: it needs a header with ticket_id and body"),
        (b"id,text\n1,x\n", "lacks the column ticket_id and body: it has id, text"),
        (b"ticket_id,text\n1,x\n", "lacks the column body: it has ticket_id, text"),
        (b"ticket_id,body\n", "has no rows below its header"),
        (b"ticket_id,body\nA,x\nA,y\n", "holds ticket_id 'A' twice: ids must be unique in a file"),
        (b"ticket_id,body\n,x\n", "has an empty ticket_id in row 1"),
        (b"ticket_id,body\nA,x,y\n", "cannot be read as CSV in UTF-8"),
        (b'ticket_id,body\nA,"x\n', "cannot be read as CSV in UTF-8"),
        (b"ticket_id,body\nA,\xff\n", "cannot be read as CSV in UTF-8"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    file = tmp_path / "2026-03-02.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TicketFileError, match=re.escape(f"{file} {complaint}")) as caught:
        read_tickets(file)
    assert "\n" not in str(caught.value)
