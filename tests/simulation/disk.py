"""A party's disk in memory: only what was written whole is there, as with the program's atomic writes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator


class Disk:
    """Files by path. `guard` is called before every change: it raises where the writing process is dead."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.guard: Callable[[], None] = lambda: None

    def write(self, path: str, data: bytes) -> None:
        self.guard()
        self.files[path] = data


class MemPath:
    """The few operations of `pathlib.Path` that the daemon uses, on a `Disk`. Folders exist by themselves."""

    __slots__ = ("disk", "text")

    def __init__(self, disk: Disk, text: str) -> None:
        self.disk, self.text = disk, text

    def __truediv__(self, name: object) -> MemPath:
        return MemPath(self.disk, f"{self.text}/{name}")

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemPath) and other.text == self.text and other.disk is self.disk

    def __hash__(self) -> int:
        return hash(self.text)

    @property
    def name(self) -> str:
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> MemPath:
        return MemPath(self.disk, self.text.rpartition("/")[0])

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0] or self.name

    @property
    def suffix(self) -> str:
        name = self.name
        dot = name.rfind(".")
        return name[dot:] if dot > 0 else ""

    def with_name(self, name: str) -> MemPath:
        return self.parent / name

    def exists(self) -> bool:
        return self.text in self.disk.files

    is_file = exists

    def mkdir(self, **_: object) -> None:
        """Folders exist by themselves."""

    def unlink(self, missing_ok: bool = False) -> None:
        self.disk.guard()
        if self.disk.files.pop(self.text, None) is None and not missing_ok:
            raise FileNotFoundError(self.text)

    def iterdir(self) -> Iterator[MemPath]:
        start = self.text + "/"
        names = [p for p in self.disk.files if p.startswith(start) and "/" not in p[len(start) :]]
        return iter([MemPath(self.disk, name) for name in names])

    def open(self, mode: str = "rb") -> io.BytesIO:
        assert mode == "rb"
        return io.BytesIO(self.read_bytes())

    def read_bytes(self) -> bytes:
        try:
            return self.disk.files[self.text]
        except KeyError:
            raise FileNotFoundError(self.text) from None

    def write_bytes(self, data: bytes) -> None:
        self.disk.write(self.text, data)
