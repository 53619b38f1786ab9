"""The services of the storage tests: one of each for a pytest process, started when a test first asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storj.network import Network, missing, storj_network

from .services import Service, moto, rclone_s3
from .stores import Makers


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[Service]:
    with moto() as service:
        yield service


@pytest.fixture(scope="session")
def served_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with rclone_s3(tmp_path_factory.mktemp("served") / "s3") as service:
        yield service


@pytest.fixture(scope="session")
def storj(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A real Storj network that nobody breaks for good."""
    if reason := missing():
        pytest.skip(f"no real Storj network: {reason}")
    with storj_network(tmp_path_factory.mktemp("storj")) as network:
        yield network


@pytest.fixture(scope="session")
def gateway(storj: Network) -> Service:
    """Storj's gateway, and a bucket of the first project."""
    found = storj.gateway
    bucket = storj.make_bucket("contract")
    return Service(found.endpoint, bucket, found.access_key, found.secret_key, region=found.region)


@pytest.fixture
def makers(request: pytest.FixtureRequest, tmp_path: Path) -> Makers:
    return Makers(request, tmp_path)
