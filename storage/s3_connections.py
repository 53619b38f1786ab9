"""Connections to an S3 store: kept between calls, directly or by the proxy of the environment.

They are httpcore's (httpx's own transport), taken without httpx: its streams can be given another ear. A store that
refuses an upload says so while we still send, and then closes; whoever listens only afterwards finds the answer gone.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

import httpcore
from httpcore import SOCKET_OPTION

from fednode.errors import ConfigError

_WATCHED: Final = 32 << 10
"""Shorter writes are over before an answer could come."""
_READ: Final = 64 << 10
_ANSWERED: Final = "the other side answered before everything was sent"
_IDLE: Final = 8
"""Connections that are kept."""
_IDLE_S: Final = 15.0


def new_pool(context: ssl.SSLContext, scheme: str, host: str, port: int) -> httpcore.AsyncConnectionPool:
    """For calls to one place, from the running loop alone.

    ConfigError where the environment names a proxy of a kind that cannot be used.
    """
    proxy = proxy_for(scheme, host, port, getproxies())
    if proxy is None:
        return httpcore.AsyncConnectionPool(
            ssl_context=context, max_connections=None, max_keepalive_connections=_IDLE, keepalive_expiry=_IDLE_S,
            network_backend=_Backend(),
        )  # fmt: skip
    try:
        found = urlsplit(proxy)
        if found.scheme not in ("http", "https") or not found.hostname:
            raise ValueError
        standard = 443 if found.scheme == "https" else 80
        url = httpcore.URL(scheme=found.scheme, host=found.hostname, port=found.port or standard, target="/")
    except ValueError:  # from None: the address of a proxy may hold a password
        raise ConfigError(
            "the proxy that ALL_PROXY, HTTPS_PROXY or HTTP_PROXY names cannot be used, expected http://HOST:PORT",
            hint="change the variable, or except the store with NO_PROXY=HOST",
        ) from None
    who = (unquote(found.username or "").encode(), unquote(found.password or "").encode())
    return httpcore.AsyncHTTPProxy(
        url, proxy_auth=who if any(who) else None, ssl_context=context, max_connections=None,
        max_keepalive_connections=_IDLE, keepalive_expiry=_IDLE_S, network_backend=_Backend(),
    )  # fmt: skip


def proxy_for(scheme: str, host: str, port: int, said: dict[str, str]) -> str | None:
    """The address of the proxy to use, by what `urllib.request.getproxies` found; None: none.

    NO_PROXY holds names (with all below them; `.NAME`: those alone) and addresses, each also as HOST:PORT, or `*`.
    """
    host = host.lower()
    for entry in said.get("no", "").lower().split(","):
        name = entry.strip().rpartition("://")[2]
        if name in ("*", host, f"{host}:{port}", f"[{host}]", f"[{host}]:{port}"):
            return None
        name = name.removesuffix(f":{port}").removeprefix("*")
        if name and host.endswith(name if name.startswith(".") else f".{name}"):
            return None
    proxy = said.get(scheme) or said.get("all")
    if not proxy:
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class _Backend(httpcore.AsyncNetworkBackend):
    """As httpcore's own, with streams that listen while they send."""

    def __init__(self) -> None:
        self._inner = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature, here and below
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """Stops sending when the other side answers, or hangs up: `write` raises WriteError, and `read` has the answer.

    httpcore reads on after a WriteError; it does for connections that were closed while it sent.
    """

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._early: bytes | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        if self._early is None:
            return await self._inner.read(max_bytes, timeout)
        data, self._early = self._early[:max_bytes], self._early[max_bytes:] or None
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        if self._early is not None and not _goes_on(self._early):
            raise httpcore.WriteError(_ANSWERED)
        if len(buffer) < _WATCHED or self._early is not None:
            await self._inner.write(buffer, timeout)
            return
        reading = asyncio.ensure_future(self._inner.read(_READ))
        writing = asyncio.ensure_future(self._inner.write(buffer, timeout))
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            if not _answered(reading) or _goes_on(reading.result()):
                await asyncio.wait((writing,))
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.wait((reading, writing))
            if _answered(reading):
                self._early = reading.result()
        if writing.cancelled():
            raise httpcore.WriteError(_ANSWERED)
        writing.result()

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return True if info == "is_readable" and self._early is not None else self._inner.get_extra_info(info)


def _answered(reading: asyncio.Future[bytes]) -> bool:
    return reading.done() and not reading.cancelled() and reading.exception() is None


def _goes_on(data: bytes) -> bool:
    """Whether this is the beginning of an interim answer (`100 Continue`), after which the sender sends on."""
    return data[:5] == b"HTTP/" and data[8:10] == b" 1"
