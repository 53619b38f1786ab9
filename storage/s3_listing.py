"""A page of an S3 listing (ListObjectsV2), from a store that may be hostile: nothing of it is kept but what is needed.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote_plus
from xml.etree.ElementTree import ParseError, XMLParser

from fednode.errors import StorageError
from fednode.storage.wire import Entry

MOST_PAGE: Final = 5 << 20
"""Bytes of a page that are read; one of 1,000 keys of the greatest length has 4 MiB."""
_FED: Final = 64 << 10
"""Bytes that the parser gets at a time: it looks at an unfinished tag from its start each time."""
_MOST_NAMES: Final = 64
"""Of elements: the parser keeps every name that it has met."""
_PAGE: Final = 1000
_MOST_TEXT: Final = 8 << 10
"""Characters of a key or token; a key of 1,024 bytes has 3,072, percent-encoded."""
_DEEPEST: Final = 16
_SIZE: Final = re.compile(r"[0-9]{1,18}")
_ROOT: Final = "ListBucketResult"
_KEY: Final = (_ROOT, "Contents", "Key")
_BYTES: Final = (_ROOT, "Contents", "Size")
_ENTRY: Final = (_ROOT, "Contents")
_TRUNCATED: Final = (_ROOT, "IsTruncated")
_TOKEN: Final = (_ROOT, "NextContinuationToken")
_ENCODING: Final = (_ROOT, "EncodingType")
_KEPT: Final = frozenset({_KEY, _BYTES, _TRUNCATED, _TOKEN, _ENCODING})


@dataclass(frozen=True, slots=True)
class Page:
    """Objects, keys whole and decoded, and how to ask for the next page; None: this is the last one."""

    entries: list[Entry]
    token: str | None


@dataclass(slots=True)
class Pages:
    """The order of the pages of one listing. `where`: what messages call it."""

    where: str
    _seen: set[int] = field(default_factory=set[int])

    def query(self, prefix: str, token: str | None) -> str:
        """Query of the request for the page behind `token`, or for the first one; its names are sorted."""
        pairs = {"continuation-token": token, "encoding-type": "url", "list-type": "2", "max-keys": str(_PAGE)}
        said = {name: value for name, value in {**pairs, "prefix": prefix}.items() if value}
        return "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in said.items())

    def parser(self) -> PageParser:
        """Of the next page."""
        return PageParser(self.where)

    def follow(self, page: Page) -> str | None:
        """The token of the page behind `page`. StorageError for one that was there already: there would be no end."""
        if page.token is None:
            return None
        if hash(page.token) in self._seen:
            raise not_s3(self.where, "a listing that goes in a circle")
        self._seen.add(hash(page.token))
        return page.token


class PageParser:
    """Takes a page in parts. Every refusal is a StorageError."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._left = MOST_PAGE
        self._held = bytearray()
        self._content = _Content(where)
        # S3 writes UTF-8. Said here, what a page claims is not looked at (but a byte order mark is).
        self._parser = XMLParser(target=self._content, encoding="utf-8")

    def feed(self, part: bytes) -> None:
        self._left -= len(part)
        if self._left < 0:
            raise not_s3(self._where, f"a page of more than {MOST_PAGE >> 20} MiB")
        self._held += part
        if len(self._held) >= _FED:
            self._parse()

    def close(self) -> Page:
        """What the whole page says."""
        self._parse(last=True)
        return self._content.page()

    def _parse(self, *, last: bool = False) -> None:
        try:
            self._parser.feed(bytes(self._held))
            self._held.clear()
            if last:
                self._parser.close()
        except ParseError:
            raise not_s3(self._where, "no well-formed XML") from None


def not_s3(where: str, what: str) -> StorageError:
    """The error for an answer without sense."""
    return StorageError(f"{where}: the store's answer is not that of an S3: {what}", hint="is the endpoint right?")


class _Content:
    """Target of the parser: keeps the texts at the few paths that matter, and refuses what no S3 says."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._path: list[str] = []
        self._names: set[str] = set()
        self._text: list[str] | None = None
        self._room = 0
        self._entry: dict[tuple[str, ...], str] = {}
        self._said: dict[tuple[str, ...], str] = {}
        self._found: list[tuple[str, int]] = []

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Entities are declared here and nowhere else."""
        raise not_s3(self._where, "a document type")

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        self._path.append(tag.rpartition("}")[2])
        self._names.add(tag)
        if len(self._names) > _MOST_NAMES:
            raise not_s3(self._where, "too many names of elements")
        if len(self._path) > _DEEPEST:
            raise not_s3(self._where, "elements too deep in each other")
        if self._path[0] != _ROOT:
            raise not_s3(self._where, "no listing")
        if self._text is not None:
            raise not_s3(self._where, "an element inside a text")
        if tuple(self._path) in _KEPT:
            self._text, self._room = [], _MOST_TEXT

    def data(self, data: str) -> None:
        if self._text is None:
            return
        self._room -= len(data)
        if self._room < 0:
            raise not_s3(self._where, f"a text of more than {_MOST_TEXT} characters")
        self._text.append(data)

    def end(self, tag: str) -> None:
        path = tuple(self._path)
        self._path.pop()
        if self._text is not None:
            said = self._entry if path[:-1] == _ENTRY else self._said
            if path in said:
                raise not_s3(self._where, f"{path[-1]} twice")
            said[path] = "".join(self._text)
            self._text = None
        elif path == _ENTRY:
            key, size = self._entry.get(_KEY, ""), self._entry.get(_BYTES, "")
            if not key or not _SIZE.fullmatch(size):
                raise not_s3(self._where, "an object without key and size")
            self._found.append((key, int(size)))
            self._entry = {}

    def close(self) -> None:
        """Part of what a parser's target has."""

    def page(self) -> Page:
        truncated, token = self._said.get(_TRUNCATED, ""), self._said.get(_TOKEN, "")
        if truncated not in ("true", "false") or (truncated == "true" and not token):
            raise not_s3(self._where, "it does not say whether or where the listing goes on")
        encoding = self._said.get(_ENCODING, "")
        if encoding not in ("", "url"):
            raise not_s3(self._where, "keys in an unknown encoding")
        entries = [Entry(unquote_plus(key) if encoding else key, size) for key, size in self._found]
        return Page(entries, token if truncated == "true" else None)
