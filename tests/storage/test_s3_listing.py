"""Pages of an S3 listing: what is well-formed comes back exactly, anything else is refused."""

from __future__ import annotations

import string
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.errors import StorageError
from fednode.storage.s3_listing import MOST_PAGE, Page, PageParser, Pages
from fednode.storage.wire import Entry

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
KEPT = "<IsTruncated>false</IsTruncated>"


def parsed(data: bytes, piece: int = 1 << 16) -> Page:
    parser = PageParser("the store")
    for start in range(0, len(data), piece):
        parser.feed(data[start : start + piece])
    return parser.close()


def page(inner: str) -> bytes:
    return f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult {NAMESPACE}>{inner}</ListBucketResult>".encode()


def contents(key: str, size: object) -> str:
    return f"<Contents><Key>{key}</Key><LastModified>2026-01-01</LastModified><Size>{size}</Size></Contents>"


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
PLAIN = st.text(string.ascii_lowercase + string.digits + "._-/&<>\"' +%é", min_size=1, max_size=40)
SIZES = st.integers(0, 10**18 - 1)


@given(st.lists(st.tuples(KEYS, SIZES)), st.text(string.ascii_letters + string.digits + "+/=", max_size=60), st.data())
def test_a_page_comes_back_exactly(objects: list[tuple[str, int]], token: str, data: st.DataObject) -> None:
    inner = "<EncodingType>url</EncodingType><Prefix>p</Prefix>"
    inner += "".join(contents(quote_plus(key), size) for key, size in objects)
    inner += f"<IsTruncated>{'true' if token else 'false'}</IsTruncated>"
    inner += f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    found = parsed(page(inner), data.draw(st.integers(1, 200)))
    assert found == Page([Entry(*one) for one in objects], token or None)


@given(st.lists(st.tuples(PLAIN, SIZES), min_size=1))
def test_keys_that_are_not_encoded(objects: list[tuple[str, int]]) -> None:
    inner = KEPT + "".join(contents(escape(key), size) for key, size in objects)
    assert parsed(page(inner)).entries == [Entry(*one) for one in objects]


def only_refused(data: bytes, piece: int) -> None:
    caught: StorageError | None = None
    try:
        found = parsed(data, piece)
        assert all(entry.key and 0 <= entry.size < 10**18 for entry in found.entries)
    except StorageError as error:
        caught = error
    assert caught is None or ("the store's answer is not that of an S3" in caught.message and caught.hint)


@given(st.binary(max_size=2000), st.integers(1, 100))
def test_arbitrary_bytes(data: bytes, piece: int) -> None:
    only_refused(data, piece)


GOOD = page(f"<EncodingType>url</EncodingType>{contents('a%2Fb', 7)}{contents('c', 8)}{KEPT}")
PARTS = [
    b"<ListBucketResult>", b"</ListBucketResult>", b"<Contents>", b"</Contents>", b"<Key>", b"</Key>", b"<Size>",
    b"</Size>", b"<IsTruncated>", b"</IsTruncated>", b"true", b"false", b"<!DOCTYPE x [", b"<!ENTITY a 'b'>", b"]>",
    b"&a;", b"&amp;", b"<![CDATA[", b"]]>", b"<!--", b"-->", b"<?xml version='1.0' encoding='UTF-7'?>", b"1", b"\x00",
]  # fmt: skip


@given(st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=4))), st.integers(1, 100))
def test_arbitrary_parts(parts: list[bytes], piece: int) -> None:
    only_refused(b"".join(parts), piece)


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_a_page_that_was_changed(at: int, put: bytes, dropped: int) -> None:
    only_refused(GOOD[:at] + put + GOOD[at + dropped :], 50)


@given(st.integers(0, len(GOOD) - 1))
def test_a_page_that_breaks_off_is_never_taken_for_a_whole_one(at: int) -> None:
    with pytest.raises(StorageError, match="not that of an S3"):
        parsed(GOOD[:at])


LAUGHS = "<!DOCTYPE l [<!ENTITY a0 'ha'>" + "".join(
    f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 12)
)  # fmt: skip
LAUGHING = f"{LAUGHS}]><ListBucketResult><Contents><Key>&a11;</Key></Contents></ListBucketResult>"
NONSENSE = {
    "many names": (page("".join(f"<n{n}/>" for n in range(100)) + KEPT), "too many names"),
    "laughs": (LAUGHING.encode(), "a document type"),
    "laughs in UTF-16": (f"<?xml version='1.0' encoding='UTF-16'?>{LAUGHING}".encode("utf-16"), "a document type"),
    "claims UTF-16": (f"<?xml version='1.0' encoding='UTF-16'?>{LAUGHING}".encode(), "a document type"),
    "outer entity": (b"<!DOCTYPE x SYSTEM 'file:///etc/passwd'><ListBucketResult/>", "a document type"),
    "unknown entity": (page(contents("&unknown;", 1) + KEPT), "well-formed"),
    "a website": (b"<!DOCTYPE html><html><body>Welcome</body></html>", "a document type"),
    "XHTML": (b"<html><body/></html>", "no listing"),
    "an error": (b"<Error><Code>AccessDenied</Code></Error>", "no listing"),
    "nothing": (b"", "well-formed"),
    "JSON": (b'{"ListBucketResult": []}', "well-formed"),
    "not said whether more": (page(contents("a", 1)), "whether or where"),
    "more without token": (page("<IsTruncated>true</IsTruncated>"), "whether or where"),
    "perhaps more": (page("<IsTruncated>maybe</IsTruncated>"), "whether or where"),
    "truncated twice": (page("<IsTruncated>true</IsTruncated>" + KEPT), "twice"),
    "size missing": (page(f"<Contents><Key>a</Key></Contents>{KEPT}"), "without key and size"),
    "key missing": (page(f"<Contents><Size>1</Size></Contents>{KEPT}"), "without key and size"),
    "two keys": (page(f"<Contents><Key>a</Key><Key>b</Key><Size>1</Size></Contents>{KEPT}"), "twice"),
    "negative": (page(contents("a", -1) + KEPT), "without key and size"),
    "huge": (page(contents("a", 10**18) + KEPT), "without key and size"),
    "other digits": (page(contents("a", "\u0663") + KEPT), "without key and size"),
    "underscore": (page(contents("a", "1_0") + KEPT), "without key and size"),
    "long key": (page(contents("a" * 10_000, 1) + KEPT), "a text of more"),
    "long token": (page(f"<NextContinuationToken>{'a' * 10_000}</NextContinuationToken>"), "a text of more"),
    "inside": (page(f"<Contents><Key>a<b/>c</Key><Size>1</Size></Contents>{KEPT}"), "inside a text"),
    "deep": (page("<a>" * 100_000), "too deep"),
    "long page": (page(f"<Other>{'x' * MOST_PAGE}</Other>{KEPT}"), "more than 5 MiB"),
    "odd encoding": (page(f"<EncodingType>rot13</EncodingType>{KEPT}"), "encoding"),
    "more behind": (GOOD + b"<ListBucketResult/>", "well-formed"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "said"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense(data: bytes, said: str) -> None:
    with pytest.raises(StorageError, match=f"not that of an S3: .*{said}") as caught:
        parsed(data)
    assert type(caught.value) is StorageError
    assert caught.value.hint


def test_what_does_not_matter_is_skipped() -> None:
    inner = "<Contents><Owner><ID>x</ID><Key>not this</Key></Owner><Key>a</Key><Size>1</Size></Contents>"
    inner += f"<CommonPrefixes><Key>nor this</Key></CommonPrefixes><Other>{'y' * 100_000}</Other>"
    assert parsed(page(inner + KEPT)) == Page([Entry("a", 1)], None)
    assert parsed(page(f"<NextContinuationToken>x</NextContinuationToken>{KEPT}")).token is None


def test_a_circle_of_tokens() -> None:
    pages = Pages("the store")
    assert [pages.follow(Page([], token)) for token in ("a", "b", None)] == ["a", "b", None]
    with pytest.raises(StorageError, match="in a circle"):
        pages.follow(Page([], "a"))


def test_the_query_is_sorted_and_encoded() -> None:
    assert Pages("x").query("", None) == "encoding-type=url&list-type=2&max-keys=1000"
    said = Pages("x").query("a.b_c-d/", "1+/=&~")
    assert said == ("continuation-token=1%2B%2F%3D%26~&encoding-type=url&list-type=2&max-keys=1000&prefix=a.b_c-d%2F")
