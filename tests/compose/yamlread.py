"""Reads the generated files back, with a library that did not write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Service:
    raw: dict[str, Any]

    @property
    def command(self) -> list[str]:
        """As the container sees it: compose turns `$$` into `$`."""
        return [word.replace("$$", "$") for word in self.raw.get("command", [])]

    @property
    def ports(self) -> list[str]:
        return list(self.raw.get("ports", []))

    @property
    def binds(self) -> list[dict[str, Any]]:
        return [volume for volume in self.raw.get("volumes", []) if isinstance(volume, dict)]

    @property
    def named(self) -> list[str]:
        return [volume for volume in self.raw.get("volumes", []) if isinstance(volume, str)]


def services(text: str) -> dict[str, Service]:
    return {name: Service(raw) for name, raw in yaml.safe_load(text)["services"].items()}
