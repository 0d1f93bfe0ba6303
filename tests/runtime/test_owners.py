"""Whether the owner of a lease is dead, asked of a real /proc that hides or confuses processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from batchor_engine.core.ownership import parse_owner
from batchor_engine.runtime import hold
from tests import rings

# Everything is imported before the user changes, who may not read this environment.
ASK = """
import os, sys
from batchor_engine.core.ownership import is_provably_dead
from batchor_engine.runtime import hold
user = int(sys.argv[1])
os.setgroups([])
os.setgid(user)
os.setuid(user)
print([is_provably_dead(holder, hold._this_process(), hold._started_of_holder(holder)) for holder in sys.argv[2:]])
"""
NOBODY = "65534"


@pytest.fixture
def dead() -> str:
    """An owner that is gone: this process with a pid that just ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return str(hold._this_process()).replace(f"/{os.getpid()}/", f"/{child.pid}/")


def run(unshare: list[str], before: str, *command: str) -> str:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        rings.skip("other namespaces", "needs root and unshare")
    made = subprocess.run(
        [*unshare, "sh", "-c", f'{before} exec "$@"', "sh", *command], capture_output=True, text=True, check=False
    )
    if "unshare failed" in made.stderr or "mount:" in made.stderr:
        rings.skip("other namespaces", made.stderr.strip())
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_an_owner_that_another_user_may_not_see_is_not_called_dead(dead: str) -> None:
    hidden = "mount -t proc -o hidepid=2 proc /proc &&"
    me = str(hold._this_process())
    verdicts = run(["unshare", "--mount"], hidden, sys.executable, "-c", ASK, NOBODY, me, dead)
    assert verdicts == "[False, True]"


def test_a_process_whose_proc_tells_of_others_takes_part_in_no_proof() -> None:
    apart = ["unshare", "--pid", "--fork"]
    owner = "from batchor_engine.runtime import hold; print(hold._this_process())"
    there, here = (parse_owner(run(unshare, "", sys.executable, "-c", owner)) for unshare in (apart, []))
    assert there is not None
    assert here is not None
    assert (there.namespace, bool(here.namespace)) == ("", True)
