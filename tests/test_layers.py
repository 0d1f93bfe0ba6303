"""The arrows between the packages point downward, and importing the engine stays cheap."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINE, DAGSTER = "batchor_engine", "batchor_dagster"

# DESIGN.md §3: a module may import from its own layer or from a lower one.
LAYERS = {
    "models": 0,
    "states": 0,
    "errors": 0,
    "core": 1,
    "ports": 2,
    "events": 2,
    "config": 2,
    "job": 2,
    "storage": 3,
    "sources": 3,
    "providers": 3,
    "artifacts": 3,
    "results": 3,
    "runtime": 4,
    "cli": 5,
    "sandbox": 5,
    "testing": 5,
    "": 5,  # batchor_engine/__init__.py, which names everything
}
# Rooms whose neighbours are closed to them.
APART = {"storage", "sources", "providers", "artifacts", "results", "sandbox"}
# A library, and the only room that may know it.
HOMES = {
    "sqlalchemy": f"{ENGINE}.storage",
    "psycopg": f"{ENGINE}.storage",
    "obstore": f"{ENGINE}.artifacts",
    "openai": f"{ENGINE}.providers",
    "typer": f"{ENGINE}.cli",
    "rich": f"{ENGINE}.cli",
    "dotenv": f"{ENGINE}.cli",
    "starlette": f"{ENGINE}.sandbox",
    "uvicorn": f"{ENGINE}.sandbox",
    "dagster": DAGSTER,
}
HEAVY = (
    "dagster",
    "pyarrow",
    "pandas",
    "psycopg",
    "tiktoken",
    "typer",
    "rich",
    "openai",
    "numpy",
    "starlette",
    "obstore",
    "msgspec",
    "sqlalchemy",
)
MAX_LINES = 400


@dataclass(frozen=True)
class Import:
    """`module` imports `target`, and `names` from it (none for a plain import)."""

    module: str
    target: str
    names: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target} {' '.join(self.names)}".rstrip()


def modules(root: Path, package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(root: Path, *packages: str) -> list[Import]:
    """Every import of these packages, those for the type checker and those inside functions included."""
    found: list[Import] = []
    for package in packages:
        for module, path in modules(root, package):
            home = module if path.name == "__init__.py" else module.rpartition(".")[0]
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                found += _of_node(node, module, home)
    return found


def _of_node(node: ast.AST, module: str, home: str) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(module, alias.name, (), node.lineno) for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        up = home.split(".")[: len(home.split(".")) - node.level + 1] if node.level else []
        target = ".".join([*up, *([node.module] if node.module else [])])
        yield Import(module, target, tuple(alias.name for alias in node.names), node.lineno)


def room(module: str) -> str:
    """storage of batchor_engine.storage.schema; the package's own module has an empty name."""
    return module.partition(".")[2].partition(".")[0]


def rooms_of(one: Import) -> set[str]:
    """The rooms an import reaches into; `from batchor_engine import errors` reaches into errors."""
    if one.target == ENGINE:
        return {name if name in LAYERS else "" for name in one.names or ("",)}
    return {room(one.target)}


def upward(found: Iterable[Import]) -> list[str]:
    inside = [one for one in found if one.module.split(".")[0] == one.target.split(".")[0] == ENGINE]
    return [
        str(one)
        for one in inside
        for reached in rooms_of(one)
        if LAYERS[reached] > LAYERS[room(one.module)] or _into_a_neighbour(room(one.module), reached)
    ]


def _into_a_neighbour(here: str, there: str) -> bool:
    if here == "sandbox":
        return there != "sandbox"
    return here in APART and there in APART and here != there


def homeless(found: Iterable[Import]) -> list[str]:
    return [
        str(one)
        for one in found
        if (home := HOMES.get(one.target.split(".")[0])) and not f"{one.module}.".startswith(f"{home}.")
    ]


def beside_the_front_door(found: Iterable[Import], public: Iterable[str]) -> list[str]:
    """What batchor_dagster imports of the engine other than its public names."""
    mine = [one for one in found if one.module.split(".")[0] == DAGSTER and one.target.split(".")[0] == ENGINE]
    return [str(one) for one in mine if one.target != ENGINE or not set(one.names) <= set(public) or not one.names]


def private_dagster(found: Iterable[Import]) -> list[str]:
    """Anything of Dagster but `import dagster as dg`."""
    return [
        str(one) for one in found if one.target.split(".")[0] == "dagster" and (one.target != "dagster" or one.names)
    ]


@pytest.fixture(scope="module")
def found() -> list[Import]:
    return imports(ROOT, ENGINE, DAGSTER)


@pytest.fixture(scope="module")
def public() -> list[str]:
    import batchor_engine

    return [*batchor_engine.__all__, "__version__"]


def test_every_module_of_the_engine_has_a_layer() -> None:
    assert {room(module) for module, _ in modules(ROOT, ENGINE)} <= set(LAYERS)


def test_no_arrow_turns_upward_and_adapters_do_not_know_each_other(found: list[Import]) -> None:
    assert upward(found) == []


def test_every_library_stays_in_its_room(found: list[Import]) -> None:
    assert homeless(found) == []


def test_the_dagster_package_uses_the_engines_public_names_alone(found: list[Import], public: list[str]) -> None:
    assert beside_the_front_door(found, public) == []


def test_dagster_is_imported_by_its_public_name_alone(found: list[Import]) -> None:
    assert private_dagster(found) == []


def test_what_is_generic_does_not_know_the_openai_config(found: list[Import]) -> None:
    """T4.10"""
    generic = {"core", "ports", "storage", "artifacts", "results", "sources", "runtime"}
    assert [str(one) for one in found if room(one.module) in generic and "OpenAIProviderConfig" in one.names] == []


def test_no_module_is_longer_than_its_duty() -> None:
    sizes = {
        module: path.read_text("utf-8").count("\n")
        for package in (ENGINE, DAGSTER)
        for module, path in modules(ROOT, package)
    }
    assert {module: lines for module, lines in sizes.items() if lines > MAX_LINES} == {}


def test_importing_the_engine_loads_nothing_heavy() -> None:
    code = (
        "import sys, json, time; began = time.process_time()\n"
        "import batchor_engine; took = time.process_time() - began\n"
        f"print(json.dumps([[name for name in {HEAVY!r} if name in sys.modules], len(sys.modules), took]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    heavy, count, took = json.loads(done.stdout)
    print(f"import batchor_engine: {took:.3f} s, {count} modules")
    assert heavy == []


FAKE = {
    "batchor_engine/__init__.py": "from batchor_engine.models import Thing\n",
    "batchor_engine/models.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .runtime import run\n",
    "batchor_engine/runtime/__init__.py": "def run():\n    from batchor_engine.cli import main\n",
    "batchor_engine/storage/__init__.py": "from ..sources import rows\nimport sqlalchemy.orm\n",
    "batchor_engine/sources/__init__.py": "from batchor_engine import runtime\nimport sqlalchemy\n",
    "batchor_engine/sandbox/__init__.py": "import batchor_engine.errors\n",
    "batchor_engine/errors.py": "",
    "batchor_dagster/__init__.py": (
        "import dagster as dg\nfrom dagster import asset\nimport dagster._core\nimport batchor_engine\n"
        "from batchor_engine import Thing, secret\nfrom batchor_engine.models import Thing\n"
    ),
}


def test_these_tests_see_every_kind_of_wrong_arrow(tmp_path: Path) -> None:
    for name, text in FAKE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    seen = imports(tmp_path, ENGINE, DAGSTER)
    assert [one.split(" imports ")[0] for one in upward(seen)] == [
        "batchor_engine.models:3",
        "batchor_engine.runtime:2",
        "batchor_engine.sandbox:1",
        "batchor_engine.sources:1",
        "batchor_engine.storage:1",
    ]
    assert [one.split(" imports ")[0] for one in homeless(seen)] == ["batchor_engine.sources:2"]
    assert len(beside_the_front_door(seen, ["Thing"])) == 3
    assert len(private_dagster(seen)) == 2
