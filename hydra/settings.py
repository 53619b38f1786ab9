"""What the Cardano adapter must know of the agreement and of the private settings."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fednode.errors import ConfigError
from fednode.hosts import is_loopback
from fednode.hydra.keys import SigningKey
from fednode.types import HeadId, Lovelace, Member, PartyName

_SCHEMES: Final = {"http": False, "ws": False, "https": True, "wss": True}


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """One party's own hydra-node and the head that it is to run."""

    url: str
    """http(s):// or ws(s)://host:port of the own node's API."""
    me: PartyName
    members: tuple[Member, ...]
    """In agreement order."""
    magic: int
    version: str
    """Of hydra-node, from the agreement, such as 2.3.0; major and minor number must match."""
    funds_key: SigningKey
    funding: str
    """`txid#ix` of the layer-1 output at the own funds address that holds exactly `deposit`; empty if none."""
    deposit: Lovelace
    contestation_period_s: int
    deposit_period_s: int
    bound_head: HeadId | None = None
    allow_plain: bool = False
    """Allow an unencrypted connection to another machine: the API has no authentication of its own."""
    ca_file: Path | None = None
    """PEM file of the authority that signed the node's certificate; None: the authorities of this machine."""
    read_only: bool = False
    """Only read, close and fan out, also by a node of a release that must not deposit or signal."""

    @property
    def member(self) -> Member:
        """The own entry of the agreement. ConfigError where there is none or the funds key is another's."""
        for member in self.members:
            if member.name == self.me:
                found = self.funds_key.vkey
                if member.cardano_vkey != found:
                    raise ConfigError(
                        f"party {self.me}: cardano_vkey is {member.cardano_vkey}, the funds key has {found}",
                        hint="use the key file of this party, or correct peers.toml together with all peers",
                    )
                return member
        names = ", ".join(member.name for member in self.members)
        raise ConfigError(f"party {self.me} is not in the agreement, expected one of {names}")


def endpoints(url: str, *, allow_plain: bool) -> tuple[str, str]:
    """(HTTP base, websocket base) of a node's API. ConfigError for a bad URL or plain text to another machine."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if host is None or port is None or parts.scheme not in _SCHEMES or parts.path not in ("", "/") or parts.username:
        raise ConfigError(f"hydra-node url {url[:200]!r}: expected http://HOST:PORT, https://, ws:// or wss://")
    secure = _SCHEMES[parts.scheme]
    if not secure and not allow_plain and not is_loopback(host):
        raise ConfigError(
            f"hydra-node url {url[:200]!r}: plain text to another machine, expected https:// or a loopback address",
            hint="the API has no password: use TLS or an SSH tunnel, or allow plain text where the network is private",
        )
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ("https://" if secure else "http://") + place, ("wss://" if secure else "ws://") + place


def trust(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    """How the node's certificate is checked: by `ca_file` alone where it is given. None for a plain connection.

    ConfigError where the file holds no certificate, or where the URL would never use it.
    """
    if not _SCHEMES.get(urlsplit(url).scheme, False):
        if ca_file is None:
            return None
        raise ConfigError(
            f"[head] ca_file is {ca_file}, but url {url[:200]!r} is plain text, expected https:// or wss://",
            hint="correct the url, or remove ca_file",
        )
    if ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"[head] ca_file {ca_file}: expected a PEM file with the certificate of the node's authority: {reason}",
            hint="ask whoever runs the node for the certificate (never for a key)",
        ) from None
