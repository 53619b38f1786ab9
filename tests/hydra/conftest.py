"""The marker of the tests that are for a real hydra-node: scripts/test-real-node selects them."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "realnode: asks a real hydra-node (scripts/test-real-node), skipped without one")
