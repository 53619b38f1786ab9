"""The services of the storage tests: one of each for a pytest process, started when a test first asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.storj.network import Network

from .services import Service, moto, rclone_s3
from .stores import Makers

SLOW = ("rclone-folder", "s3-gateway", "rclone-storj", "uplink-storj")
HEART = {
    "test_what_is_put_comes_back[*]",
    "test_sizes[*-0]",
    "test_other_bytes_are_a_conflict_and_stay[*-first_other]",
    "test_wrong_size_keeps_at_most_one_byte_more[*-7-size-8]",
    "test_an_interrupted_put_is_whole_or_not_there[*-0.1]",
    "test_delete[*]",
    "test_a_full_disk_while_getting[*]",
}


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[Service]:
    with moto() as service:
        yield service


@pytest.fixture(scope="session")
def served_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with rclone_s3(tmp_path_factory.mktemp("served") / "s3") as service:
        yield service


@pytest.fixture(scope="session")
def gateway(storj: Network) -> Service:
    """Storj's gateway, and a bucket of the first project."""
    found = storj.gateway
    bucket = storj.make_bucket("contract")
    return Service(found.endpoint, bucket, found.access_key, found.secret_key, region=found.region)


@pytest.fixture
async def makers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Makers]:
    found = Makers(request, tmp_path)
    yield found
    for bucket in found.opened:
        await bucket.aclose()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stores that take long for every call run the heart of the contract always, all of it with `-m long`."""
    for item in items:
        name, _, case = item.name.partition("[")
        store = next((store for store in SLOW if store in case), None)
        if item.path.name == "test_contract.py" and store and f"{name}[{case}".replace(store, "*") not in HEART:
            item.add_marker(pytest.mark.long)
