"""A batch job in YAML."""

from batchor_dagster.component.component import BatchorComponent

__all__ = ["BatchorComponent"]
