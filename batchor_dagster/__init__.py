"""batchor for Dagster: a batch job of an LLM provider as two assets, and a sensor that waits for it."""

import dagster as dg

from batchor_dagster.assets import BatchorAssetOptions, batchor_assets, build_batchor_assets
from batchor_dagster.checks import BatchorChecks
from batchor_dagster.component import BatchorComponent
from batchor_dagster.definitions import build_batchor_definitions
from batchor_dagster.forms import BatchorResults
from batchor_dagster.io_manager import BatchorIOManager, build_batchor_io_manager
from batchor_dagster.job_parts import BatchorJobParts
from batchor_dagster.jobs import build_batchor_jobs
from batchor_dagster.metadata import BatchorMetadataSet
from batchor_dagster.resources import BatchorResource
from batchor_dagster.sensors import build_batchor_polling_sensor
from batchor_dagster.submission_sensor import build_batchor_submission_sensor
from batchor_dagster.translator import BatchorAssetData, BatchorAssetRole, DagsterBatchorTranslator

__version__ = "0.1.0"

# It is a public name that Dagster forgot to mark as exported.
dg.DagsterLibraryRegistry.register(  # pyright: ignore[reportPrivateImportUsage]
    "batchor-dagster", __version__, is_dagster_package=False
)

__all__ = [
    "BatchorAssetData",
    "BatchorAssetOptions",
    "BatchorAssetRole",
    "BatchorChecks",
    "BatchorComponent",
    "BatchorIOManager",
    "BatchorJobParts",
    "BatchorMetadataSet",
    "BatchorResource",
    "BatchorResults",
    "DagsterBatchorTranslator",
    "batchor_assets",
    "build_batchor_assets",
    "build_batchor_definitions",
    "build_batchor_io_manager",
    "build_batchor_jobs",
    "build_batchor_polling_sensor",
    "build_batchor_submission_sensor",
]
