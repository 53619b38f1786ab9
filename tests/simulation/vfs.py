"""A SQLite VFS whose n-th write, sync, read, truncation or opening fails, by ctypes over the system's own."""

from __future__ import annotations

import ctypes as c
from typing import Any

FULL, READ, WRITE, SYNC, TRUNCATE, OPEN = 13, 10 | 1 << 8, 10 | 3 << 8, 10 | 4 << 8, 10 | 6 << 8, 14
"""SQLITE_FULL, SQLITE_IOERR_READ ..._WRITE ..._FSYNC ..._TRUNCATE, SQLITE_CANTOPEN (docs: sqlite.org/rescode.html)."""

_Pointer = c.c_void_p
_Read = c.CFUNCTYPE(c.c_int, _Pointer, _Pointer, c.c_int, c.c_int64)
_Truncate = c.CFUNCTYPE(c.c_int, _Pointer, c.c_int64)
_Sync = c.CFUNCTYPE(c.c_int, _Pointer, c.c_int)
# The name is passed on as a pointer: SQLite keeps it as long as the file is open.
_Open = c.CFUNCTYPE(c.c_int, _Pointer, _Pointer, _Pointer, c.c_int, c.POINTER(c.c_int))


class _Methods(c.Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = (
        ("version", c.c_int),
        ("close", _Pointer),
        ("read", _Read),
        ("write", _Read),
        ("truncate", _Truncate),
        ("sync", _Sync),
        *(
            (name, _Pointer)
            for name in [
                "size",
                "lock",
                "unlock",
                "reserved",
                "control",
                "sector",
                "device",
                "map",
                "shmlock",
                "barrier",
            ]
        ),
        *((name, _Pointer) for name in ("unmap", "fetch", "unfetch")),
    )


class _Vfs(c.Structure):
    """sqlite3_vfs; what follows xOpen is copied as it is."""

    _fields_ = (
        ("version", c.c_int),
        ("file_size", c.c_int),
        ("path_size", c.c_int),
        ("next", _Pointer),
        ("name", c.c_char_p),
        ("data", _Pointer),
        ("open", _Open),
        ("rest", _Pointer * 16),
    )


class FailingVfs:
    """Registered as the default; `n` = 0 lets everything pass. Counts in `count`, says in `failed` what it refused."""

    def __init__(self) -> None:
        """OSError or AttributeError where Python's SQLite is no library of its own."""
        self._lib = c.CDLL("libsqlite3.so.0")
        self._lib.sqlite3_vfs_find.restype = c.POINTER(_Vfs)
        self._lib.sqlite3_vfs_find.argtypes = [c.c_char_p]
        self._lib.sqlite3_vfs_register.argtypes = [c.POINTER(_Vfs), c.c_int]
        self._lib.sqlite3_vfs_unregister.argtypes = [c.POINTER(_Vfs)]
        self._base = self._lib.sqlite3_vfs_find(None)
        self._tables: dict[int, _Methods] = {}
        self._originals: dict[int, _Methods] = {}
        self._vfs = _Vfs()
        c.memmove(c.byref(self._vfs), self._base, c.sizeof(_Vfs))
        self._vfs.name = b"failing"
        self._open = _Open(self._on_open)
        self._vfs.open = self._open
        self._keep: list[Any] = []
        self.n = self.count = 0
        self.lasting = self.full = False
        self.failed = ""

    def arm(self, n: int, *, full: bool, lasting: bool) -> None:
        """`full`: a full disk refuses writes; otherwise every kind of operation fails as on a broken disk."""
        self.n, self.full, self.lasting, self.count, self.failed = n, full, lasting, 0, ""

    def __enter__(self) -> FailingVfs:
        self._lib.sqlite3_vfs_register(c.byref(self._vfs), 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.sqlite3_vfs_unregister(c.byref(self._vfs))
        self._lib.sqlite3_vfs_register(self._base, 1)

    def _fails(self, kind: str) -> bool:
        if self.n == 0 or (self.full and kind != "write"):
            return False
        self.count += 1
        if self.count == self.n or (self.failed and self.lasting):
            self.failed = self.failed or kind
            return True
        return False

    def _on_open(self, vfs: Any, name: Any, file: Any, flags: Any, out: Any) -> int:
        if self._fails("open"):
            c.cast(file, c.POINTER(_Pointer))[0] = None
            return OPEN
        result: int = self._base.contents.open(c.cast(self._base, _Pointer), name, file, flags, out)
        first = c.cast(file, c.POINTER(_Pointer))
        if result == 0 and first[0]:
            first[0] = c.cast(c.byref(self._table(first[0])), _Pointer).value
        return result

    def _table(self, address: int) -> _Methods:
        """The methods of a kind of file, with ours in four places."""
        if address in self._tables:
            return self._tables[address]
        original = c.cast(address, c.POINTER(_Methods)).contents
        table = _Methods()
        c.memmove(c.byref(table), address, c.sizeof(_Methods))
        table.read = _Read(lambda f, b, n, at: READ if self._fails("read") else original.read(f, b, n, at))
        write_code = WRITE
        table.write = _Read(
            lambda f, b, n, at: (
                (FULL if self.full else write_code) if self._fails("write") else original.write(f, b, n, at)
            )
        )
        table.truncate = _Truncate(lambda f, n: TRUNCATE if self._fails("truncate") else original.truncate(f, n))
        table.sync = _Sync(lambda f, n: SYNC if self._fails("sync") else original.sync(f, n))
        self._keep += [table.read, table.write, table.truncate, table.sync]
        self._tables[address] = table
        return table
