"""The error tree. Every leaf has a stable code and an exit status; every message says what, where and expected.

FednodeError                    1
  UsageError                    2   wrong options
  ConfigError                   3   peers.toml, fednode.toml, agreement, home
    RunMismatch                 3   another agreement, head or --epochs than this home is bound to
  KeyFileError                  4   keys, permissions, funds
    FundsError                  4
  HeadError                     5   the head or the hydra-node says no
    HeadUnavailable             5   (retried)
  StorageError                  6
    NotFound Denied (GrantExpired) Conflict Integrity Throttled QuotaExceeded Unavailable StorageTimeout
  TrainingError                 7
  PeerFault                     8   a peer broke the protocol; evidence was written
    ObjectRefused               8
  Diverged                      8
  JournalError                  9   the journal cannot be read or written
  AlreadyRunning               75
  Stopped                     130
"""

from __future__ import annotations

from typing import ClassVar


class FednodeError(Exception):
    """Base of everything that a user may see instead of a traceback.

    `message` says what happened, where, and what was expected; `hint` is the command or edit that mends it.
    Neither ever holds a secret.
    """

    code: ClassVar[str] = "failed"
    exit_status: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(FednodeError):
    code = "usage"
    exit_status = 2


class ConfigError(FednodeError):
    code = "config"
    exit_status = 3


class RunMismatch(ConfigError):
    code = "run-mismatch"


class KeyFileError(FednodeError):
    code = "keys"
    exit_status = 4


class FundsError(KeyFileError):
    code = "funds"


class HeadError(FednodeError):
    code = "head"
    exit_status = 5


class HeadUnavailable(HeadError):
    code = "head-unavailable"
    retryable = True


class StorageError(FednodeError):
    code = "storage"
    exit_status = 6


class NotFound(StorageError):
    code = "storage-not-found"
    retryable = True


class Denied(StorageError):
    code = "storage-denied"


class GrantExpired(Denied):
    """By our own clock the credentials are over. New ones may be put in their place at any time."""

    code = "storage-grant-expired"
    retryable = True


class Conflict(StorageError):
    """Other bytes stand where ours should be. Never overwritten."""

    code = "storage-conflict"


class Integrity(StorageError):
    """The stored bytes are not the expected ones. `kind` is `size` or `digest`; `kept` is where the bytes lie."""

    code = "storage-integrity"

    def __init__(self, message: str, *, kind: str, kept: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.kept = kept


class Throttled(StorageError):
    code = "storage-throttled"
    retryable = True


class QuotaExceeded(StorageError):
    code = "storage-quota"


class Unavailable(StorageError):
    code = "storage-unavailable"
    retryable = True


class StorageTimeout(StorageError):
    code = "storage-timeout"
    retryable = True


class TrainingError(FednodeError):
    code = "training"
    exit_status = 7


class PeerFault(FednodeError):
    code = "peer-fault"
    exit_status = 8


class ObjectRefused(PeerFault):
    """An object's bytes break protocol.md section 5. `rule` is a stable word: size, digest, header, schema, codec,
    run, round, base, party, phase, code, padding, scale, index."""

    code = "object-refused"

    def __init__(self, message: str, *, rule: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rule = rule


class Diverged(FednodeError):
    code = "diverged"
    exit_status = 8


class JournalError(FednodeError):
    code = "journal"
    exit_status = 9


class AlreadyRunning(FednodeError):
    code = "already-running"
    exit_status = 75


class Stopped(FednodeError):
    code = "stopped"
    exit_status = 130
