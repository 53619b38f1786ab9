"""Access grants by uplink-python: ask for one, open a project with one, narrow one. Blocking; frees what it gets."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, cast

from fednode.errors import ConfigError
from fednode.storage.uplink.abi import Code, PermissionStruct, PrefixStruct, Result, load
from fednode.storage.uplink.calls import Project, StoreError, check


class GrantError(Exception):
    """A text is no access grant. Never says which."""


@dataclass(frozen=True, slots=True)
class Permission:
    """What a narrowed grant allows under one prefix of one bucket. Times are Unix seconds, 0 = no limit."""

    bucket: str
    prefix: str
    """Ends in `/`; empty: the whole bucket."""
    read: bool
    write: bool
    list: bool
    delete: bool
    not_before: int
    not_after: int
    max_object_ttl_s: int
    """How long objects that are written with it live; 0 = no limit."""


class _Access(Protocol):
    access: Any

    def open_project(self) -> Any: ...
    def share(self, permission: Any, shared_prefix: list[Any]) -> _Access: ...


class _Uplink(Protocol):
    def parse_access(self, serialized_access: str) -> _Access: ...
    def request_access_with_passphrase(self, satellite: str, api_key: str, passphrase: str) -> _Access: ...


class Uplink:
    """The library, loaded: by uplink-python for grants and projects, by our own signatures for everything else."""

    def __init__(self, path: Path) -> None:
        """ConfigError where the library or uplink-python cannot be used."""
        self._library = load(path)
        try:
            module = importlib.import_module("uplink_python.uplink")
            self._classes = importlib.import_module("uplink_python.module_classes")
        except ImportError as error:
            raise ConfigError(
                f"uplink-python cannot be loaded: {error}", hint="pip install 'fednode[uplink]'"
            ) from None
        # It looks for the library inside its own package only, but asks this class attribute first. It gets a CDLL
        # object of its own, because it writes its signatures into it at every call.
        module.Uplink._Uplink__instance = SimpleNamespace(m_libuplink=ctypes.CDLL(str(path)))
        self._uplink = cast(_Uplink, module.Uplink())

    def request_access(self, satellite: str, api_key: str, passphrase: str) -> str:
        """A grant with everything that the API key allows. Asks the satellite once."""
        with translated():
            access = self._uplink.request_access_with_passphrase(satellite, api_key, passphrase)
        with self._freed(access) as address:
            return self._serialised(address)

    def open_project(self, grant: str) -> Project:
        """Asks nobody yet."""
        with self._parsed(grant) as access, translated():
            return Project(self._library, _address(access.open_project().project))

    def share(self, grant: str, allowed: Permission) -> str:
        """A narrower grant, made on this machine alone. Every call makes another one, to be revoked alone."""
        with self._parsed(grant) as access:
            if allowed.max_object_ttl_s:
                return self._share_with_ttl(_address(access.access), allowed)
            permission = self._classes.Permission(
                allow_download=allowed.read, allow_upload=allowed.write, allow_list=allowed.list,
                allow_delete=allowed.delete, not_before=allowed.not_before, not_after=allowed.not_after,
            )  # fmt: skip
            with translated():
                shared = access.share(permission, [self._classes.SharePrefix(allowed.bucket, allowed.prefix)])
        with self._freed(shared) as address:
            return self._serialised(address)

    def revoke(self, project: Project, grant: str) -> None:
        """`grant` comes from the project's own."""
        with self._parsed(grant) as access:
            project.revoke(_address(access.access))

    def _share_with_ttl(self, access: int, allowed: Permission) -> str:
        if not hasattr(self._library, "fednode_access_share"):
            raise ConfigError(
                "this libuplinkc cannot limit the life of objects in a grant",
                hint="use that of scripts/build-libuplink",
            )
        permission = PermissionStruct(
            allowed.read, allowed.write, allowed.list, allowed.delete, allowed.not_before, allowed.not_after
        )
        prefix = PrefixStruct(allowed.bucket.encode(), allowed.prefix.encode())
        result = self._library.fednode_access_share(
            access, permission, ctypes.byref(prefix), 1, allowed.max_object_ttl_s
        )
        try:
            check(result.error)
            return self._serialised(result.value)
        finally:
            self._library.uplink_free_access_result(result)

    def _serialised(self, access: int) -> str:
        result = self._library.uplink_access_serialize(access)
        try:
            check(result.error)
            return ctypes.string_at(result.value).decode()
        finally:
            self._library.uplink_free_string_result(result)

    @contextmanager
    def _parsed(self, grant: str) -> Generator[_Access, None, None]:
        try:
            with translated():
                access = self._uplink.parse_access(grant)
        except StoreError:
            raise GrantError from None
        with self._freed(access):
            yield access

    @contextmanager
    def _freed(self, access: _Access) -> Generator[int, None, None]:
        address = _address(access.access)
        try:
            yield address
        finally:
            self._library.uplink_free_access_result(Result(address, None))


@contextmanager
def translated() -> Generator[None, None, None]:
    """Errors of uplink-python as StoreError."""
    try:
        yield
    except Exception as error:
        code = getattr(error, "code", None)
        if isinstance(code, int):
            raise StoreError(code, str(getattr(error, "details", ""))) from None
        if isinstance(error, TypeError | AttributeError):
            # It fails to make an exception for codes that are younger than itself, above all 0x09.
            raise StoreError(*_untold(error)) from None
        raise


def _untold(error: BaseException) -> tuple[int, str]:
    """The code and text that uplink-python held when it failed to make an exception of them."""
    step = error.__traceback__
    while step is not None:
        known = step.tb_frame.f_locals
        if step.tb_frame.f_code.co_name == "_storj_exception" and isinstance(known.get("code"), int):
            return known["code"], str(known.get("details", ""))
        step = step.tb_next
    return Code.INTERNAL, f"uplink-python failed: {type(error).__name__}"


def _address(pointer: Any) -> int:
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    if address is None:
        raise StoreError(Code.INTERNAL, "the library gave neither a result nor an error")
    return address
