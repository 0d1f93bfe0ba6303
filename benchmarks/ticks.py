"""A Dagster instance, a store with many runs in flight, and the sensor that looks after them."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import dagster as dg

from batchor_dagster import BatchorResource, batchor_assets, build_batchor_polling_sensor
from batchor_engine import BatchItem, BatchJob, OpenAIProviderConfig
from benchmarks.harness import server
from benchmarks.work import MODEL


class Ticks:
    """A run for each of many partitions, all at the provider."""

    def __init__(self, runs: int, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._keys = [f"p{at:04d}" for at in range(runs)]
        self._folder, self._open, self._cursor = folder, ExitStack(), ""

    def __enter__(self) -> Ticks:
        serving = self._open.enter_context(server(self._folder))
        self._instance = self._open.enter_context(dg.instance_for_test(temp_dir=str(self._folder)))
        store = f"sqlite:///{self._folder}/runs.sqlite3"
        self._batchor = BatchorResource(
            store_url=store, artifacts_url=f"{self._folder}/artifacts", api_key="sk-bench", base_url=serving.base_url
        )

        @batchor_assets(name="answers", partitions_def=dg.StaticPartitionsDefinition(self._keys))
        def answers() -> BatchJob:
            raise NotImplementedError

        self._sensor = build_batchor_polling_sensor(assets=answers)
        with closing(self._batchor.runner()) as runner:
            for key in self._keys:
                job = BatchJob([BatchItem("a", "x")], lambda item: item.payload, OpenAIProviderConfig(model=MODEL))
                runner.start(job, run_id=key, labels={"asset": "answers", "partition": key, "generation": "1"})
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def tick(self) -> Any:
        context = dg.build_sensor_context(
            instance=self._instance, cursor=self._cursor, resources={"batchor": self._batchor}
        )
        result = self._sensor(context)
        assert isinstance(result, dg.SensorResult)
        self._cursor = result.cursor or ""
        return result
