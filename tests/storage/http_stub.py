"""An HTTP server of the tests that answers what a function says, with or without TLS, and remembers its requests."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Asked:
    """A request as it came over the wire; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    more: Callable[[Callable[[bytes], object]], None] | None = None
    """Writes on after `body`; the Content-Length is then among `headers`."""


Says = Callable[[Asked], Answer | None]
"""None: never answer."""


@dataclass
class Stub:
    url: str
    asked: list[Asked]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what these tests are about."""


@contextlib.contextmanager
def stub(says: Says, tls: tuple[Path, Path] | None = None) -> Generator[Stub]:
    """`tls`: certificate and key."""
    asked: list[Asked] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def one(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            request = Asked(self.command, self.path, headers, body)
            asked.append(request)
            answer = says(request)
            if answer is None:
                over.wait()
                self.close_connection = True
                return
            self.send_response(answer.status)
            size = {} if answer.more else {"Content-Length": str(len(answer.body))}
            for name, value in {**size, **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
                if answer.more:
                    answer.more(self.wfile.write)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = one  # noqa: N815  # names that http.server calls

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal."""

    server = _Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Stub(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}", asked)
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def forward(url: str, request: Asked) -> Answer:
    """What a real server behind this one says to the same request. (It must not check signatures.)"""
    skipped = ("host", "connection", "content-length", "accept-encoding")
    headers = {name: value for name, value in request.headers.items() if name not in skipped}
    headers.setdefault("content-type", "application/octet-stream")  # urllib's own would be that of a form
    body = request.body if request.method == "PUT" else None
    try:
        with urlopen(Request(url + request.path, body, headers, method=request.method), timeout=30) as found:
            return _passed_on(found.status, found.read(), dict(found.headers))
    except HTTPError as error:
        with error:
            return _passed_on(error.code, error.read(), dict(error.headers))


def _passed_on(status: int, body: bytes, headers: dict[str, str]) -> Answer:
    kept = {name: value for name, value in headers.items() if name.lower() not in ("connection", "date", "server")}
    return Answer(status, body, kept, more=lambda _: None)


def certificates(folder: Path) -> tuple[Path, tuple[Path, Path]]:
    """An authority's certificate, and certificate and key that it gave to 127.0.0.1."""
    now = datetime.datetime.now(datetime.UTC)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests' own authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])

    def made(name: x509.Name, public: ec.EllipticCurvePublicKey, *, is_authority: bool) -> Path:
        builder = x509.CertificateBuilder(issuer, name, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        if not is_authority:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        path = folder / ("authority.pem" if is_authority else "server.pem")
        certificate = builder.sign(authority_key, hashes.SHA256())
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path

    key_file = folder / "server.key"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    authority = made(issuer, authority_key.public_key(), is_authority=True)
    return authority, (made(subject, key.public_key(), is_authority=False), key_file)
