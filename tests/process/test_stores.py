"""Daemons whose buckets are at an S3 server that fails, is away, or no longer takes the credentials."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import tomlkit
from federation import Federation

from fednode.node.protocol import facts as f
from fednode.storage.opening import open_bucket
from fednode.storage.settings import S3Settings
from fednode.types import Digest
from tests.storage.http_stub import Answer, Asked, Says, forward, stub
from tests.storage.services import Service, moto

pytestmark = pytest.mark.process

Make = Callable[..., Federation]
YEAR_S = 365 * 86_400.0


@pytest.fixture(scope="module")
def s3() -> Iterator[Service]:
    with moto() as service:
        yield service


def move_to_s3(whole: Federation, s3: Service, endpoint: Callable[[str, str], str]) -> None:
    """Settings and credentials of all parties for buckets at `s3`; `endpoint(reader, owner)` is where it is found."""
    for name in whole.names:
        bucket = bucket_of(whole, name)
        with urlopen(Request(f"{s3.endpoint}/{bucket}", method="PUT"), timeout=30) as answer:
            assert answer.status == 200
    for name in whole.names:
        path = whole.root / name / "fednode.toml"
        tables = tomlkit.parse(path.read_text())
        tables["storage"] |= table(whole, name, endpoint(name, name), "keys/bucket.s3")
        write_credentials(whole.root / name / "keys" / "bucket.s3", s3)
        for peer in tables["peers"]:
            tables["peers"][peer] = table(whole, peer, endpoint(name, peer), f"{peer}.s3")
            write_credentials(whole.root / name / f"{peer}.s3", s3)
        path.write_text(tomlkit.dumps(tables))


def bucket_of(whole: Federation, name: str) -> str:
    return f"{name}-{hashlib.sha256(str(whole.root).encode()).hexdigest()[:16]}"


def table(whole: Federation, owner: str, endpoint: str, credentials: str) -> dict[str, str]:
    return {"backend": "s3", "bucket": bucket_of(whole, owner), "endpoint": endpoint, "credentials": credentials}


def write_credentials(path: Path, s3: Service, seconds: float = YEAR_S) -> None:
    """In one move, as a user renews them; they end that many seconds from now."""
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(s3.text() + f"not_after = {until}\n")
    os.replace(fresh, path)


def check_complete(whole: Federation, s3: Service, reference: str) -> None:
    """The run ended well, and an independent program finds the same adapter in what the buckets hold."""
    asyncio.run(download(whole, s3))
    whole.check_complete(reference)


async def download(whole: Federation, s3: Service) -> None:
    for name in whole.names:
        bucket = open_bucket(S3Settings(bucket_of(whole, name), whole.root / name / "keys" / "bucket.s3", s3.endpoint))
        async for key, size in bucket.list(""):
            data = await bucket.read(key, limit=size)
            digest = Digest(hashlib.sha256(data).hexdigest())
            await bucket.get(key, whole.bucket(name) / key, size=size, sha256=digest)
        await bucket.aclose()


def faulty(behind: str, chance: random.Random, seen: Counter[str]) -> Says:
    """A fifth of all requests fail; of the failed ones half are carried out, and only the answer is lost."""
    lock = threading.Lock()
    faults = ["500", "503", "done, 500", "done, cut off", "done, silence"]

    def says(request: Asked) -> Answer | None:
        with lock:
            fault = chance.choice(faults) if chance.random() < 0.2 else ""
            if fault == "done, silence" and seen[fault]:  # one is enough: it costs a whole deadline
                fault = "done, cut off"
            seen[fault] += 1
        if fault == "500":
            return Answer(500)
        if fault == "503":
            return Answer(503)
        answer = forward(behind, request)
        if request.method == "PUT" and answer.status == 200:
            with lock:
                seen[f"PUT {request.path}"] += 1
        if fault == "done, 500":
            return Answer(500)
        if fault == "done, cut off":
            raise ConnectionAbortedError
        return None if fault == "done, silence" else answer

    return says


def test_a_fifth_of_all_requests_fail(copy: Make, s3: Service, reference: str) -> None:
    whole, seen = copy(), Counter[str]()
    with stub(faulty(s3.endpoint, random.Random(11), seen)) as server:
        move_to_s3(whole, s3, lambda *_: server.url)
        whole.serve()
        whole.finish()
    check_complete(whole, s3, reference)
    failed = sum(seen[fault] for fault in ("500", "503", "done, 500", "done, cut off", "done, silence"))
    assert failed > 0.1 * (failed + seen[""])
    written = {what: count for what, count in seen.items() if what.startswith("PUT")}
    assert written
    assert set(written.values()) == {1}, "an object was written twice"


USES_S3 = """
import asyncio, sys
from pathlib import Path
from fednode.node import cli
from fednode.storage.opening import open_bucket
from fednode.storage.settings import S3Settings

async def work(url, bucket, credentials):
    opened = open_bucket(S3Settings(bucket, Path(credentials), url))
    source = Path(credentials)
    await asyncio.gather(*(opened.put(f"end/{n}", source) for n in range(20)))
    assert len([entry async for entry in opened.list("end/")]) == 20
    await asyncio.gather(*(opened.delete(f"end/{n}") for n in range(20)))
    await opened.aclose()

def invoke(words):
    asyncio.run(work(*words))
    asyncio.run(work(*words))
    print("done")
    return 6

cli.invoke = invoke
cli.main()
"""


def test_a_process_that_used_s3_ends_with_its_own_status(s3: Service, tmp_path: Path) -> None:
    """No thread of a library is at work when the interpreter is taken apart; a second loop has its own connections."""
    credentials = tmp_path / "bucket.s3"
    write_credentials(credentials, s3)
    words = [s3.endpoint, s3.bucket, str(credentials)]
    for _ in range(6):
        done = subprocess.run([sys.executable, "-P", "-c", USES_S3, *words], capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (6, b"done\n", b"")


def look(whole: Federation, party: str) -> dict[tuple[str, str], str]:
    """`bucket check`: (whose bucket, what was tried) to the verdict."""
    status = whole.commands["parties"][party]["status"]
    words = [each for word in status for each in (("bucket", "check") if word == "status" else (word,))]
    answer = whole.over(whole.start(f"{party}-check", words)).json
    return {(each["party"], each["what"]): each["verdict"] for each in answer["findings"]}


@pytest.mark.parametrize("knows", [True, False])
def test_buckets_are_looked_at_before_the_run(copy: Make, s3: Service, knows: bool) -> None:
    """moto lets everybody do everything, and knows If-None-Match; not every service does."""
    whole = copy()

    def says(request: Asked) -> Answer | None:
        kept = {name: value for name, value in request.headers.items() if knows or name != "if-none-match"}
        return forward(s3.endpoint, replace(request, headers=kept))

    with stub(says) as server:
        move_to_s3(whole, s3, lambda *_: server.url)
        look(whole, "bob")
        found = look(whole, "alice")
    own = {what: verdict for (party, what), verdict in found.items() if party == "alice"}
    replaced = "ok" if knows else "warning"
    assert own == {"expiry": "ok", "create": "ok", "list": "ok", "delete": "warning", "replace": replaced}
    bobs = {what: verdict for (party, what), verdict in found.items() if party == "bob"}
    assert bobs == {"expiry": "ok", "list": "ok", "read": "ok", "write": "failed"}


def test_what_could_not_be_tried_is_not_called_refused(copy: Make, s3: Service) -> None:
    """Some services refuse to say that an object is absent to whoever may not list; a put looks first."""
    whole = copy()

    def says(request: Asked) -> Answer | None:
        hidden = "must-not-write" in request.path and request.method in ("HEAD", "GET")
        return Answer(403) if hidden else forward(s3.endpoint, request)

    with stub(says) as server:
        move_to_s3(whole, s3, lambda *_: server.url)
        assert look(whole, "alice")["bob", "write"] == "warning"


def test_a_peers_bucket_is_away_for_a_while(copy: Make, s3: Service, reference: str) -> None:
    whole, away, refused = copy(), threading.Event(), Counter[str]()

    def says(request: Asked) -> Answer | None:
        if away.is_set() and f"/{bucket_of(whole, 'bob')}/" in request.path:
            refused["bob"] += 1
            return Answer(503)
        return forward(s3.endpoint, request)

    with stub(says) as server:
        move_to_s3(whole, s3, lambda reader, owner: server.url if reader != owner else s3.endpoint)
        whole.serve()
        away.set()
        daemons = [whole.party(name, "run") for name in whole.names]
        whole.wait(lambda: refused["bob"] >= 10, "bob's bucket is asked for in vain, again and again")
        status = whole.command("alice", "status").json
        assert (status["round"], status["waiting_for"]) == (1, ["bob"])
        assert not any(daemon.over for daemon in daemons)
        away.clear()
        whole.succeed(daemons)
    check_complete(whole, s3, reference)


def test_credentials_that_end_are_announced_and_replaced_while_the_daemons_run(
    copy: Make, s3: Service, reference: str
) -> None:
    whole = copy()
    move_to_s3(whole, s3, lambda *_: s3.endpoint)
    bobs, carols = whole.root / "alice" / "bob.s3", whole.root / "carol" / "keys" / "bucket.s3"
    write_credentials(bobs, s3, -86_400)
    write_credentials(carols, s3, 3 * 86_400)
    whole.serve()
    daemons = {name: whole.party(name, "run") for name in whole.names}
    whole.wait(lambda: whole.has("bob", f.Fetched, party="alice"), "bob is at fetching")
    status = whole.command("alice", "status").json
    assert {grant["party"] for grant in status["grants"]} == {"alice", "bob", "carol"}
    assert status["grants"][0]["party"] == "bob"
    assert status["grants"][0]["file"] == str(bobs)
    whole.wait(lambda: "expired" in daemons["alice"].talk, "alice says whose credentials ended")
    assert not any(daemon.over for daemon in daemons.values())
    write_credentials(bobs, s3)
    whole.succeed(list(daemons.values()))
    check_complete(whole, s3, reference)
    words = json.dumps([daemon.talk for daemon in daemons.values()])
    assert "the credentials for the bucket of carol end on" in daemons["carol"].talk
    assert s3.secret_access_key not in words
    assert s3.access_key_id not in words
