"""GET of an object from an S3 store that may be hostile: nothing of an answer is held but what was asked for.

obstore's client reserves memory for whatever length the answer to a GET claims where it reads it whole (every refusal),
and ends the process where there is not as much. It signs the address; the answer is read here.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Final

import httpx

from fednode.errors import ConfigError, Denied, Unavailable
from fednode.storage.s3_errors import explained_status, no_connection

_TIMEOUT: Final = httpx.Timeout(None, connect=10.0)
"""Deadlines are RemoteBucket's, which knows the size."""
_MOST_ERROR: Final = 64 << 10
"""Bytes of a refusal that are read: its code is among the first."""


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """The authorities of this machine, and the one in `ca_file` (PEM). ConfigError where that holds none."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError:
            raise ConfigError(f"ca_file {ca_file}: expected a certificate in PEM form") from None
        except OSError as error:
            raise ConfigError(f"ca_file {ca_file} cannot be read: {error.strerror}") from None
    return context


@contextlib.asynccontextmanager
async def answered(
    url: str, context: ssl.SSLContext, where: str, refused: Callable[[str], Denied]
) -> AsyncGenerator[tuple[httpx.Response, int]]:
    """The answer to a GET of a signed address, its body still to be read (by `aiter_raw`), and how long that is.

    Anything but 200 raises as `explained_status`, also with `refused`; Unavailable without connection, or where it
    breaks off inside the block. A length must be told: without one a body that broke off would look whole.
    """
    try:
        async with (
            _client(context) as client,
            client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status_code != 200:
                raise explained_status(str(answer.status_code), await _beginning(answer), where, refused)
            said = answer.headers.get("content-length", "")
            if not re.fullmatch(r"[0-9]{1,18}", said):
                raise Unavailable(f"{where}: the store does not say how long it is", hint="is a proxy in between?")
            yield answer, int(said)
    except (httpx.HTTPError, ssl.SSLError) as error:
        # From None: it knows the signed address.
        raise no_connection(where, str(error)) from None


def _client(context: ssl.SSLContext) -> httpx.AsyncClient:
    """ConfigError where the environment names a proxy of a kind that cannot be used."""
    try:
        return httpx.AsyncClient(verify=context, timeout=_TIMEOUT, follow_redirects=False)
    except (ValueError, ImportError):  # from None: the address of a proxy may hold a password
        raise ConfigError(
            "the proxy that ALL_PROXY, HTTPS_PROXY or HTTP_PROXY names cannot be used, expected http://HOST:PORT",
            hint="change the variable, or except the store with NO_PROXY=HOST",
        ) from None


async def _beginning(answer: httpx.Response) -> str:
    data = b""
    async for part in answer.aiter_raw(_MOST_ERROR):
        data += part
        if len(data) >= _MOST_ERROR:
            break
    return data[:_MOST_ERROR].decode(errors="replace")
