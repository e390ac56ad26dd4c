"""What is added is found, bit for bit: later, by others, after SIGKILL; and the bound holds."""

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from lcbench.encode.store import folder as store_folder
from lcbench.encode.store import shelf as module
from lcbench.encode.store.segments import Context, Keys, digests
from lcbench.encode.store.shelf import Shelf, Store, check_writable
from lcbench.errors import RequestError, StorageError
from lcbench.system.process import short_name

EMBEDDINGS = Context("org/model", "abc", 512, "float32", "0.8", "query: ", "v1")
GIB = 2**30


def no_warning(message: str) -> None:
    raise AssertionError(message)


def opened(folder: Path | None, max_bytes: int = GIB) -> Store:
    return Store(folder, max_bytes, no_warning)


def vectors(keys: Keys, dimensions: int = 8) -> NDArray[np.float32]:
    """Return embeddings that only their keys determine: any bits, NaN and infinities too."""
    words = np.frombuffer(keys.tobytes().ljust(16 * len(keys), b"\0"), np.uint32).reshape(-1, 4)
    return np.tile(words, (1, dimensions // 4)).view(np.float32)


def counts(keys: Keys) -> NDArray[np.int32]:
    """Return lengths that only their keys determine."""
    return np.frombuffer(keys.tobytes(), np.uint16).reshape(-1, 8)[:, 0].astype(np.int32)


def texts(start: int, end: int) -> Keys:
    return digests([f"text {i}" for i in range(start, end)])


def add(shelf: Shelf, keys: Keys, dimensions: int = 8) -> None:
    shelf.add(keys, counts(keys), vectors(keys, dimensions))


def found(shelf: Shelf, keys: Keys, dimensions: int = 8) -> NDArray[np.bool_]:
    """Return which keys are found, after a look at every bit of their rows and at their order."""
    out = np.full((len(keys) + 3, dimensions), 7, np.float32)
    rows = np.random.default_rng(0).permutation(len(keys)).astype(np.int64) + 2
    hit = shelf.read(keys, out, rows)
    expected = np.full_like(out, 7)
    expected[rows[hit]] = vectors(keys[hit], dimensions)
    assert out.tobytes() == expected.tobytes()
    return hit


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*/*.arrow"))


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param == "disk" else None


def test_keys_are_the_digests_of_the_texts() -> None:
    keys = digests(["", "a", "\ud800", "a"])
    assert keys.dtype == "S16"
    assert keys.shape == (4,)
    assert keys.tobytes()[:16].hex() == "cae66941d9efbd404e4d88758ea67670"
    assert keys[1] == keys[3] != keys[2]
    assert digests([]).shape == (0,)


def test_embeddings_come_back_bit_for_bit(place: Path | None) -> None:
    keys = texts(0, 1000)
    with opened(place) as store:
        shelf = store.shelf(EMBEDDINGS)
        assert shelf.dimensions is None
        assert not found(shelf, keys).any()
        add(shelf, keys[:600])
        for _ in range(2):
            assert shelf.dimensions == 8
            assert found(shelf, keys).tolist() == [True] * 600 + [False] * 400
            expected = [*counts(keys[:600]), *[-1] * 400]
            assert shelf.lengths(keys).tolist() == expected
            assert shelf.lengths(keys).dtype == np.int32
            store.flush()
        add(shelf, keys[500:])
        assert found(shelf, np.concatenate([keys[::-1], keys[:5]])).all()
        assert found(shelf, keys[:0]).shape == (0,)
        assert shelf.lengths(keys[:0]).shape == (0,)


def test_another_store_of_the_folder_finds_them(tmp_path: Path) -> None:
    keys = texts(0, 1000)
    with opened(tmp_path) as store:
        add(store.shelf(EMBEDDINGS), keys)
    with opened(tmp_path) as store:
        shelf = store.shelf(EMBEDDINGS)
        assert shelf.dimensions == 8
        assert shelf.lengths(keys).tolist() == counts(keys).tolist()
        assert found(shelf, keys).all()
    assert len(segments(tmp_path)) == 1
    # The folder can be read without lcbench: what the rows are is written in every segment.
    schema = pa.ipc.open_file(str(segments(tmp_path)[0])).schema
    assert b'"model": "org/model"' in schema.metadata[b"context"]


def tokens_of_an_earlier_version(folder: Path) -> Path:
    """Write a segment of token ids as versions before this one did, and return its path."""
    context = EMBEDDINGS.described.replace('"kind": "embedding"', '"kind": "tokens"')
    shelf = hashlib.blake2b(context.encode("ascii"), digest_size=16).hexdigest()
    schema = pa.schema(
        [("key", pa.binary(16)), ("tokens", pa.list_(pa.uint16()))],
        metadata={"context": context, "index": "0" * 32, "values": "0" * 32},
    )
    keys = pa.array([key.ljust(16, b"\0") for key in texts(0, 2).tolist()], pa.binary(16))
    rows = pa.RecordBatch.from_arrays(
        [keys, pa.array([[101, 102]] * 2, pa.list_(pa.uint16()))], schema=schema
    )
    path = folder / shelf[:2] / shelf / f"{'0' * 31}1.arrow"
    path.parent.mkdir(parents=True)
    path.write_bytes(as_file(rows))
    return path


def test_tokens_that_earlier_versions_kept_are_left_alone_until_they_are_evicted(
    tmp_path: Path,
) -> None:
    old = tokens_of_an_earlier_version(tmp_path)
    os.utime(old, (1, 1))
    keys = texts(0, 2)
    with opened(tmp_path) as store:
        shelf = store.shelf(EMBEDDINGS)
        assert shelf.lengths(keys).tolist() == [-1, -1]
        assert not found(shelf, keys).any()
        add(shelf, keys)
    with opened(tmp_path) as store:
        assert found(store.shelf(EMBEDDINGS), keys).all()
    assert old.exists()
    with opened(tmp_path, max_bytes=old.stat().st_size) as store:
        add(store.shelf(EMBEDDINGS), texts(2, 3))
    assert not old.exists()


def test_the_identity_of_embeddings_is_that_of_earlier_versions() -> None:
    assert EMBEDDINGS.described == (
        '{"dtype": "float32", "kind": "embedding", "layout": 2, "made_by": "v1", '
        '"model": "org/model", "pooling": null, "prompt": "query: ", "revision": "abc", '
        '"role": "", "temperature": "0.8", "window": 512}'
    )
    assert EMBEDDINGS.digest == "09da1f71d00c30213103c91d11101a16"


def test_keys_that_end_in_zeros_or_are_nearly_equal() -> None:
    raw = [bytes(16), bytes(15) + b"\1", b"\1" + bytes(15), b"\1" + bytes(14) + b"\1"]
    raw += [b"a" * n + bytes(16 - n) for n in range(1, 16)] + [b"a" * 15 + b"\0", b"a" * 16]
    keys = np.frombuffer(b"".join(dict.fromkeys(raw)), "S16")
    with opened(None) as store:
        shelf = store.shelf(EMBEDDINGS)
        add(shelf, keys[::2])
        for _ in range(2):
            assert found(shelf, keys).tolist() == [i % 2 == 0 for i in range(len(keys))]
            store.flush()
        add(shelf, keys)
        assert found(shelf, keys).all()


@pytest.mark.parametrize("field", [field.name for field in fields(Context)])
def test_contexts_that_differ_in_one_field_share_nothing(place: Path | None, field: str) -> None:
    other: dict[str, Any] = {"window": 511}
    context = replace(EMBEDDINGS, **{field: other.get(field, "another")})
    keys = texts(0, 3)
    with opened(place) as store:
        add(store.shelf(EMBEDDINGS), keys)
        store.flush()
        shelf = store.shelf(context)
        assert shelf.lengths(keys).tolist() == [-1] * 3
        assert not found(shelf, keys).any()
        assert store.shelf(replace(context, **{field: getattr(EMBEDDINGS, field)})) is store.shelf(
            EMBEDDINGS
        )


def test_rows_of_another_shape_are_refused(place: Path | None) -> None:
    keys = texts(0, 3)
    with opened(place) as store:
        shelf = store.shelf(EMBEDDINGS)
        add(shelf, keys)
        store.flush()
        if place is not None:
            with opened(place) as other, pytest.raises(ValueError, match="not 3 rows of 8"):
                add(other.shelf(EMBEDDINGS), texts(3, 6), 12)
        with pytest.raises(ValueError, match="not 3 rows of 8 dimensions"):
            add(shelf, texts(3, 6), 12)
        with pytest.raises(ValueError, match="has no room"):
            shelf.read(keys, np.zeros((3, 12), np.float32), np.arange(3))


def test_equal_keys_are_kept_once(tmp_path: Path) -> None:
    keys = texts(0, 100)
    with opened(tmp_path) as store:
        add(store.shelf(EMBEDDINGS), np.concatenate([keys, keys]))
        add(store.shelf(EMBEDDINGS), keys)
    with opened(tmp_path) as store:
        # Without a read before it, too.
        add(store.shelf(EMBEDDINGS), keys)
    (segment,) = segments(tmp_path)
    assert pa.ipc.open_file(str(segment)).get_batch(0).num_rows == 100


def test_rows_are_written_when_they_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SEGMENT_BYTES", 100 * (8 * 4 + module._ROW_BYTES))
    keys = texts(0, 1050)
    with opened(tmp_path) as store:
        shelf = store.shelf(EMBEDDINGS)
        for start in range(0, 350, 7):
            add(shelf, keys[start : start + 7])
        store._wait(0)
        assert len(segments(tmp_path)) == 3
        add(shelf, keys[350:])
        store._wait(0)
        assert len(segments(tmp_path)) == 11
        assert found(shelf, keys).all()
    with opened(tmp_path) as store:
        assert found(store.shelf(EMBEDDINGS), keys).all()


def test_a_shelf_that_others_have_displaced_can_be_used(
    place: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HELD_BYTES", 3000)
    keys = texts(0, 20)
    with opened(place) as store:
        shelf = store.shelf(EMBEDDINGS)
        add(shelf, keys[:10])
        assert store.shelf(replace(EMBEDDINGS, temperature="0.1")) is not shelf
        assert shelf._buffer
        for tau in ("0.1", "0.2", "0.3"):
            add(store.shelf(replace(EMBEDDINGS, temperature=tau)), keys)
        store._wait(0)
        assert not shelf._buffer
        assert not shelf._known
        assert found(shelf, keys).tolist() == [True] * 10 + [False] * 10
        add(shelf, keys)
        store.flush()
        assert not shelf._buffer
        assert found(shelf, keys).all()


def test_what_others_write_is_found(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    keys = texts(0, 30)
    for start in range(0, 30, 10):
        # At once, also when the folder's time of change has not moved on.
        add(one.shelf(EMBEDDINGS), keys[start : start + 10])
        assert not found(two.shelf(EMBEDDINGS), keys[start : start + 10]).any()
        one.flush()
        assert found(two.shelf(EMBEDDINGS), keys).tolist() == [
            i < start + 10 for i in range(len(keys))
        ]


def test_a_folder_is_listed_again_only_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        add(store.shelf(EMBEDDINGS), texts(0, 5))
    folder = segments(tmp_path)[0].parent
    os.utime(folder, (time.time() - 60, time.time() - 60))
    listed = []
    names = store_folder.Folder.names
    monkeypatch.setattr(
        store_folder.Folder, "names", lambda self, shelf: listed.append(1) or names(self, shelf)
    )
    with opened(tmp_path) as store:
        for _ in range(5):
            assert found(store.shelf(EMBEDDINGS), texts(0, 6)).tolist() == [True] * 5 + [False]
        assert len(listed) == 1
        os.utime(folder, (time.time() - 50, time.time() - 50))
        assert not found(store.shelf(EMBEDDINGS), texts(5, 6)).any()
        assert len(listed) == 2


WRITER = """
import sys
from pathlib import Path
from lcbench.encode.store import shelf as module
from lcbench.encode.store.shelf import Store
from test_store import EMBEDDINGS, add, found, no_warning, texts
folder, start, end, step, segment = sys.argv[1], *map(int, sys.argv[2:])
module._SEGMENT_BYTES, module._MANY_SMALL = segment, 4
with Store(Path(folder), 2**30, no_warning) as store:
    shelf = store.shelf(EMBEDDINGS)
    print("ready", flush=True)
    for i in range(start, end, step):
        add(shelf, texts(i, i + step), 64)
        assert found(shelf, texts(max(start, i - 500), i + step), 64).all()
        if i // step % 3 == 0:
            store.flush()
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return what starts a process that adds texts from `start` to `end` to a store."""
    started: list[subprocess.Popen[str]] = []
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])

    def start(*numbers: int) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", WRITER, str(tmp_path), *map(str, numbers)]
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_processes_write_at_once_and_lose_nothing(
    tmp_path: Path, writer: Callable[..., subprocess.Popen[str]]
) -> None:
    # Their ranges overlap, they merge all the time, and a reader looks on.
    small = 40 * (64 * 4 + module._ROW_BYTES)
    processes = [writer(0, 1200, 20, small), writer(800, 2000, 20, small)]
    before = np.zeros(2000, np.bool_)
    with opened(tmp_path) as store:
        while any(process.poll() is None for process in processes):
            now = found(store.shelf(EMBEDDINGS), texts(0, 2000), 64)
            # Merging takes nothing away from a reader.
            assert (now | ~before).all()
            before = now
        errors = [process.communicate()[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], errors
        assert found(store.shelf(EMBEDDINGS), texts(0, 2000), 64).all()
    with opened(tmp_path) as store:
        assert found(store.shelf(EMBEDDINGS), texts(0, 2000), 64).all()


def test_what_is_there_after_sigkill_is_whole(
    tmp_path: Path, writer: Callable[..., subprocess.Popen[str]]
) -> None:
    chance = random.Random(0)
    small = 100 * (64 * 4 + module._ROW_BYTES)
    for _ in range(8):
        process = writer(0, 10**6, 20, small)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for segment in segments(tmp_path):
            assert pa.ipc.open_file(str(segment)).num_record_batches == 1
        whole = len(segments(tmp_path))
        with opened(tmp_path) as store:
            hit = found(store.shelf(EMBEDDINGS), texts(0, 20000), 64)
        assert len(segments(tmp_path)) == whole
        assert not list(tmp_path.rglob(".*.tmp"))
    assert hit.sum() > 100


def test_a_killed_writers_leftover_is_removed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        add(store.shelf(EMBEDDINGS), texts(0, 5))
    (segment,) = segments(tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leftover = segment.parent / f".{'0' * 32}.arrow@{short_name()}~{dead.pid}~1.x.tmp"
    others = segment.parent / f".{'0' * 32}.arrow@elsewhere~1.x.tmp"
    for path in (leftover, others):
        path.write_bytes(segment.read_bytes()[:100])
    with opened(tmp_path) as store:
        assert found(store.shelf(EMBEDDINGS), texts(0, 5)).all()
        assert not leftover.exists()
        assert others.exists()
        # Another host's is nobody's after a day.
        os.utime(others, (0, 0))
        add(store.shelf(EMBEDDINGS), texts(5, 9))
    assert not others.exists()


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    names = {}
    with opened(tmp_path) as store:
        for i in range(6):
            before = set(segments(tmp_path))
            add(store.shelf(replace(EMBEDDINGS, temperature=f"0.{i % 2}")), texts(i, i + 1))
            store.flush()
            (names[i],) = set(segments(tmp_path)) - before
    size = names[0].stat().st_size
    for i, path in names.items():
        os.utime(path, (1000 + i, 1000 + i))
    with opened(tmp_path, int(6.5 * size)) as store:
        # Opened, listed and asked for lengths, the others are not used.
        assert store.shelf(replace(EMBEDDINGS, temperature="0.0")).lengths(texts(0, 1)) >= 0
        assert found(store.shelf(replace(EMBEDDINGS, temperature="0.1")), texts(1, 2)).all()
        assert names[1].stat().st_mtime > time.time() - 60
        assert names[0].stat().st_mtime == 1000
        add(store.shelf(EMBEDDINGS), texts(6, 7))
        store.flush()
        left = set(segments(tmp_path))
        assert {i for i, path in names.items() if path in left} == {1, 3, 4, 5}
        assert len(left) == 5
        assert sum(path.stat().st_size for path in left) <= 0.9 * 6.5 * size
        # What is gone is not found, though this process had it in its index.
        assert found(store.shelf(replace(EMBEDDINGS, temperature="0.0")), texts(0, 6)).tolist() == [
            i == 4 for i in range(6)
        ]
        assert found(store.shelf(EMBEDDINGS), texts(6, 7)).all()


def test_a_segment_is_touched_at_most_once_in_minutes(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        add(store.shelf(EMBEDDINGS), texts(0, 1))
    (segment,) = segments(tmp_path)
    os.utime(segment, (1000, 1000))
    with opened(tmp_path) as store:
        for expected in (True, False):
            assert found(store.shelf(EMBEDDINGS), texts(0, 1)).all()
            assert (segment.stat().st_mtime > 1000) is expected
            os.utime(segment, (1000, 1000))


def test_the_bound_holds_after_every_write(
    place: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SEGMENT_BYTES", 100 * (8 * 4 + module._ROW_BYTES))
    bound = 40_000
    with opened(place, bound) as store:
        for i in range(40):
            shelf = store.shelf(replace(EMBEDDINGS, temperature=f"0.{i % 3}"))
            add(shelf, texts(100 * i, 100 * (i + 1)))
            store.flush()
            if place is not None:
                total = sum(path.stat().st_size for path in segments(place))
            else:
                held = store._segments._batches.values()
                total = sum(batch.nbytes for one in held for batch in one.values())
            assert 0 < total <= bound
            assert found(shelf, texts(100 * i, 100 * (i + 1))).all()
            assert not found(shelf, texts(100 * (i - 39), 100 * (i - 38))).any() or i < 39
        assert len(store.shelf(EMBEDDINGS)._known) < 10


def test_in_memory_what_was_read_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(None, 30_000) as store:
        shelf = store.shelf(EMBEDDINGS)
        for i in range(20):
            add(shelf, texts(100 * i, 100 * (i + 1)))
            store.flush()
            assert found(shelf, texts(0, 100)).all()
        assert not found(shelf, texts(100, 200)).any()


def test_a_segment_larger_than_the_bound_goes_too(place: Path | None) -> None:
    with opened(place, 100) as store:
        add(store.shelf(EMBEDDINGS), texts(0, 50))
        assert found(store.shelf(EMBEDDINGS), texts(0, 50)).all()
        store.flush()
        assert not found(store.shelf(EMBEDDINGS), texts(0, 50)).any()
    assert place is None or not segments(place)


def test_other_files_of_the_folder_are_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        add(store.shelf(EMBEDDINGS), texts(0, 50))
    (segment,) = segments(tmp_path)
    others = [
        tmp_path / "ab" / "data" / "part.arrow",
        tmp_path / "part.arrow",
        segment.with_name("part.arrow"),
        segment.with_name("notes.tmp"),
    ]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"precious")
        os.utime(path, (1000, 1000))
    with opened(tmp_path, 100) as store:
        add(store.shelf(EMBEDDINGS), texts(50, 100))
        assert found(store.shelf(EMBEDDINGS), texts(0, 100)).all()
    assert [path.read_bytes() for path in others] == [b"precious"] * 4
    assert set(segments(tmp_path)) == {others[0], others[2]}


def test_small_segments_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MANY_SMALL", 5)
    keys = texts(0, 30)
    with opened(tmp_path) as store, opened(tmp_path) as reader:
        for i in range(30):
            add(store.shelf(EMBEDDINGS), keys[i : i + 1])
            store.flush()
            assert len(segments(tmp_path)) <= 5
            assert found(reader.shelf(EMBEDDINGS), keys).tolist() == [j <= i for j in range(30)]
            assert found(store.shelf(EMBEDDINGS), keys).tolist() == [j <= i for j in range(30)]
            assert len(store.shelf(EMBEDDINGS)._known) == len(segments(tmp_path))
    with opened(tmp_path) as store:
        assert found(store.shelf(EMBEDDINGS), keys).all()


def test_a_merged_segment_was_used_when_its_parts_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        for i in range(4):
            add(store.shelf(EMBEDDINGS), texts(i, i + 1))
            store.flush()
    for i, path in enumerate(segments(tmp_path)):
        os.utime(path, (1000 + i, 1000 + i))
    with opened(tmp_path) as store:
        assert store.shelf(EMBEDDINGS).dimensions == 8
        group = list(store.shelf(EMBEDDINGS)._known)
        store.shelf(EMBEDDINGS)._join(group)
        (merged,) = segments(tmp_path)
        assert merged.stat().st_mtime == 1003
        assert found(store.shelf(EMBEDDINGS), texts(0, 4)).all()


@pytest.mark.parametrize("gone", ["evicted", "merged"])
def test_a_segment_that_goes_between_listing_and_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    with opened(tmp_path) as store:
        for i in range(4):
            add(store.shelf(EMBEDDINGS), texts(i, i + 1))
            store.flush()
    with opened(tmp_path) as store, opened(tmp_path) as other:
        shelf = store.shelf(EMBEDDINGS)
        assert (shelf.lengths(texts(0, 4)) >= 0).all()
        assert (other.shelf(EMBEDDINGS).lengths(texts(0, 4)) >= 0).all()
        if gone == "merged":
            other.shelf(EMBEDDINGS)._join(list(other.shelf(EMBEDDINGS)._known))
            assert len(segments(tmp_path)) == 1
        else:
            segments(tmp_path)[0].unlink()
        assert found(shelf, texts(0, 4)).sum() == (4 if gone == "merged" else 3)


def truncated(content: bytes) -> bytes:
    return content[:-9]


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(content: bytes) -> bytes:
    return b""


def without_a_middle(content: bytes) -> bytes:
    return content[:1000] + content[3000:]


def zeroed(content: bytes) -> bytes:
    return bytes(len(content))


def of_another_context(content: bytes) -> bytes:
    return content.replace(b"org/model", b"org/modem")


def with_a_name_that_is_no_text(content: bytes) -> bytes:
    return content.replace(b"length", b"\xffength")


def without_columns(content: bytes) -> bytes:
    return as_file(pa.RecordBatch.from_arrays([], names=[]))


def with_another_column(content: bytes) -> bytes:
    batch = pa.ipc.open_file(content).get_batch(0).rename_columns(["key", "length", "vector"])
    return as_file(batch)


def of_halves(content: bytes) -> bytes:
    batch = pa.ipc.open_file(content).get_batch(0)
    numbers = batch.column(2).flatten().to_numpy().astype(np.float16)
    halves = pa.FixedSizeListArray.from_arrays(pa.array(numbers), 8)
    return as_file(batch.set_column(2, pa.field("embedding", halves.type), halves))


def with_a_hole(content: bytes) -> bytes:
    batch = pa.ipc.open_file(content).get_batch(0)
    lengths = pa.array([None, *batch.column(1).to_pylist()[1:]], pa.int32())
    return as_file(batch.set_column(1, pa.field("length", pa.int32()), lengths))


def in_two_parts(content: bytes) -> bytes:
    batch = pa.ipc.open_file(content).get_batch(0)
    return as_file(batch.slice(0, 10), batch.slice(10))


def as_file(*batches: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batches[0].schema) as file:
        for batch in batches:
            file.write_batch(batch)
    return bytes(sink.getvalue())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        halved,
        emptied,
        without_a_middle,
        zeroed,
        of_another_context,
        with_a_name_that_is_no_text,
        without_columns,
        with_another_column,
        of_halves,
        with_a_hole,
        in_two_parts,
    ],
)
@pytest.mark.parametrize("when", ["before it is listed", "after"])
def test_a_broken_segment_is_removed(
    tmp_path: Path, damage: Callable[[bytes], bytes], when: str
) -> None:
    with opened(tmp_path) as store:
        add(store.shelf(EMBEDDINGS), texts(0, 100))
    (broken,) = segments(tmp_path)
    with opened(tmp_path) as store:
        add(store.shelf(EMBEDDINGS), texts(100, 200))
    with opened(tmp_path) as store:
        if when == "after":
            assert store.shelf(EMBEDDINGS).dimensions == 8
        content = damage(broken.read_bytes())
        assert content != broken.read_bytes()
        broken.unlink()
        broken.write_bytes(content)
        assert (
            found(store.shelf(EMBEDDINGS), texts(0, 200)).tolist() == [False] * 100 + [True] * 100
        )
        assert len(segments(tmp_path)) == 1
        add(store.shelf(EMBEDDINGS), texts(0, 100))
        assert found(store.shelf(EMBEDDINGS), texts(0, 200)).all()


def test_no_flipped_bit_is_served(tmp_path: Path) -> None:
    keys = texts(0, 40)

    def fill() -> None:
        with opened(tmp_path) as store:
            add(store.shelf(EMBEDDINGS), keys)

    def read() -> list[bool]:
        with opened(tmp_path) as store:
            # Compares every bit, and the lengths below.
            hit = found(store.shelf(EMBEDDINGS), keys)
            lengths = store.shelf(EMBEDDINGS).lengths(keys[hit])
            assert lengths.tolist() == counts(keys[hit]).tolist()
            return hit.tolist()

    fill()
    (segment,) = segments(tmp_path)
    whole = segment.read_bytes()
    chance, damaged = random.Random(0), 0
    for _ in range(300):
        bit = chance.randrange(8 * len(whole))
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        segment.write_bytes(content)
        hit = read()
        assert set(hit) in ({True}, {False})
        # What is damaged is removed; what is padding harms nobody.
        assert segment.exists() is hit[0]
        damaged += not hit[0]
    assert damaged > 100
    fill()
    assert read() == [True] * 40


def test_a_damaged_segment_is_not_merged_into_a_sound_one(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for i in range(4):
            add(store.shelf(EMBEDDINGS), texts(i, i + 1))
            store.flush()
    damaged = segments(tmp_path)[0]
    batch = pa.ipc.open_file(str(damaged)).get_batch(0)
    value = batch.column(2).flatten().buffers()[1].to_pybytes()
    content = damaged.read_bytes()
    at = content.index(value)
    damaged.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with opened(tmp_path) as store:
        assert store.shelf(EMBEDDINGS).dimensions == 8
        store.shelf(EMBEDDINGS)._join(list(store.shelf(EMBEDDINGS)._known))
        assert len(segments(tmp_path)) == 1
        assert found(store.shelf(EMBEDDINGS), texts(0, 4)).sum() == 3


def test_a_segment_that_cannot_be_opened_for_now_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        add(store.shelf(EMBEDDINGS), texts(0, 5))

    def too_many(path: str) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with opened(tmp_path) as store, monkeypatch.context() as patched:
        assert store.shelf(EMBEDDINGS).dimensions == 8
        patched.setattr(pa, "memory_map", too_many)
        assert not found(store.shelf(EMBEDDINGS), texts(0, 5)).any()
        patched.undo()
        assert found(store.shelf(EMBEDDINGS), texts(0, 5)).all()


def test_a_full_disk_costs_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as store:
        add(store.shelf(EMBEDDINGS), texts(0, 5))

    def full(path: Path, write: Callable[[Path], object]) -> None:
        cause = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise StorageError(f"{path} could not be written") from cause

    monkeypatch.setattr(store_folder, "write_atomically", full)
    warnings: list[str] = []
    with Store(tmp_path, GIB, warnings.append) as store:
        for temperature in ("0.8", "0.7"):
            shelf = store.shelf(replace(EMBEDDINGS, temperature=temperature))
            add(shelf, texts(5, 10))
            store.flush()
            add(shelf, texts(10, 15))
        assert found(store.shelf(EMBEDDINGS), texts(0, 15)).tolist() == [True] * 5 + [False] * 10
    (warning,) = warnings
    assert "No space left on device" in warning
    assert "store=none" in warning
    assert len(segments(tmp_path)) == 1


LIMITED = """
import resource, sys
from pathlib import Path
from lcbench.encode.store.shelf import Store
from test_store import EMBEDDINGS, add, found, texts
warnings = []
with Store(Path(sys.argv[1]), 2**30, warnings.append) as store:
    shelf = store.shelf(EMBEDDINGS)
    add(shelf, texts(0, 100))
    store.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    add(shelf, texts(100, 4000))
    store.flush()
    assert found(shelf, texts(0, 4000)).sum() == 100
print(*warnings, sep="|")
"""


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The store of embeddings cannot be written (File too large)")
    assert done.stdout.count("|") == 0
    assert list(tmp_path.glob("*/*/*")) == segments(tmp_path)
    assert len(segments(tmp_path)) == 1


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    # A file is in the way: this holds for root too, whom no permission stops.
    (tmp_path / "file").touch()
    warnings: list[str] = []
    with Store(tmp_path / "file" / "store", GIB, warnings.append) as store:
        add(store.shelf(EMBEDDINGS), texts(0, 5))
        store.flush()
        assert not found(store.shelf(EMBEDDINGS), texts(0, 5)).any()
    assert len(warnings) == 1
    with pytest.raises(RequestError, match=r"store\.folder=.*file.*cannot be written: .*store=no"):
        check_writable(tmp_path / "file" / "store")
    check_writable(tmp_path / "new" / "store")
    assert not list((tmp_path / "new" / "store").iterdir())


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
from lcbench.encode.store.segments import Context, digests
from lcbench.encode.store.shelf import Store
def resident():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
context = Context("embedding", "m", "r", 512, "float32", "", "", "v")
rows, step = 300_000, 5_000
block = np.ones((step, 256), np.float32)
with Store(Path(sys.argv[1]) if len(sys.argv) > 1 else None, 2**30, print) as store:
    shelf = store.shelf(context)
    before = top = resident()
    for start in range(0, rows, step):
        keys = digests([str(i) for i in range(start, start + step)])
        block[:] = np.arange(start, start + step)[:, None]
        shelf.add(keys, np.full(step, 3, np.int32), block)
        top = max(top, resident())
    store.flush()
    for start in range(0, rows, step):
        # From all segments at once.
        numbers = np.arange(start // step, rows, rows // step)
        keys = digests([str(i) for i in numbers])
        assert shelf.read(keys, block, np.arange(step)).all()
        assert (block == numbers[:, None]).all()
        top = max(top, resident())
print(top - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_store(tmp_path: Path) -> None:
    def growth(*words: str) -> float:
        path = os.pathsep.join(sys.path)
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, *words],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    # 300,000 rows of 256 dimensions are 293 MiB. The buffer has 16, twice while it is written, and
    # the allocator keeps what it has once had: 70 to 100 MiB in all, for any number of rows.
    in_memory = growth()
    assert in_memory > 290
    assert growth(str(tmp_path)) < in_memory / 2
    assert sum(path.stat().st_size for path in segments(tmp_path)) > 300_000 * 1024


def test_the_store_does_not_import_pandas() -> None:
    script = """
import sys
import numpy as np
from lcbench.encode.store.segments import Context, digests
from lcbench.encode.store.shelf import Store
with Store(None, 2**30, print) as store:
    context = Context("m", "r", 512, "float32", "", "", "v")
    shelf = store.shelf(context)
    shelf.add(digests(["a"]), np.array([5], np.int32), np.arange(3, dtype=np.float32)[None])
    store.flush()
    out = np.zeros((1, 3), np.float32)
    print(shelf.read(digests(["a"]), out, np.arange(1))[0], out[0], "pandas" in sys.modules)
"""
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )
    assert done.stdout == "True [0. 1. 2.] False\n"


class SlowDisk:
    """Stands for `write_atomically`: writes nothing before it is allowed to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.allowed = threading.Semaphore(0), threading.Event()
        self._write = store_folder.write_atomically
        monkeypatch.setattr(store_folder, "write_atomically", self)

    def __call__(self, path: Path, write: Callable[[Path], object]) -> None:
        self.begun.release()
        assert self.allowed.wait(60)
        self._write(path, write)


def test_rows_that_wait_for_the_disk_can_be_read_and_a_flush_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SEGMENT_BYTES", 100 * (8 * 4 + module._ROW_BYTES))
    disk, keys = SlowDisk(monkeypatch), texts(0, 250)
    with opened(tmp_path) as store:
        shelf = store.shelf(EMBEDDINGS)
        add(shelf, keys)
        assert disk.begun.acquire(timeout=60)
        # Two segments wait, and half a one is not full yet; no row is taken for new.
        assert (len(shelf._sealed), len(segments(tmp_path))) == (2, 0)
        assert found(shelf, keys).all()
        assert (shelf.lengths(keys) == counts(keys)).all()
        add(shelf, keys)
        assert (len(shelf._sealed), len(shelf._buffer)) == (2, 1)
        # A shelf that gives its memory back keeps them until they are written.
        shelf._release()
        assert found(shelf, keys).all()
        flushing = threading.Thread(target=store.flush)
        flushing.start()
        assert segments(tmp_path) == []
        assert flushing.is_alive()
        disk.allowed.set()
        flushing.join(60)
        assert len(segments(tmp_path)) == 3
        assert not shelf._sealed
        assert found(shelf, keys).all()
    with opened(tmp_path) as store:
        assert found(store.shelf(EMBEDDINGS), keys).all()


def test_who_adds_waits_when_too_many_segments_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SEGMENT_BYTES", 100 * (8 * 4 + module._ROW_BYTES))
    disk, most = SlowDisk(monkeypatch), module._MANY_WAITING
    added: list[int] = []
    with opened(tmp_path) as store:
        shelf = store.shelf(EMBEDDINGS)

        def add_all() -> None:
            for i in range(most + 1):
                add(shelf, texts(100 * i, 100 * (i + 1)))
                added.append(i)

        adding = threading.Thread(target=add_all)
        adding.start()
        # The last one is sealed, and then waits until the first is written.
        while len(shelf._sealed) <= most:
            time.sleep(0.001)
        assert added == list(range(most))
        disk.allowed.set()
        adding.join(60)
        assert added == list(range(most + 1))


def test_an_error_of_a_write_that_is_not_the_disks_is_raised_by_the_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, write: Callable[[Path], object]) -> None:
        raise ZeroDivisionError("a defect")

    with opened(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(store_folder, "write_atomically", broken)
            add(store.shelf(EMBEDDINGS), texts(0, 5))
            with pytest.raises(ZeroDivisionError, match="a defect"):
                store.flush()
        assert not found(store.shelf(EMBEDDINGS), texts(0, 5)).any()
        add(store.shelf(EMBEDDINGS), texts(0, 5))
    assert len(segments(tmp_path)) == 1


def test_the_folder_is_listed_only_when_enough_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[int] = []
    superfluous = store_folder._superfluous

    def note(entries: list[Any], max_bytes: int) -> Any:
        listed.append(len(entries))
        return superfluous(entries, max_bytes)

    with opened(tmp_path) as store:
        add(store.shelf(EMBEDDINGS), texts(0, 100))
        store.flush()
    (segment,) = segments(tmp_path)
    size = segment.stat().st_size
    monkeypatch.setattr(store_folder, "_superfluous", note)
    with opened(tmp_path, 20 * size) as store:
        for i in range(1, 9):
            add(store.shelf(EMBEDDINGS), texts(100 * i, 100 * (i + 1)))
            store.flush()
    # With room for 18 segments it is listed after two or three, then after fewer.
    assert listed[0] == 2
    assert 3 <= len(listed) <= 5
