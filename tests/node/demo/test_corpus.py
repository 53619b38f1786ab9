"""The demo's text shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from fednode.errors import ConfigError
from fednode.node.demo import corpus


@pytest.mark.parametrize("parties", range(2, 11))
def test_shares_are_complete_disjoint_unequal_and_repeatable(tmp_path: Path, parties: int) -> None:
    names = [f"party-{i}" for i in range(parties)]
    shares = corpus.write_shares(tmp_path / "one", names)
    again = corpus.write_shares(tmp_path / "two", names)
    texts = [path.read_text() for path in [*shares.parties, shares.held_out]]
    assert texts == [path.read_text() for path in [*again.parties, again.held_out]]
    assert [path.name for path in shares.parties] == [f"{name}.txt" for name in names]
    blocks = [" ".join(block.split()) for text in texts for block in corpus.paragraphs(text)]
    wanted = {" ".join(block.split()) for topic in corpus.help_topics().values() for block in corpus.paragraphs(topic)}
    assert len(blocks) == len(set(blocks))
    assert set(blocks) == wanted
    sizes = [path.stat().st_size for path in shares.parties]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1.2 * sizes[-1]
    assert sizes[-1] > 8192


def test_a_subject_has_one_owner_and_every_twelfth_paragraph_is_held_out() -> None:
    topics = {"b": "\n\n".join(f"text {i}" for i in range(24)), "a": "text 3\n\n  own\n    kept", "c": "text 3\n\nlast"}
    subjects, held_out = corpus.split_paragraphs(topics)
    assert subjects["c"] == "text 3\n\nlast\n"  # the shortest topic keeps what several repeat
    assert subjects["a"] == "own\n  kept\n"
    assert "text 3\n" not in subjects["b"]
    assert len(corpus.paragraphs(held_out)) == 26 // 12
    hands = corpus.deal(subjects, 2)
    assert sorted("".join(hands)) == sorted("".join(subjects.values()) + "\n")


@pytest.mark.parametrize("names", [["a"], ["a"] * 2, ["a", "../b"], ["a", "held-out"], ["a", ""], list("abcdefghijk")])
def test_names_that_cannot_be(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ConfigError):
        corpus.write_shares(tmp_path, names)
    assert not list(tmp_path.iterdir())
