"""TLS to the own node: a private authority, refusals in words, and no plain text to another machine."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.server import serve

from fednode import reports
from fednode.errors import ConfigError, HeadError
from fednode.hydra.head import HydraHead
from fednode.hydra.probe import probe
from fednode.hydra.recovery import pending_deposits

from . import node as model
from .node import funded
from .test_client import FakeServer, collect, is_snapshot, is_synced


class Authority:
    """A private one, with one certificate for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._certify("the authority", self.key.public_key(), authority=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        server = ec.generate_private_key(ec.SECP256R1())
        self.chain = folder / "server.pem"
        secret = server.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = self._certify("the node", server.public_key(), authority=False)
        self.chain.write_bytes(secret + public.public_bytes(serialization.Encoding.PEM))

    def _certify(self, name: str, key: Any, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the authority")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
            builder = builder.add_extension(here, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def server_side(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain)
        return context


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def another(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "another")


@asynccontextmanager
async def secured(authority: Authority) -> Any:
    server = FakeServer(funded())
    plain = server.node.get
    more: dict[str, object] = {"/commits": [], "/protocol-parameters": {"txFeeFixed": 0}}
    server.node.get = lambda path: (200, more[path]) if path in more else plain(path)  # type: ignore[method-assign]
    listening = serve(server.session, "127.0.0.1", 0, process_request=server.http, ssl=authority.server_side())
    async with listening as running:
        server.url = f"127.0.0.1:{running.sockets[0].getsockname()[1]}"
        yield server
        running.close(close_connections=True)


@pytest.mark.parametrize("scheme", ["https", "wss"])
async def test_a_private_authority(ours: Authority, scheme: str) -> None:
    """Everything that speaks to the node: the connection with its HTTP side, the probe, the deposits."""
    async with secured(ours) as server:
        settings = model.settings(f"{scheme}://{server.url}", ca_file=ours.file)
        head = HydraHead(settings)
        async with aclosing(head.reports(0)) as found:
            await collect(found, is_synced)
            server.live.put_nowait(server.node.round(0))
            await collect(found, is_snapshot(4))
        await head.aclose()
        assert (await probe(settings)).findings[0].problem == ""
        assert await pending_deposits(settings) == ()


@pytest.mark.parametrize("which", ["another authority", "the machine's authorities"])
async def test_a_certificate_that_nobody_vouches_for_ends_with_words(
    ours: Authority, another: Authority, which: str
) -> None:
    async with secured(ours) as server:
        ca_file = another.file if which == "another authority" else None
        settings = model.settings(f"https://{server.url}", ca_file=ca_file)
        head = HydraHead(settings)
        with pytest.raises(HeadError, match="certificate is not trusted") as caught:
            await collect(head.reports(0), is_synced)
        assert "ca_file" in caught.value.hint
        assert not caught.value.retryable
        with pytest.raises(HeadError, match="certificate is not trusted"):
            await probe(settings)
        await head.aclose()
        assert server.queries == [], "nothing was said to it"


async def test_another_host_name_is_refused(ours: Authority) -> None:
    async with secured(ours) as server:
        head = HydraHead(model.settings(f"https://localhost:{server.url.split(':')[1]}", ca_file=ours.file))
        with pytest.raises(HeadError, match="certificate is not trusted"):
            await collect(head.reports(0), is_synced)
        await head.aclose()


async def test_a_plain_client_at_a_tls_port_waits_with_words(ours: Authority) -> None:
    async with secured(ours) as server:
        head = HydraHead(model.settings(f"http://{server.url}"))
        async with aclosing(head.reports(0)) as found:
            first = await anext(found)
        assert isinstance(first, reports.HeadUnreachable)
        assert server.url in first.reason
        await head.aclose()


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"])
def test_a_file_that_holds_no_certificate(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        HydraHead(model.settings("https://127.0.0.1:1", ca_file=path))
    assert str(path) in caught.value.message
    assert "expected a PEM file" in caught.value.message


def test_an_authority_for_a_plain_connection_is_a_mistake(ours: Authority) -> None:
    with pytest.raises(ConfigError, match="is plain text, expected https"):
        HydraHead(model.settings("http://127.0.0.1:1", ca_file=ours.file))


@pytest.mark.parametrize("url", ["http://10.0.0.1:4001", "ws://node.example:4001", "http://[2001:db8::1]:4001"])
async def test_no_plain_text_to_another_machine_unless_told_so(url: str) -> None:
    with pytest.raises(ConfigError, match="plain text to another machine"):
        HydraHead(model.settings(url))
    for use in (probe, pending_deposits):
        with pytest.raises(ConfigError, match="plain text to another machine"):
            await use(model.settings(url))
    await HydraHead(model.settings(url, allow_plain=True)).aclose()
