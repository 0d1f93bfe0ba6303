"""The shop as a code location of a real daemon, whose killed workers are given up after seconds."""

import os
from pathlib import Path

from batchor_dagster import ledger
from tests.on_dagster.actor import FOLDER_VARIABLE, URL_VARIABLE, definitions

ledger.GIVEN_UP_SEC = 5.0
defs = definitions(os.environ[URL_VARIABLE], Path(os.environ[FOLDER_VARIABLE]))
