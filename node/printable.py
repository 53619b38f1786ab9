"""Text that others had a hand in (names in metadata, reasons of a node), made fit for a terminal and for a log."""

from __future__ import annotations


def one_line(text: str) -> str:
    """The text with every character that is not printable escaped: no line break, no terminal sequence stays."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
