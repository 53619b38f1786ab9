"""The Storj network of the tests: one for each pytest process, and one for each test that breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storj.network import Network, missing, storj_network


@pytest.fixture(scope="session")
def storj(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network that nobody breaks for good: freeze() only with thaw() after it."""
    if reason := missing():
        pytest.skip(f"no real Storj network: {reason}")
    with storj_network(tmp_path_factory.mktemp("storj")) as network:
        yield network


@pytest.fixture
def own_storj(tmp_path: Path) -> Iterator[Network]:
    """A network of the test's own, to break as it likes."""
    if reason := missing():
        pytest.skip(f"no real Storj network: {reason}")
    with storj_network(tmp_path / "storj") as network:
        yield network
