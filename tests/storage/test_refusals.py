"""A store that says no is never taken for an empty one, and a new credentials file mends it at the next call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from fednode.durable import write_atomic
from fednode.errors import Conflict, Denied, GrantExpired, NotFound, StorageError, StorageTimeout, Unavailable
from fednode.storage import remote
from fednode.storage.credentials import credentials_text
from fednode.storage.retry import Deadlines, RetryPolicy
from fednode.storage.settings import RcloneSettings, UplinkSettings
from tests.storj.network import Network

from .services import Service
from .stores import Bucket, Makers, needs_library, new_base, s3_settings

pytestmark = pytest.mark.process

BODY = b"adapter" * 20_000
NATIVE: dict[str, Callable[[str, Path], RcloneSettings | UplinkSettings]] = {
    "rclone": RcloneSettings,
    "uplink": UplinkSettings,
}


@pytest.fixture(autouse=True)
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a store says at first is the answer."""
    monkeypatch.setattr(remote, "RetryPolicy", partial(RetryPolicy, attempts=1))


async def listed(bucket: Bucket, prefix: str = "") -> list[str]:
    return [entry.key async for entry in bucket.list(prefix)]


async def every_call_is_denied(bucket: Bucket, key: str, folder: Path) -> list[str]:
    """What each of them says."""
    source = folder / "refused"
    source.write_bytes(BODY)
    said: list[str] = []
    for work in (
        bucket.head(key),
        bucket.read(key, limit=len(BODY)),
        bucket.put(key, source),
        bucket.delete(key),
        listed(bucket, key.rpartition("/")[0] + "/"),
    ):
        with pytest.raises(Denied) as caught:
            await work
        said.append(f"{caught.value.message} {caught.value.hint}")
    return said


@pytest.mark.parametrize("name", ["served_s3", "gateway"])
async def test_a_wrong_secret_and_then_the_right_one(name: str, makers: Makers, tmp_path: Path) -> None:
    service = makers.service(name)
    settings = s3_settings(makers, service, "CANARY" + "0" * 34)
    bucket = makers.open(settings)
    key = f"{new_base()}object"
    for said in await every_call_is_denied(bucket, key, tmp_path):
        assert str(settings.credentials) in said
        assert "CANARY" not in said
        assert service.access_key_id not in said
    write_atomic(settings.credentials, service.text().encode(), mode=0o600)
    await bucket.put(key, tmp_path / "refused")
    assert await bucket.read(key, limit=len(BODY)) == BODY


@pytest.mark.parametrize("name", ["served_s3", "moto_s3", "gateway"])
async def test_no_such_bucket(name: str, makers: Makers, tmp_path: Path) -> None:
    settings = replace(s3_settings(makers, makers.service(name)), bucket="nowhere")
    await nothing_is_made(makers.open(settings), tmp_path)


async def nothing_is_made(bucket: Bucket, folder: Path, said: str = "no such bucket") -> None:
    source = folder / "source"
    source.write_bytes(BODY)
    for work in (bucket.put("a/b", source), bucket.put("a/b", source), listed(bucket), listed(bucket, "a/")):
        with pytest.raises(StorageError, match=said):
            await work


@dataclass
class Lab:
    """A real bucket with one object of its owner in `base`, and grants for it by the vendor's own program."""

    network: Network
    makers: Makers
    settings_of: Callable[[str, Path], RcloneSettings | UplinkSettings]
    name: str
    base: str
    owner: Bucket

    @property
    def key(self) -> str:
        return f"{self.base}000001/object"

    def grant(self, *restrictions: str) -> str:
        place = ("--prefix", f"sj://{self.name}/{self.base}")
        done = self.network.uplink("access", "restrict", *place, *restrictions)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-1]

    def open(self, grant: str, not_after: float | None = None, deadlines: Deadlines | None = None) -> Bucket:
        file = self.makers.secret_file(credentials_text({"grant": grant}, not_after))
        return self.makers.open(self.settings_of(self.name, file), deadlines)


@pytest.fixture(params=NATIVE)
async def lab(request: pytest.FixtureRequest, storj: Network, gateway: Service, makers: Makers, tmp_path: Path) -> Lab:
    if request.param == "uplink":
        needs_library()
    owner = makers.open(s3_settings(makers, gateway))
    found = Lab(storj, makers, NATIVE[request.param], gateway.bucket, new_base(), owner)
    source = tmp_path / "first"
    source.write_bytes(BODY)
    await owner.put(found.key, source)
    return found


async def test_a_readers_grant(lab: Lab, tmp_path: Path) -> None:
    reader = lab.open(lab.grant("--readonly"))
    assert await reader.read(lab.key, limit=len(BODY)) == BODY
    assert await listed(reader, lab.base) == [lab.key]
    with pytest.raises(NotFound):
        await reader.head(f"{lab.base}absent")
    source = tmp_path / "source"
    source.write_bytes(b"mine")
    for work in (reader.put(f"{lab.base}new", source), reader.delete(lab.key)):
        with pytest.raises(Denied):
            await work
    await every_call_is_denied(reader, "elsewhere/object", tmp_path)
    with pytest.raises(Denied):
        await listed(reader)
    assert await listed(lab.owner, lab.base) == [lab.key]
    await reader.aclose()


async def test_a_writers_grant_replaces_nothing(lab: Lab, tmp_path: Path) -> None:
    writer = lab.open(lab.grant("--readonly=false", "--disallow-deletes"))
    source = tmp_path / "source"
    source.write_bytes(BODY)
    await writer.put(lab.key, source)
    source.write_bytes(b"x" * len(BODY))
    with pytest.raises(Conflict):
        await writer.put(lab.key, source)
    await writer.put(f"{lab.base}new", source)
    with pytest.raises(Denied):
        await writer.delete(lab.key)
    assert await lab.owner.read(lab.key, limit=len(BODY)) == BODY
    await writer.aclose()


async def test_who_may_not_look_replaces_nothing(lab: Lab, tmp_path: Path) -> None:
    """These credentials could delete: nothing but the look before keeps a put from replacing an object."""
    blind = lab.open(lab.grant("--readonly=false", "--disallow-reads", "--disallow-lists"))
    source = tmp_path / "source"
    source.write_bytes(b"x" * len(BODY))
    with pytest.raises(Denied):
        await blind.put(lab.key, source)
    assert await lab.owner.read(lab.key, limit=len(BODY)) == BODY
    await blind.aclose()


async def test_over_revoked_and_renewed(lab: Lab, tmp_path: Path) -> None:
    past = lab.open(lab.grant("--readonly", "--not-after", "2020-01-01T00:00:00Z"))
    await every_call_is_denied(past, lab.key, tmp_path)
    grant = lab.grant("--readonly")
    by_our_clock = lab.open(grant, not_after=1_600_000_000.0)
    with pytest.raises(GrantExpired, match="expired on 2020-09-13"):
        await listed(by_our_clock, lab.base)
    file = tmp_path / "grant"
    write_atomic(file, grant.encode(), mode=0o600)
    reader = lab.makers.open(lab.settings_of(lab.name, file))
    assert await listed(reader, lab.base) == [lab.key]
    done = lab.network.uplink("access", "revoke", grant)
    assert done.returncode == 0, done.stderr
    for said in await every_call_is_denied(reader, lab.key, tmp_path):
        assert grant not in said
        assert str(file) in said
    write_atomic(file, lab.grant("--readonly").encode(), mode=0o600)
    assert await listed(reader, lab.base) == [lab.key]
    for bucket in (past, by_our_clock, reader):
        await bucket.aclose()


async def put_at_last(bucket: Bucket, key: str, source: Path) -> None:
    """The gateway's answer to a refused upload is a 500 now and then, which the next attempt mends."""
    for _ in range(20):
        with contextlib.suppress(Unavailable):
            await bucket.put(key, source)
            return


async def test_a_gateway_whose_grant_is_narrow_and_then_revoked(
    storj: Network, gateway: Service, makers: Makers, tmp_path: Path
) -> None:
    owner, base, source = makers.open(s3_settings(makers, gateway)), new_base(), tmp_path / "source"
    key = f"{base}000001/object"
    source.write_bytes(BODY)
    await owner.put(key, source)
    done = storj.uplink("access", "restrict", "--prefix", f"sj://{gateway.bucket}/{base}", "--readonly")
    assert done.returncode == 0, done.stderr
    grant = done.stdout.split()[-1]
    with storj.gateway_before(grant) as found:
        service = Service(found.endpoint, gateway.bucket, found.access_key, found.secret_key, region=found.region)
        reader = makers.open(s3_settings(makers, service))
        assert await reader.read(key, limit=len(BODY)) == BODY
        assert await listed(reader, base) == [key]
        with pytest.raises(NotFound):
            await reader.head(f"{base}absent")
        big = tmp_path / "big"
        big.write_bytes(BODY * 300)
        for work in (
            put_at_last(reader, f"{base}new", source),
            put_at_last(reader, f"{base}big", big),
            reader.delete(key),
            listed(reader),
        ):
            with pytest.raises(Denied):
                await work
        await every_call_is_denied(reader, "elsewhere/object", tmp_path)
        done = storj.uplink("access", "revoke", grant)
        assert done.returncode == 0, done.stderr
        await every_call_is_denied(reader, key, tmp_path)
    assert await listed(owner, base) == [key]


async def test_a_missing_storj_bucket_is_not_made(lab: Lab, tmp_path: Path) -> None:
    file = lab.makers.secret_file(credentials_text({"grant": lab.network.grant}, None))
    bucket = lab.makers.open(lab.settings_of("nowhere", file))
    await nothing_is_made(bucket, tmp_path, "nowhere")
    assert "nowhere" not in lab.network.uplink("ls").stdout
    await bucket.aclose()


async def test_a_frozen_network_meets_the_deadline(lab: Lab, tmp_path: Path) -> None:
    """In the middle of an upload: nothing half is ever there, and the next call works."""
    source = tmp_path / "source"
    source.write_bytes(BODY * 200)
    bucket = lab.open(lab.network.grant, deadlines=Deadlines(1.5, slowest=1 << 40))
    key = f"{lab.base}frozen"
    assert await bucket.head(lab.key) == len(BODY)
    put = asyncio.create_task(bucket.put(key, source))
    await asyncio.sleep(0.2)
    with lab.network.frozen():
        outcomes = await asyncio.gather(put, bucket.head(lab.key), return_exceptions=True)
    assert isinstance(outcomes[1], StorageTimeout | Unavailable)
    assert outcomes[0] is None or isinstance(outcomes[0], StorageTimeout | Unavailable)
    assert set(await listed(lab.owner, lab.base)) <= {lab.key, key}
    await lab.open(lab.network.grant).put(key, source)
    assert await lab.owner.head(key) == len(BODY) * 200
    await bucket.aclose()
