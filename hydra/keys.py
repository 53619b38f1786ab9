"""Ed25519 key files of a party: cardano text envelopes (docs: cardano-cli and hydra-node key formats).

A secret lives in one `SigningKey` and in one file with mode 0600; it is in no repr, message or log.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final, Literal, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fednode.durable import make_folders, write_atomic
from fednode.errors import KeyFileError
from fednode.secretfile import check_secret_folder, read_secret

KeyKind = Literal["hydra", "fuel", "funds"]

_SECRET_TYPES: Final = {
    "hydra": "HydraSigningKey_ed25519",
    "fuel": "PaymentSigningKeyShelley_ed25519",
    "funds": "PaymentSigningKeyShelley_ed25519",
}
_PUBLIC_TYPES: Final = {
    "hydra": "HydraVerificationKey_ed25519",
    "fuel": "PaymentVerificationKeyShelley_ed25519",
    "funds": "PaymentVerificationKeyShelley_ed25519",
}
_CBOR_PREFIX: Final = "5820"
"""CBOR head of a 32-byte byte string."""
_MAX_FILE: Final = 4096


class SigningKey:
    """A secret Ed25519 key. Shows only its verification key."""

    __slots__ = ("_key", "vkey")

    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 bytes. Raises KeyFileError for another length."""
        if len(seed) != 32:
            raise KeyFileError(f"a signing key has 32 bytes, found {len(seed)}")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.vkey: str = self._key.public_key().public_bytes_raw().hex()
        """Verification key, raw 32 bytes in hex."""

    def sign(self, message: bytes) -> bytes:
        """64-byte Ed25519 signature (RFC 8032)."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(vkey={self.vkey})"

    def __reduce__(self) -> str:
        raise TypeError("a SigningKey is never serialised")


def write_pair(folder: Path, stem: str, kind: KeyKind) -> SigningKey:
    """Generate a key pair and write `<stem>.sk` (0600) and `<stem>.vk` into `folder` (created 0700).

    The secret is durable first: where only it exists (the process was killed then), its `.vk` is written. Nothing is
    overwritten: KeyFileError where `.vk` exists, and where others may enter `folder`.
    """
    make_folders(folder, mode=0o700)
    check_secret_folder(folder)
    secret, public = folder / f"{stem}.sk", folder / f"{stem}.vk"
    if public.exists():
        raise KeyFileError(f"{public} exists; a key is never overwritten", hint="move the old key away first")
    description = f"fednode {kind} key"
    if secret.exists():
        key = _read_secret(secret, {_SECRET_TYPES[kind]})
    else:
        seed = os.urandom(32)
        key = SigningKey(seed)
        write_atomic(secret, _envelope(_SECRET_TYPES[kind], description, seed), mode=0o600)
    write_atomic(public, _envelope(_PUBLIC_TYPES[kind], description, bytes.fromhex(key.vkey)))
    return key


def load_signing_key(path: Path) -> SigningKey:
    """Read a secret text envelope. KeyFileError where it is missing, it or its folder is open to others, or it is not
    an Ed25519 secret."""
    return _read_secret(path, set(_SECRET_TYPES.values()))


def _read_secret(path: Path, types: set[str]) -> SigningKey:
    try:
        data = read_secret(path, _MAX_FILE)
    except OSError as error:
        raise _unreadable(path, error) from None
    check_secret_folder(path.parent)
    return SigningKey(_payload(path, data, types, secret=True))


def load_verification_key(path: Path) -> str:
    """Read a public text envelope; the raw 32 bytes in hex. KeyFileError where it is missing or of another type."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    return _payload(path, data, set(_PUBLIC_TYPES.values()), secret=False).hex()


def _envelope(kind: str, description: str, payload: bytes) -> bytes:
    content = {"type": kind, "description": description, "cborHex": _CBOR_PREFIX + payload.hex()}
    return (json.dumps(content, indent=4) + "\n").encode()


def _unreadable(path: Path, error: OSError) -> KeyFileError:
    if isinstance(error, FileNotFoundError):
        return KeyFileError(
            f"{path} does not exist, expected a key file", hint="fednode init makes the key files of a home"
        )
    return KeyFileError(f"{path} cannot be read: {error.strerror}")


def _payload(path: Path, data: bytes, types: set[str], *, secret: bool) -> bytes:
    """The 32 key bytes of an envelope. Messages name the envelope's type, never its content."""
    expected = " or ".join(sorted(types))
    try:
        envelope: object = json.loads(data) if len(data) <= _MAX_FILE else None
    except ValueError:
        envelope = None
    if not isinstance(envelope, dict):
        raise KeyFileError(f"{path} is not a key text envelope, expected JSON with type {expected}")
    fields = cast("dict[str, object]", envelope)
    kind, cbor = fields.get("type"), fields.get("cborHex")
    if not isinstance(kind, str) or kind not in types:
        raise KeyFileError(f"{path} has type {str(kind)[:60]!r}, expected {expected}")
    if not isinstance(cbor, str) or len(cbor) != 68 or not cbor.lower().startswith(_CBOR_PREFIX):
        what = "seed" if secret else "public key"
        raise KeyFileError(f"{path}: cborHex is not a 32-byte {what} ({_CBOR_PREFIX} and 64 hex characters)")
    try:
        payload = bytes.fromhex(cbor[4:])
    except ValueError:
        payload = b""
    if len(payload) != 32:  # fromhex skips white space
        raise KeyFileError(f"{path}: cborHex is not hexadecimal")
    return payload
