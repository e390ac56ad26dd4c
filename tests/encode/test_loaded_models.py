"""What is loaded is what was asked for: weights, kinds of models, digests, files."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import transformers
from engines import engine_of, settings
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_models import tiny_transformer
from tokenizers.pre_tokenizers import ByteLevel

import lcbench
from lcbench.encode.load import load
from lcbench.errors import InjectionError, MissingError, RequestError
from lcbench.hub.models import LocatedModel, locate
from lcbench.repair.repair import Repair
from lcbench.results.cell import Protocol
from lcbench.run.export import export
from lcbench.tempscale.policy import parse

Make = Callable[[str], Path]
TEXTS = ["A short text.", "The temperature divides the logits. " * 5]


@pytest.fixture
def copy(tmp_path: Path, make_model: Make) -> Callable[..., Path]:
    def make(architecture: str = "bert", name: str = "copy") -> Path:
        return Path(shutil.copytree(make_model(architecture), tmp_path / name))

    return make


@pytest.fixture
def plain(tmp_path: Path, minilm_folder: Path) -> Callable[..., Path]:
    """A transformers checkpoint with a tokenizer, and no modules.json."""

    def make(model: transformers.PreTrainedModel, name: str = "plain") -> Path:
        model.save_pretrained(tmp_path / name)
        for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            shutil.copy(minilm_folder / file, tmp_path / name / file)
        return tmp_path / name

    return make


def found(folder: Path, **changes: object) -> LocatedModel:
    return locate(settings(folder, **changes), offline=True)


def loaded(folder: Path, **changes: object) -> SentenceTransformer:
    return load(found(folder, **changes), device="cpu", dtype="float32")


def change_weights(folder: Path, change: Callable[[dict], dict]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


LACKING = {
    "a prefix": lambda w: {f"_orig_mod.{k}": v for k, v in w.items()},
    "a layer": lambda w: {k: v for k, v in w.items() if "layer.1." not in k},
    "everything": lambda w: {"unrelated": next(iter(w.values()))},
    "one weight": lambda w: {k: v for k, v in w.items() if k != "embeddings.LayerNorm.bias"},
}


@pytest.mark.parametrize("kind", LACKING)
def test_weights_that_the_checkpoint_lacks_are_never_random(
    copy: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    folder = copy()
    total = len(load_file(folder / "model.safetensors"))
    change_weights(folder, LACKING[kind])
    lacks = {"one weight": 1, "a layer": 16}.get(kind)
    of = rf"lacks {lacks or '[0-9]+'} of BertModel's {total} weights"
    with pytest.raises(RequestError, match=of) as caught:
        loaded(folder)
    if kind == "one weight":
        assert "embeddings.LayerNorm.bias" in str(caught.value)
    out = tmp_path / "out"
    with pytest.raises(RequestError, match="its checkpoint lacks"):
        export(settings(folder), Repair(parse(0.8)), out, offline=True)
    assert not out.exists()


@pytest.mark.parametrize("layers", [1, 0, -5])
def test_fewer_layers_than_the_checkpoint_has(copy: Callable[..., Path], layers: int) -> None:
    folder = copy()
    change_json(folder / "config.json", num_hidden_layers=layers)
    with pytest.raises(
        RequestError, match=r"weights that BertModel.* does not use: encoder\.layer\."
    ):
        loaded(folder)


def test_another_kind_of_positions_than_this_transformers_has(copy: Callable[..., Path]) -> None:
    folder = copy()
    key = "encoder.layer.0.attention.self.distance_embedding.weight"
    change_weights(folder, lambda w: {**w, key: w["embeddings.position_embeddings.weight"].clone()})
    with pytest.raises(RequestError, match=r"does not use: .*distance_embedding\.weight"):
        loaded(folder)


def test_a_tokenizer_without_its_vocabulary(copy: Callable[..., Path]) -> None:
    folder = copy()
    for path in (*folder.rglob("tokenizer.json"), *folder.rglob("vocab.txt")):
        path.unlink()
    with pytest.raises(RequestError, match=r"its tokenizer has no vocabulary.*tokenizer\.json"):
        loaded(folder)


def test_weights_of_another_shape(copy: Callable[..., Path]) -> None:
    folder = copy()
    change_json(
        folder / "sentence_bert_config.json", model_kwargs={"ignore_mismatched_sizes": True}
    )
    change_json(folder / "config.json", intermediate_size=32)
    with pytest.raises(RequestError, match="lacks 6 of BertModel's"):
        loaded(folder)


def test_a_dense_layer_without_its_weights(tmp_path: Path, make_model: Make) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense

    inner = SentenceTransformer(str(make_model("bert")), device="cpu")
    inner.append(Dense(32, 16))
    inner.save(str(tmp_path / "dense"))
    path = next((tmp_path / "dense").glob("2_Dense/*.safetensors"))
    save_file({"linear.weight": load_file(path)["linear.weight"]}, path)
    with pytest.raises(RequestError, match=r"linear\.bias"):
        loaded(tmp_path / "dense")


def test_heads_and_poolers_change_no_embedding(copy: Callable[..., Path], make_model: Make) -> None:
    expected = SentenceTransformer(str(make_model("bert")), device="cpu").encode(TEXTS)
    folder = copy()
    change_weights(folder, lambda w: {k: v for k, v in w.items() if not k.startswith("pooler")})
    assert np.array_equal(loaded(folder).encode(TEXTS), expected)
    heads = ("cls.predictions.bias", "classifier.weight", "lm_head.weight", "qa_outputs.bias")
    folder = copy(name="heads")
    change_weights(
        folder,
        lambda w: {
            **{f"bert.{k}": v for k, v in w.items()},
            **{head: w["embeddings.LayerNorm.bias"].clone() for head in heads},
        },
    )
    assert np.array_equal(loaded(folder).encode(TEXTS), expected)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet", "deberta", "t5"])
def test_whole_checkpoints_load(architecture: str, make_model: Make) -> None:
    folder = make_model(architecture)
    plain = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert np.array_equal(loaded(folder).encode(TEXTS), plain)


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BertForPreTraining", "BertLMHeadModel"])
def test_an_encoder_saved_with_the_head_it_was_trained_with(
    plain: Callable[..., Path], name: str
) -> None:
    config = tiny_transformer("bert").config
    folder = plain(getattr(transformers, name)(config))
    assert loaded(folder).encode(TEXTS).shape == (2, 32)


def test_shards_bfloat16_and_tied_weights(copy: Callable[..., Path], make_model: Make) -> None:
    import torch

    folder = copy("t5")
    model = tiny_transformer("t5").to(torch.bfloat16)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    there = SentenceTransformer(str(folder), device="cpu", model_kwargs={"torch_dtype": "float32"})
    assert np.array_equal(loaded(folder).encode(TEXTS), there.encode(TEXTS))


@pytest.mark.parametrize("kind", ["CrossEncoder", "MultiVectorEncoder", "SparseEncoder"])
def test_another_kind_of_model_is_refused(copy: Callable[..., Path], kind: str) -> None:
    folder = copy()
    change_json(folder / "config_sentence_transformers.json", model_type=kind)
    with pytest.raises(RequestError, match=rf"is a {kind} .* not an embedding model"):
        found(folder)


@pytest.mark.parametrize("task", ["SequenceClassification", "TokenClassification"])
def test_a_classifier_is_refused(plain: Callable[..., Path], task: str) -> None:
    config = tiny_transformer("bert").config
    folder = plain(getattr(transformers, f"BertFor{task}")(config))
    with pytest.raises(RequestError, match=rf"is a BertFor{task} \(config\.json\)"):
        found(folder)


def test_an_adapter_alone_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(RequestError, match=r"LoRA adapter of org/base, .* Merge it"):
        found(tmp_path)


def test_a_static_model_has_no_attention(copy: Callable[..., Path]) -> None:
    folder = copy()
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.sentence_transformer.modules.StaticEmbedding"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(RequestError, match="has no attention"):
        found(folder)


def test_a_pooling_that_no_file_names(plain: Callable[..., Path]) -> None:
    folder = plain(tiny_transformer("bert"))
    assert (found(folder).assumed_pooling, found(folder).pooling) == ("mean", None)
    same = found(folder, pooling="mean")
    assert (same.assumed_pooling, same.pooling) == (None, None)
    located = found(folder, pooling="cls")
    assert (located.assumed_pooling, located.pooling) == (None, "cls")
    model = loaded(folder, pooling="cls")
    tokens = model[0](model.preprocess(TEXTS[:1]))["token_embeddings"][0, 0].detach().numpy()
    assert np.allclose(model.encode(TEXTS[:1])[0], tokens, atol=1e-6)
    assert not np.allclose(loaded(folder).encode(TEXTS[:1])[0], tokens, atol=1e-2)


def test_a_pooling_is_refused_where_the_model_names_another(make_model: Make) -> None:
    folder = make_model("bert")
    assert found(folder, pooling="mean").pooling is None
    assert found(folder).assumed_pooling is None
    with pytest.raises(RequestError, match=r"model\.pooling=cls: .* its own pooling, mean"):
        found(folder, pooling="cls")


def test_scores_and_embeddings_under_another_pooling_lie_apart() -> None:
    protocol = Protocol("paper", "none", "float32", "test", None, None, None)
    # Known from results that were recorded before there was such a key.
    keys = {one.key for one in (protocol, replace(protocol, pooling="cls"))}
    assert len(keys | {replace(protocol, own_code=True).key}) == 3
    assert protocol.key == "paper-" + _key_without_pooling(protocol)


def _key_without_pooling(protocol: Protocol) -> str:
    import hashlib

    fields = protocol.record
    for name in [name for name in ("subsets", "pooling", "own_code") if not fields[name]]:
        del fields[name]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]


def test_minilm_keeps_its_revision(minilm_folder: Path) -> None:
    assert found(minilm_folder).revision == "sha256-a683a6d1843b7e38"


def test_weights_that_change_after_they_were_found(copy: Callable[..., Path]) -> None:
    folder = copy()
    located = found(folder)
    change_weights(folder, lambda w: {k: v + 1 for k, v in w.items()})
    with pytest.raises(RequestError, match="have changed since this run began"):
        load(located, device="cpu", dtype="float32")


def test_a_model_of_the_hub_that_changes_after_it_was_found(
    tmp_path: Path, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "models--some--model"
    shutil.copytree(make_model("bert"), cache / "snapshots" / ("a" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    located = locate(settings(tmp_path, name="some/model", source="hub"), offline=True)
    assert located.revision == "a" * 40
    load(located, device="cpu", dtype="float32")
    change_weights(located.folder, lambda w: {k: v + 1 for k, v in w.items()})
    with pytest.raises(RequestError, match="have changed since this run began"):
        load(located, device="cpu", dtype="float32")


def test_the_digest_covers_all_that_is_read(copy: Callable[..., Path], tmp_path: Path) -> None:
    folder = copy()
    known = {found(folder).revision}
    shutil.move(folder / "1_Pooling", tmp_path / "elsewhere")
    (folder / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    assert found(folder).revision in known
    change_json(tmp_path / "elsewhere" / "config.json", pooling_mode="cls")
    for name in ("chat_template.jinja", "vectors.bin", "more.tiktoken", "anything.else"):
        known.add(found(folder).revision)
        (folder / name).write_text("x")
    known.add(found(folder).revision)
    assert len(known) == 6
    before = found(folder).revision
    (folder / "README.md").write_text("a card")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("x")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_text("x")
    (folder / "1_Pooling" / "round").symlink_to(folder)
    (folder / "again").symlink_to(folder)
    assert found(folder).revision == before


def test_the_digest_of_an_adapter_covers_its_base(copy: Callable[..., Path]) -> None:
    folder, base = copy(), copy(name="base")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = found(folder).revision
    change_weights(base, lambda w: {k: v + 1 for k, v in w.items()})
    assert found(folder).revision != before


def test_files_that_cannot_be_read(copy: Callable[..., Path]) -> None:
    folder = copy()
    os.mkfifo(folder / "pipe.json")
    with pytest.raises(RequestError, match=r"pipe\.json is not a regular file"):
        found(folder)
    (folder / "pipe.json").unlink()
    (folder / "gone.json").symlink_to("nowhere")
    with pytest.raises(RequestError, match=r"gone\.json: is a dangling link"):
        found(folder)


@pytest.mark.parametrize("name", ["modules.json", "config.json", "1_Pooling/config.json"])
@pytest.mark.parametrize("text", ["\ufeff{}", '{"a": ', "null", "3"])
def test_json_that_is_none_is_named(copy: Callable[..., Path], name: str, text: str) -> None:
    folder = copy()
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=rf"{name} (is not|must be)"):
        found(folder)


def test_a_padding_id_of_null(copy: Callable[..., Path]) -> None:
    folder = copy("roberta")
    change_json(folder / "config.json", pad_token_id=None)
    with pytest.raises(RequestError, match=r"config\.json"):
        found(folder)


def test_a_link_of_a_mirror_that_leads_nowhere_is_missing(
    tmp_path: Path, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mirror" / "some" / "model"
    shutil.copytree(make_model("bert"), folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../blobs/none")
    asked = settings(tmp_path, name="some/model", source="hub")
    with pytest.raises(MissingError, match=r"some/model.*: model\.safetensors"):
        locate(asked, mirror=tmp_path / "mirror", offline=True)


@pytest.mark.parametrize(
    "names", [("vocab.json", "merges.txt"), ("spm.model",), ("tokenizer.model",)]
)
def test_every_kind_of_tokenizer_counts(
    tmp_path: Path, make_model: Make, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mirror" / "some" / "model"
    shutil.copytree(make_model("bert"), folder)
    for path in (folder / "tokenizer.json", folder / "vocab.txt"):
        path.unlink(missing_ok=True)
    asked = settings(tmp_path, name="some/model", source="hub")
    with pytest.raises(MissingError, match=r"some/model.*: tokenizer\.json"):
        locate(asked, mirror=tmp_path / "mirror", offline=True)
    for name in names:
        (folder / name).write_text("{}")
    assert locate(asked, mirror=tmp_path / "mirror", offline=True).folder == folder.resolve()


def test_a_tokenizer_of_a_vocabulary_and_merges_is_read_as_by_the_library(
    tmp_path: Path, make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(make_model("roberta"), tmp_path / "mirror" / "some" / "model"))
    for name in ("tokenizer.json", "vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet()), "th", "Ġth"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nĠ th\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "RobertaTokenizer", "model_max_length": 64})
    )
    asked = settings(tmp_path, name="some/model", source="hub")
    located = locate(asked, mirror=tmp_path / "mirror", offline=True)
    model = load(located, device="cpu", dtype="float32")
    assert model.tokenizer.tokenize("a th") == ["a", "Ġth"]
    plain = SentenceTransformer(str(folder))
    plain.max_seq_length = model.max_seq_length  # RoBERTa's positions are fewer than its rows
    assert np.abs(model.encode(TEXTS) - plain.encode(TEXTS)).max() < 1e-6


def test_the_store_keeps_poolings_apart(plain: Callable[..., Path]) -> None:
    engine, _ = engine_of(plain(tiny_transformer("bert")))
    mean = engine._context(Repair(parse(0.8)), "", None).digest
    engine._identity = replace(engine._identity, pooling="cls")
    assert engine._context(Repair(parse(0.8)), "", None).digest != mean
    engine.close()


@pytest.mark.parametrize("where", ["modules.json", "config.json", "tokenizer_config.json"])
def test_code_of_a_model_does_not_run_unless_it_is_trusted(
    copy: Callable[..., Path], tmp_path: Path, where: str
) -> None:
    folder, ran = copy(), tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Own: pass\n")
    if where == "modules.json":
        entries = json.loads((folder / where).read_text())
        entries[1]["type"] = "own.Own"
        (folder / where).write_text(json.dumps(entries))
    else:
        names = {
            "AutoModel": "own.Own",
            "AutoConfig": "own.Own",
            "AutoTokenizer": ["own.Own", None],
        }
        change_json(folder / where, auto_map=names)
    with suppress(RequestError):
        loaded(folder)
    assert not ran.exists()
    with suppress(RequestError):
        loaded(folder, trust_remote_code=True)
    # So that the marker shows something: the code does run where it is trusted.
    assert ran.exists()


@pytest.mark.parametrize("name", ["model.onnx", "model.gguf", "pytorch_model.bin"])
def test_weights_of_another_format_are_refused(copy: Callable[..., Path], name: str) -> None:
    folder = copy()
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(RequestError, match="safetensors"):
        loaded(folder)


def test_quantised_weights_are_refused(copy: Callable[..., Path]) -> None:
    folder = copy()
    change_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(RequestError, match="could not be loaded"):
        loaded(folder)


def test_code_that_a_model_names_is_part_of_what_it_is(
    copy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trusted or not, one folder gives two models; and code of another repository changes alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = copy()
    plain = found(folder, trust_remote_code=True)
    assert not plain.own_code
    change_json(folder / "config.json", auto_map={"AutoModel": "modeling.Own"})
    assert not found(folder).own_code
    assert found(folder, trust_remote_code=True).own_code
    change_json(folder / "config.json", auto_map={"AutoModel": "org/code--modeling.Own"})
    revisions = {found(folder, trust_remote_code=True).revision}
    reference = tmp_path / "hub" / "models--org--code" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    for commit in ("a" * 40, "b" * 40):
        reference.write_text(commit)
        revisions.add(found(folder, trust_remote_code=True).revision)
    assert len(revisions | {plain.revision}) == 4


def test_sizes_that_are_nested_are_refused_by_name(plain: Callable[..., Path]) -> None:
    """T5Gemma says of its encoder alone how many layers it has; the model is left as it was."""
    sizes = {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8},
        **{"num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 30522},
        **{"max_position_embeddings": 64, "pad_token_id": 0},
    }
    config = transformers.T5GemmaConfig(
        encoder=sizes,
        decoder={**sizes, "cross_attention_hidden_size": 32},
        vocab_size=30522,
        is_encoder_decoder=False,
    )
    model = loaded(plain(transformers.T5GemmaEncoderModel(config)))
    expected = model.encode(TEXTS)
    words = r"T5GemmaEncoderModel: its configuration does not say how many layers it has"
    with pytest.raises(InjectionError, match=words):
        lcbench.inject(model, 0.8)
    assert np.array_equal(model.encode(TEXTS), expected)
