"""What an S3 store answered, as our errors.

Nothing of an answer is shown but its status and its error code (one word of letters): a body, address or header may
hold a signature or a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from fednode.errors import Conflict, Denied, NotFound, QuotaExceeded, StorageError, Throttled, Unavailable

_STATUS: Final = re.compile(r"non-2xx status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_CONNECTION: Final = re.compile(r"kind: (Connect|Timeout|Request|Interrupted|Decode|Body)\b|error sending request")
_CERTIFICATE: Final = re.compile(
    r"invalid peer certificate|UnknownIssuer|CertificateError|NotValidForName|CERTIFICATE_VERIFY_FAILED"
)

_QUOTA: Final = frozenset({"QuotaExceeded", "ServiceQuotaExceeded", "StorageLimitExceeded", "XMinioStorageFull"})
_SLOW: Final = frozenset({"SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "RequestLimitExceeded"})
_SLOW_MORE: Final = frozenset({"Throttling", "ThrottlingException", "BandwidthLimitExceeded"})
_DENIED: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
_DENIED_MORE: Final = frozenset({"AccessDenied", "AuthorizationHeaderMalformed", "TokenRefreshRequired"})


def explained_answer(error: Exception, where: str, refused: Callable[[str], Denied], *, written: bool) -> StorageError:
    """The error of ours for one of obstore about `where`.

    `refused` makes the Denied; `written`: the call was to create an object, so "exists already" is its answer.
    """
    text = str(error)
    status, code = _found(_STATUS, text), _found(_CODE, text)
    shown = _shown(where, status, code)
    named = _by_code(code, shown, where, refused)
    if named is not None:
        return named
    if written and isinstance(error, AlreadyExistsError | PreconditionError):
        if code in ("ConditionalRequestConflict", "OperationAborted"):
            return Unavailable(f"{shown}: another write to this key is under way")
        return Conflict(f"{where}: the store has an object there already")
    if isinstance(error, FileNotFoundError):
        # A PUT to a missing key is no 404 of the key.
        return no_bucket(where) if written else NotFound(f"{where}: there is no such object")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in ("401", "403"):
        return refused(where)
    return _by_status(status, shown, text, where)


def explained_status(status: str, body: str, where: str, refused: Callable[[str], Denied]) -> StorageError:
    """The error of ours for a GET of an object about `where`, answered by `status` and a `body` that begins so."""
    code = _found(_CODE, body)
    shown = _shown(where, status, code)
    named = _by_code(code, shown, where, refused)
    if named is not None:
        return named
    if status == "404":
        return NotFound(f"{where}: there is no such object")
    if status in ("401", "403"):
        return refused(where)
    return _elsewhere(where) if status.startswith("3") else _by_status(status, shown, "", where)


def no_connection(where: str, text: str) -> Unavailable:
    """The error for a call that was not answered, or not to the end; `text` is a library's, and not shown."""
    if _CERTIFICATE.search(text):
        return Unavailable(
            f"{where}: the store's certificate is not from an authority that this machine trusts",
            hint="name your own authority's certificate as ca_file, or look who answers at this endpoint",
        )
    return Unavailable(f"{where}: no connection to the store, or it broke off", hint="is the endpoint right?")


def no_bucket(where: str) -> Unavailable:
    """The error for a bucket that the store does not have."""
    return Unavailable(f"{where}: the store has no such bucket", hint="make it with `fednode bucket create`")


def _by_code(code: str, shown: str, where: str, refused: Callable[[str], Denied]) -> StorageError | None:
    if code in _QUOTA:
        return QuotaExceeded(shown, hint="the account's limit is reached: prune old runs, or raise the limit")
    if code in _SLOW or code in _SLOW_MORE:
        return Throttled(shown)
    if code == "NoSuchBucket":
        return no_bucket(where)
    if code in _DENIED or code in _DENIED_MORE:
        return refused(where)
    if code == "RequestTimeTooSkewed":
        return Denied(shown, hint="the clock of this machine is wrong: set it (for example with chrony)")
    return None


def _by_status(status: str, shown: str, text: str, where: str) -> StorageError:
    if status == "429":
        return Throttled(shown)
    if status == "507":
        return QuotaExceeded(shown, hint="the account's limit is reached: prune old runs, or raise the limit")
    if status == "404":  # of a listing: keys have been dealt with
        return no_bucket(where)
    if status in ("408", "425") or status.startswith("5"):
        return Unavailable(shown)
    if status:
        return StorageError(shown)
    if "Received redirect" in text:
        return _elsewhere(where)
    if _CERTIFICATE.search(text) or _CONNECTION.search(text):
        return no_connection(where, text)
    return StorageError(f"{where}: the store's answer is not that of an S3", hint="is the endpoint right?")


def _elsewhere(where: str) -> StorageError:
    return StorageError(f"{where}: the store sends us elsewhere", hint="look at endpoint and region")


def _shown(where: str, status: str, code: str) -> str:
    return f"{where}: the store answered {status or 'with an error'}{f' ({code})' if code else ''}"


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match.group(1) if match else ""
