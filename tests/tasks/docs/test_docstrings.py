"""The collection of docstrings, and what is drawn from it."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from docs_tasks import SIZES

from lcbench.errors import RequestError
from lcbench.tasks.docs import docstrings
from lcbench.tasks.docs.docstrings import collect
from lcbench.tasks.docs.haystacks import digest
from lcbench.tasks.docs.selection import LONG_WORDS, SyntheticSizes, select


@pytest.fixture(scope="module")
def collection() -> tuple[docstrings.Docstring, ...]:
    return collect()


def test_a_known_docstring(collection: tuple[docstrings.Docstring, ...]) -> None:
    by_id = {doc.id: doc for doc in collection}
    doc = by_id["numpy.linalg._linalg:lstsq"]
    assert doc.summary == "Return the least-squares solution to a linear matrix equation."
    assert doc.body.startswith("Computes the vector `x` that approximately solves")
    assert (doc.library, doc.subpackage) == ("numpy", "numpy.linalg")


def test_enough_of_every_library(collection: tuple[docstrings.Docstring, ...]) -> None:
    count = Counter(doc.library for doc in collection)
    assert set(count) == set(docstrings.LIBRARIES)
    assert min(count.values()) > 500
    assert sum(len(doc.body.split()) > LONG_WORDS for doc in collection) > 400


def test_a_query_can_have_one_answer_only(collection: tuple[docstrings.Docstring, ...]) -> None:
    assert len({doc.summary.lower() for doc in collection}) == len(collection)
    assert len({doc.body for doc in collection}) == len(collection)
    assert [doc.id for doc in collection] == sorted(doc.id for doc in collection)


def test_the_summary_is_left_out_and_no_placeholder_is_in(
    collection: tuple[docstrings.Docstring, ...],
) -> None:
    for doc in collection:
        assert doc.summary not in doc.body
        assert "%(" not in doc.summary
        assert "{klass}" not in doc.body
        assert not any(part.startswith("_") for part in doc.id.partition(":")[2].split("."))


def test_another_process_collects_and_draws_the_same_and_imports_none_of_the_libraries(
    tmp_path: Path,
) -> None:
    sizes = SyntheticSizes((64, 200), 5)
    script = (
        "import sys; from lcbench.tasks.docs.docstrings import collect; n = len(collect());"
        "print(n, [m for m in ('numpy', 'pandas', 'scipy', 'sklearn') if m in sys.modules]);"
        "from lcbench.tasks.docs.haystacks import digest;"
        "from lcbench.tasks.docs.selection import SyntheticSizes;"
        "print(digest(SyntheticSizes((64, 200), 5)));"
        "print([m for m in ('mteb', 'torch', 'datasets', 'numpy') if m in sys.modules])"
    )
    environment = {**os.environ, "LCBENCH_CACHE": str(tmp_path), "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == f"{len(collect())} []\n{digest(sizes)}\n[]\n"
    assert done.stderr == ""


def test_the_collection_is_cached_by_versions_and_a_broken_cache_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: tuple[docstrings.Docstring, ...]
) -> None:
    monkeypatch.setenv("LCBENCH_CACHE", str(tmp_path))
    few = collection[:3]
    monkeypatch.setattr(docstrings, "_walk_libraries", lambda: iter(few))
    assert collect() == few
    (cached,) = tmp_path.iterdir()
    assert [doc["id"] for doc in json.loads(cached.read_text())] == [doc.id for doc in few]
    monkeypatch.setattr(docstrings, "_walk_libraries", lambda: iter(collection[:2]))
    assert collect() == few
    cached.write_text("{broken")
    assert collect() == collection[:2]
    monkeypatch.setattr(docstrings, "version", lambda name: "99")
    monkeypatch.setattr(docstrings, "_walk_libraries", lambda: iter(collection[:1]))
    assert collect() == collection[:1]


def test_caches_of_an_earlier_layout_are_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: tuple[docstrings.Docstring, ...]
) -> None:
    monkeypatch.setenv("LCBENCH_CACHE", str(tmp_path))
    old = [f"docstrings-{'0' * 16}.jsonl", f"docstrings-{'0a' * 8}.jsonl"]
    others = ["docstrings-mine.jsonl", f"docstrings-{'0' * 17}.jsonl", "notes.jsonl"]
    for name in (*old, *others):
        (tmp_path / name).touch()
    monkeypatch.setattr(docstrings, "_walk_libraries", lambda: iter(collection[:2]))
    collect()
    written = {path.name for path in tmp_path.iterdir()} - set(others)
    assert [Path(name).suffix for name in written] == [".json"]
    assert all((tmp_path / name).exists() for name in others)


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: tuple[docstrings.Docstring, ...]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LCBENCH_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(docstrings, "_walk_libraries", lambda: iter(collection[:2]))
    assert collect() == collection[:2]


def test_the_draw_is_always_the_same() -> None:
    first = select(SIZES)
    select.cache_clear()
    second = select(SIZES)
    assert first == second
    assert first.digest == second.digest


def test_sizes_are_kept_and_each_is_part_of_the_revision() -> None:
    drawn = select(SIZES)
    assert (len(drawn.documents), len(drawn.long_documents)) == (120, 40)
    assert all(len(doc.body.split()) > LONG_WORDS for doc in drawn.long_documents)
    assert max(Counter(doc.module for doc in drawn.documents).values()) <= 8
    others = [
        replace(SIZES, documents=121),
        replace(SIZES, documents_per_module=7),
        replace(SIZES, long_documents=41),
        replace(SIZES, clustering_sets=4),
        replace(SIZES, clustering_share=0.5),
    ]
    assert len({drawn.digest, *(select(sizes).digest for sizes in others)}) == 6


def test_a_larger_draw_keeps_the_smaller_one() -> None:
    small, large = select(SIZES), select(replace(SIZES, documents=200, long_documents=80))
    assert set(small.documents) < set(large.documents)
    assert set(small.long_documents) < set(large.long_documents)


def test_every_library_has_its_turn() -> None:
    count = Counter(doc.library for doc in select(SIZES).documents)
    assert set(count) == set(docstrings.LIBRARIES)
    assert min(count.values()) > 20


def test_asking_for_more_than_there_is_names_the_key() -> None:
    with pytest.raises(RequestError, match=r"docs\.documents=100000 exceeds"):
        select(replace(SIZES, documents=100_000))
    with pytest.raises(RequestError, match=r"docs\.long_documents=100000 exceeds"):
        select(replace(SIZES, long_documents=100_000))
