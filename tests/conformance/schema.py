"""The AsyncAPI document of hydra-node 2.3.0 as JSON schemas, by name."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_BASE = "https://hydra.invalid/"
_ROOTS = [os.environ.get("FEDNODE_TEST_DATA", ""), str(Path(__file__).parents[3] / "shared" / "data")]


@cache
def _folder() -> Path | None:
    found = [Path(root) / "hydra-2.3.0" / "json-schemas" for root in _ROOTS if root]
    return next((path for path in found if path.is_dir()), None)


class Schemas:
    """Validates messages. Skips where the packages or the document are not here."""

    def __init__(self) -> None:
        jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: no message is validated")
        yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: no message is validated")
        referencing = pytest.importorskip("referencing")
        folder = _folder()
        if folder is None:
            pytest.skip("hydra-2.3.0/json-schemas is not here: set FEDNODE_TEST_DATA")

        def retrieve(uri: str) -> Any:
            path = folder / ("cardanonical/cardano.json" if uri.endswith("cardano.json") else uri.removeprefix(_BASE))
            content = json.loads(path.read_bytes()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
            return referencing.jsonschema.DRAFT7.create_resource(content)

        self._kind = jsonschema.Draft7Validator
        self._registry = referencing.Registry(retrieve=cache(retrieve))

    def errors(self, name: str, message: Any) -> list[str]:
        """What is wrong with `message` as `components/schemas/NAME`."""
        schema = {"$ref": f"{_BASE}api.yaml#/components/schemas/{name}"}
        found = self._kind(schema, registry=self._registry).iter_errors(message)
        return [f"{'/'.join(map(str, each.absolute_path))}: {_deepest(each)}"[:400] for each in found]


def _deepest(error: Any) -> str:
    """The most telling part of a failed oneOf: that of the alternative with the right tag."""
    parts = [each for each in error.context or () if list(each.relative_schema_path)[-1:] != ["enum"]]
    inner = [each for each in parts if "tag" not in each.absolute_path]
    return "; ".join(_deepest(each) for each in inner[:4]) if inner else str(error.message)
