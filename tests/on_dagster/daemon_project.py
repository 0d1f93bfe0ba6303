"""The shop as a code location of a real daemon, which gives up killed workers as soon as it is told to."""

import os
from pathlib import Path

from batchor_dagster import ledger
from tests.on_dagster.actor import FOLDER_VARIABLE, GIVEN_UP_VARIABLE, URL_VARIABLE, definitions

ledger.GIVEN_UP_SEC = float(os.environ[GIVEN_UP_VARIABLE])
defs = definitions(os.environ[URL_VARIABLE], Path(os.environ[FOLDER_VARIABLE]))
