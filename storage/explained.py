"""Errors of the operating system as the storage errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Generator
from typing import Final

from fednode.errors import Denied, QuotaExceeded, StorageError, Unavailable

_PASSING: Final = frozenset(
    {
        errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN,
        errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM,
    }
)  # fmt: skip
"""What a mount from another machine says, or this machine under load: another attempt may succeed."""


@contextlib.contextmanager
def explained(where: str) -> Generator[None, None, None]:
    """Turn an OSError into Denied, QuotaExceeded, Unavailable or StorageError about `where`."""
    try:
        yield
    except OSError as error:
        message = f"{where}: {error.strerror or error}"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Denied(message, hint="look at the permissions of the folder") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise QuotaExceeded(message, hint="free some disk space") from error
        if error.errno in _PASSING:
            raise Unavailable(message) from error
        raise StorageError(message) from error
