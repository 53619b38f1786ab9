"""The look for secrets sees them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import canary
import pytest

from fednode.hydra.keys import load_signing_key, write_pair


@pytest.fixture
def secrets_stay() -> None:
    """Here they do not."""


@pytest.mark.parametrize("form", [bytes, lambda s: s.hex().encode(), base64.b64encode], ids=["raw", "hex", "base64"])
def test_a_secret_in_a_log_is_seen(tmp_path: Path, form: Callable[[bytes], bytes]) -> None:
    write_pair(tmp_path / "alice" / "keys", "funds", "funds")
    assert canary.shown(tmp_path) == []
    secret = next((tmp_path / "alice" / "keys").glob("*.sk"))
    assert load_signing_key(secret)
    raw = canary.canaries(tmp_path)[0]
    log = tmp_path / "logs" / "alice.log"
    log.parent.mkdir()
    log.write_bytes(b"12:00:00 alice: " + form(raw) + b"\n")
    assert canary.shown(tmp_path) == [str(log)]
