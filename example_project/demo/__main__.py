"""The demo from start to end, and `--dev`, which only opens Dagster."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

from example_project import settings
from example_project.demo.dagster_api import ENDED, DagsterApi
from example_project.demo.home import Home
from example_project.demo.processes import Processes, end_stale
from example_project.demo.screen import progress, report, say
from example_project.demo.stage import Ports, open_stage, start_daemon
from example_project.demo.trouble import DemoError
from example_project.demo.watch import Eye

DAYS = ("2026-03-02", "2026-03-03", "2026-03-04")
SUBMITTED_ASSETS = ("tickets", "triage_batch")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m example_project.demo", description=__doc__)
    made.add_argument("--dev", action="store_true", help="open Dagster with sandbox and sensor, until Ctrl-C")
    made.add_argument("--home", type=Path, help="folder of the demo (default .demo, with --dev .demo/dev)")
    made.add_argument("--port", type=int, help="port of Dagster's page (default: a free one, remembered)")
    made.add_argument("--sandbox-port", type=int, help="port of the sandbox (default: a free one, remembered)")
    made.add_argument("--limit", type=float, default=600.0, help="give up after so many seconds (default 600)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    place = args.home or (settings.DEFAULT_HOME / "dev" if args.dev else settings.DEFAULT_HOME)
    signal.signal(signal.SIGTERM, _end)
    try:
        with closing(Home.open(place.resolve())) as home:
            ports = Ports(args.port, args.sandbox_port)
            dev(home, ports) if args.dev else demo(home, ports, args.limit)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: ended; run it again to go on", file=sys.stderr)
        return 130
    return 0


def demo(home: Home, ports: Ports, limit_sec: float) -> None:
    """Submit three days and watch until their results are there."""
    check_data()
    goes_on = prepare(home)
    with processes_of(home) as processes:
        api = open_stage(home, processes, ports, with_daemon=False)
        say(f"Dagster is at {api.url}")
        lost: frozenset[str] = frozenset()
        if goes_on:
            lost = pick_up(api)
        else:
            home.remember(backfill_id=api.backfill(SUBMITTED_ASSETS, DAYS))
            say(
                f"Submitted a backfill of {' and '.join(SUBMITTED_ASSETS)} for {', '.join(DAYS)}; now the sensor works."
            )
        start_daemon(home, processes)
        with progress() as show:
            eye = Eye(home, api, DAYS, lost)
            end = eye.watch(show=show, alive=processes.check, limit_sec=limit_sec)
        home.remember(done=True)
        report(home, end, api.url)


def dev(home: Home, ports: Ports) -> None:
    """Open Dagster and leave it open."""
    end_stale(home)
    with processes_of(home) as processes:
        api = open_stage(home, processes, ports, with_daemon=True)
        say(f"Dagster is at {api.url}, its data in {home.path}. Ctrl-C ends it.")
        while True:
            processes.check()
            time.sleep(0.5)


def check_data() -> None:
    from example_project.tickets import TicketFileError, read_tickets

    try:
        for day in DAYS:
            read_tickets(settings.data_dir() / f"{day}.csv")
    except TicketFileError as error:
        raise DemoError(str(error)) from None


def prepare(home: Home) -> bool:
    """Decide between going on and starting cleanly, say which, and end what is left of the last demo."""
    left = end_stale(home)
    ended = f" Ended its processes ({', '.join(left)})." if left else ""
    if home.note.backfill_id and not home.note.done:
        say(f"The last demo in {home.path} was interrupted after it had submitted: continuing it.{ended}")
        return True
    if home.note.done:
        say(f"The last demo in {home.path} ended well: its data is removed, a new one starts.{ended}")
    elif home.note.ports:
        say(f"The last demo in {home.path} was interrupted before it had submitted: starting cleanly.{ended}")
    else:
        say(f"A new demo starts in {home.path}.")
    home.clear()
    return False


def pick_up(api: DagsterApi) -> frozenset[str]:
    """Give up the runs that the interruption broke, and run again those that the sensor does not ask for by itself."""
    broken = [run for run in api.runs() if run.status not in {"SUCCESS", "QUEUED", "NOT_STARTED"}]
    api.end_runs([run.run_id for run in broken if run.status not in ENDED])
    done = {root for run in broken if (root := run.tags.get("dagster/root_run_id"))}
    for run in broken:
        if "batchor/sensor" not in run.tags and run.run_id not in done:
            api.run_again(run.run_id)
    say(f"Picked up the backfill; {len(broken)} runs of Dagster that were cut off are done again.")
    return frozenset(run.run_id for run in broken)


@contextmanager
def processes_of(home: Home) -> Iterator[Processes]:
    """Children that are ended however the block ends; a second Ctrl-C does not cut that short."""
    processes = Processes(home)
    try:
        yield processes
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        processes.stop()
        signal.signal(signal.SIGINT, before)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
