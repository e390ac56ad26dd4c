"""Facts that are found by depth and length: where they are cut off, and what the indices say."""

import zlib
from collections.abc import Sequence

import numpy as np
import pytest

from lcbench.errors import RequestError
from lcbench.measures import position
from lcbench.measures.estimates import Estimate
from lcbench.measures.intervals import Line, Panel
from lcbench.measures.position import Cut, by_position, collapse_index, index, indices
from lcbench.tasks.docs.haystacks import placed
from lcbench.tasks.docs.names import NEEDLE, PASSKEY

WINDOW = 256


def words(texts: Sequence[str]) -> np.ndarray:
    """Embeddings of a model that counts the words it reads, and no more than fit."""
    rows = np.zeros((len(texts), 4096))
    for row, text in zip(rows, texts, strict=True):
        for word in text.split()[: WINDOW - 2]:
            row[zlib.crc32(word.strip(".,?").encode()) % 4096] += 1
    return rows


def test_facts_stand_where_they_are_put_in_the_same_haystack() -> None:
    for task in (PASSKEY, NEEDLE):
        found = placed(task, (128, 256), (0.0, 0.5, 1.0), 6)
        assert list(found) == [(n, depth) for n in (128, 256) for depth in (0.0, 0.5, 1.0)]
        for number in range(6):
            for length in (128, 256):
                first, middle, last = (found[length, depth][number] for depth in (0.0, 0.5, 1.0))
                assert first.query == last.query
                assert first.document.startswith(first.fact)
                assert last.document.endswith(last.fact)
                assert sorted(first.document.split()) == sorted(last.document.split())
                at = middle.document.index(middle.fact) / len(middle.document)
                assert 0.1 < at < 0.9


def test_what_stands_beyond_the_window_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(position, "FACTS", 12)
    panels, cuts = by_position(
        ("τ = 1",),
        lambda _, texts: words(texts),
        lambda _, texts: words(texts),
        lambda texts: [len(text.split()) for text in texts],
        WINDOW - 2,
        WINDOW,
        1_000,
        0,
    )
    assert [panel.quantity for panel in panels] == [
        "share found, passkey, τ = 1",
        "share found, needle, τ = 1",
    ]
    passkey, cut = panels[0], cuts[0]
    assert cut.lengths == (64, 128, 256, 512)
    assert cut.shares[-1][0] == 0
    assert cut.shares[-1][-1] == 1
    for line, shares in zip(passkey.lines, cut.shares, strict=True):
        for one, share in zip(line.values, shares, strict=True):
            if share == 0:
                assert one.value == 1
            if share == 1:
                # None but by chance: all that is read is the same.
                assert one.value == 0
    assert indices(passkey, cut) == {64: 0, 128: 0, 256: 0, 512: 0}
    assert collapse_index(passkey, cut) == 0


def test_bias_and_collapse_are_told_apart() -> None:
    def line(name: str, *values: float) -> Line:
        estimates = tuple(Estimate(value, value, value) for value in values)
        return Line(name, estimates, estimates[0])

    lines = (line("64", 0.8, 0.8, 0.8), line("128", 0.8, 0.2, 0.6), line("256", 0.8, 0.4, 0.0))
    cut = Cut("passkey", (64, 128, 256), ((0, 0, 0), (0, 0, 0), (0, 0, 1.0)))
    panel = Panel("share found", "depth", (), lines)
    assert indices(panel, cut) == pytest.approx({64: 0, 128: 0.75, 256: 0.5})
    # Of 64 and 128 tokens alone: 0.8 and 0.533.
    assert collapse_index(panel, cut) == pytest.approx(1 / 3)
    assert index([0.0, 0.0]) == 0
    assert index([0.5, 0.0]) == 1


def test_a_window_without_room_for_a_fact() -> None:
    with pytest.raises(RequestError, match="a window of 48 tokens is too short for hidden facts"):
        position.lengths_for(48)
