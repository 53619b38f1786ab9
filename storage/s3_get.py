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

from fednode.errors import ConfigError, Denied
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
) -> AsyncGenerator[httpx.Response]:
    """The answer to a GET of a signed address, its body still to be read (by `aiter_raw`); closed afterwards.

    Anything but 200 raises as `explained_status`, also with `refused`; Unavailable without connection, or where it
    breaks off inside the block.
    """
    try:
        async with (
            httpx.AsyncClient(verify=context, timeout=_TIMEOUT, follow_redirects=False) as client,
            client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status_code != 200:
                raise explained_status(str(answer.status_code), await _beginning(answer), where, refused)
            yield answer
    except (httpx.HTTPError, ssl.SSLError) as error:
        # From None: it knows the signed address.
        raise no_connection(where, str(error)) from None


def length(answer: httpx.Response) -> int | None:
    """Bytes that the body is said to have."""
    said = answer.headers.get("content-length", "")
    return int(said) if re.fullmatch(r"[0-9]{1,18}", said) else None


async def _beginning(answer: httpx.Response) -> str:
    data = b""
    async for part in answer.aiter_raw(_MOST_ERROR):
        data += part
        if len(data) >= _MOST_ERROR:
            break
    return data[:_MOST_ERROR].decode(errors="replace")
