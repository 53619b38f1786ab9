"""Errors of the operating system as the storage errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Generator

from fednode.errors import Denied, QuotaExceeded, StorageError, Unavailable


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
        if error.errno in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.EMFILE, errno.ENFILE):
            raise Unavailable(message) from error
        raise StorageError(message) from error
