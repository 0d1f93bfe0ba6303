"""The resource that knows the store, the artifacts and the account."""

import re

import dagster as dg
from pydantic import ConfigDict, Field, model_validator

from batchor_engine import BatchRunner, OpenAIConnection

RESOURCE = "batchor"
_IN_MEMORY = re.compile(r"memory|sqlite(\+\w+)?:///?(\?.*)?")


def polling_sensor_name(resource_key: str) -> str:
    """The sensor that looks after the assets of one resource, unless it was given another name."""
    return f"{resource_key}_polling_sensor"


def job_name(order: str, resource_key: str) -> str:
    """The control job that carries out an order on runs of one resource, such as "pause"."""
    return f"{resource_key}_{order}"


class BatchorResource(dg.ConfigurableResource):
    """One store of durable runs and the account that they are sent with."""

    # Dagster shows the docstring in the launchpad: what only a writer of code wants to know stands at the fields.

    # Whoever pastes a key where its variable's name belongs must not read it again in the error.
    model_config = ConfigDict(hide_input_in_errors=True)

    store_url: str = Field(
        repr=False,
        description="Database of the runs: sqlite:///path or postgresql://user:password@host/db?schema=name; one with "
        'a password belongs in the environment: dg.EnvVar("BATCHOR_STORE_URL")',
    )
    artifacts_url: str | None = Field(
        default=None, description="Folder or object-store URL of request and result files"
    )
    api_key: str = Field(
        default="",
        repr=False,
        description='Provider key, given as dg.EnvVar("OPENAI_API_KEY"), because Dagster keeps a literal string in the '
        "snapshot of the code location; empty means the provider's environment variable",
    )
    api_key_env: str | None = Field(
        default=None,
        description="Name of the environment variable with the provider's key, such as AZURE_OPENAI_API_KEY; the name "
        "is stored, never the value, and it is read where a call is made",
    )
    header_env: dict[str, str] = Field(
        default={},
        description="Extra HTTP headers, each with the name of the environment variable that holds its value; the "
        "names are stored, never the values",
    )
    base_url: str | None = Field(default=None, description="Address of the API, when it is not the provider's own")
    organization: str | None = Field(default=None, description="Organization to bill")
    project: str | None = Field(default=None, description="Project to bill")
    request_timeout_sec: int | None = Field(default=None, gt=0, description="Limit of one API call, in seconds")
    max_transfers: int = Field(default=4, ge=1, description="Files of one run that are uploaded or downloaded at once")
    quota_scope: str = Field(default="", description="Name of the account that shares an enqueued-token limit")

    @model_validator(mode="after")
    def _names_variables(self) -> "BatchorResource":
        # A secret that was pasted for a name would be kept in the snapshot of the code location.
        OpenAIConnection(api_key_env=self.api_key_env, header_env=self.header_env)
        return self

    @model_validator(mode="after")
    def _keeps_runs(self) -> "BatchorResource":
        # Every step opens its own store. A variable is read, and this asked again, when the resource is.
        if _IN_MEMORY.fullmatch(self.store_url):
            raise ValueError(
                f"store_url {self.store_url!r} is a store in memory, which would forget what was submitted and paid "
                "when the step ends: name a file, sqlite:///runs.sqlite3, or a PostgreSQL database"
            )
        return self

    def runner(self) -> BatchRunner:
        """A runner over the store; opening it makes no call to the provider."""
        return BatchRunner(
            storage=self.store_url,
            artifacts_url=self.artifacts_url,
            max_transfers=self.max_transfers,
            connection=OpenAIConnection(
                api_key=self.api_key,
                api_key_env=self.api_key_env,
                header_env=self.header_env,
                base_url=self.base_url,
                organization=self.organization,
                project=self.project,
                request_timeout_sec=self.request_timeout_sec,
                quota_scope=self.quota_scope,
            ),
        )
