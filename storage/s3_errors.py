"""What an S3 store answered, as our errors.

Nothing of an answer is shown but its status and its error code (one word of letters): a body, address or header may
hold a signature or a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Final

from fednode.errors import Conflict, Denied, NotFound, QuotaExceeded, StorageError, Throttled, Unavailable

_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")

_QUOTA: Final = frozenset({"QuotaExceeded", "ServiceQuotaExceeded", "StorageLimitExceeded", "XMinioStorageFull"})
_SLOW: Final = frozenset({"SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "RequestLimitExceeded"})
_SLOW_MORE: Final = frozenset({"Throttling", "ThrottlingException", "BandwidthLimitExceeded"})
_DENIED: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
_DENIED_MORE: Final = frozenset({"AccessDenied", "AuthorizationHeaderMalformed", "TokenRefreshRequired"})


_BROKEN_OFF: Final = frozenset({"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"})
"""Said with status 400, and yet another attempt may succeed."""
_LIMIT: Final = "the account's limit is reached: prune old runs, or raise the limit"


class Of(Enum):
    """What a call was about: a 404 says that it is not there."""

    OBJECT = "an object that may be there"
    NEW = "an object that is to be created"
    BUCKET = "the bucket"


def refusal(status: int, body: str, where: str, refused: Callable[[str], Denied], of: Of) -> StorageError:
    """The error of ours for a call about `where` that was answered by `status` and a `body` that begins so.

    `refused` makes the Denied.
    """
    match = _CODE.search(body)
    code = match.group(1) if match else ""
    shown = f"{where}: the store answered {status}{f' ({code})' if code else ''}"
    named = _by_code(code, shown, where, refused)
    if named is not None:
        return named
    if status in (409, 412) and of is Of.NEW:
        if code in ("ConditionalRequestConflict", "OperationAborted"):
            return Unavailable(f"{shown}: another write to this key is under way")
        return Conflict(f"{where}: the store has an object there already")
    if status == 404:
        return NotFound(f"{where}: there is no such object") if of is Of.OBJECT else no_bucket(where)
    if status in (401, 403):
        return refused(where)
    return _by_status(status, shown, where)


def no_connection(where: str, text: str) -> Unavailable:
    """The error for a call that was not answered, or not to the end; `text` is a library's, and not shown."""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return Unavailable(
            f"{where}: the store's certificate is not from an authority that this machine trusts",
            hint="name your own authority's certificate as ca_file, or look who answers at this endpoint",
        )
    return Unavailable(f"{where}: no connection to the store, or it broke off", hint="is the endpoint right?")


def no_bucket(where: str) -> Unavailable:
    """The error for a bucket that the store does not have."""
    return Unavailable(f"{where}: the store has no such bucket", hint="its owner makes it, on the provider's pages")


def _by_code(code: str, shown: str, where: str, refused: Callable[[str], Denied]) -> StorageError | None:
    if code in _QUOTA:
        return QuotaExceeded(shown, hint=_LIMIT)
    if code in _SLOW or code in _SLOW_MORE:
        return Throttled(shown)
    if code in _BROKEN_OFF:
        return Unavailable(shown)
    if code == "NoSuchBucket":
        return no_bucket(where)
    if code in _DENIED or code in _DENIED_MORE:
        return refused(where)
    if code == "RequestTimeTooSkewed":
        return Denied(shown, hint="the clock of this machine is wrong: set it (for example with chrony)")
    return None


def _by_status(status: int, shown: str, where: str) -> StorageError:
    if status == 429:
        return Throttled(shown)
    if status == 507:
        return QuotaExceeded(shown, hint=_LIMIT)
    if 300 <= status < 400:
        return StorageError(f"{where}: the store sends us elsewhere", hint="look at endpoint and region")
    return Unavailable(shown) if status in (408, 425) or status >= 500 else StorageError(shown)
