"""Temperatures by layer and head: their files, their identity, and where they are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from exactness import BACK_ENDS, BY_HEAD, EVEN, UNPADDED, heads_file, make, states
from hypothesis import given
from hypothesis import strategies as st

import lcbench
from lcbench.errors import InjectionError, RequestError
from lcbench.tempscale.heads import HeadTemperatures, read_temperatures, temperatures_of
from lcbench.tempscale.heads import write_temperatures as write
from lcbench.tempscale.policy import ByHead, ModelShape, parse

SHAPE = ModelShape(layers=2, heads=4, window=64, position_bias=False)
PLAIN = heads_file([BY_HEAD])
BY_LENGTH = heads_file([BY_HEAD, EVEN], [9, 24])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tuned.json"


@pytest.mark.parametrize("content", [PLAIN, BY_LENGTH], ids=["heads", "by-length"])
def test_a_file_and_its_content_are_one_policy(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))
    policy = parse({"heads": str(path)})
    assert policy == parse({"heads": content}) == parse({"heads": path})
    assert policy.canonical == f"heads_{policy.temperatures.digest}"
    assert len(policy.canonical) == len("heads_") + 12
    # What a manifest has of it, through JSON, without the file.
    path.unlink()
    thawed = parse(json.loads(json.dumps(policy.written())))
    assert (thawed, thawed.canonical) == (policy, policy.canonical)
    assert policy.resolve(SHAPE) == policy
    assert policy.by_head
    assert policy.by_length == (content is BY_LENGTH)


def test_what_is_written_is_read_as_it_was(path: Path) -> None:
    temperatures = temperatures_of({**BY_LENGTH, "revision": "f" * 40, "made": {"by": "hand"}})
    write(temperatures, path)
    again = read_temperatures(path)
    assert again == temperatures
    assert again.made == {"by": "hand"}


def test_identity_is_that_of_temperatures_and_lengths() -> None:
    known = parse({"heads": BY_LENGTH}).canonical
    for same in ({"made": {"by": "hand"}}, {"model": "another"}, {"revision": "main"}):
        assert parse({"heads": {**BY_LENGTH, **same}}).canonical == known
    others = (
        {**BY_LENGTH, "lengths": [9, 25]},
        {**BY_LENGTH, "tau": [EVEN, BY_HEAD]},
        PLAIN,
    )
    assert len({known, *(parse({"heads": other}).canonical for other in others)}) == 4


@pytest.mark.parametrize("keeps_bias", [False, True])
@pytest.mark.parametrize(
    ("content", "simpler"),
    [
        (heads_file([BY_HEAD] * 2, [9, 24]), {"heads": PLAIN}),
        (heads_file([[[0.8] * 4, [1.0] * 4]]), {"layers": {0: 0.8, 1: 1.0}}),
        (heads_file([[[0.8] * 4, [1.0] * 4]] * 2, [9, 24]), {"layers": {0: 0.8, 1: 1.0}}),
        (heads_file([[[0.8] * 4] * 2]), 0.8),
        (heads_file([[[1] * 4] * 2]), 1.0),
    ],
)
def test_temperatures_that_are_alike_are_the_simpler_policy_for_their_model(
    content: dict[str, Any], simpler: Any, keeps_bias: bool
) -> None:
    shape = replace(SHAPE, name="tiny", revision="r", position_bias=True)
    policy, expected = (parse(one, keeps_bias=keeps_bias) for one in ({"heads": content}, simpler))
    assert policy.resolve(shape) == expected.resolve(shape)
    with pytest.raises(RequestError, match="has temperatures for tiny, not for other at revision"):
        policy.resolve(replace(shape, name="other"))


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model is missing"),
    ({"model": 3}, "model=3 is not a text"),
    ({"revision": 3}, "revision=3 is not a text"),
    ({"made": "by hand"}, "made=by hand is not an object"),
    ({"taus": []}, r"taus is not one of .* Did you mean tau\?"),
    ({"layers": 0}, "layers: 0 is not a whole number of at least 1"),
    ({"heads": 4.0}, "heads: 4.0 is not a whole number of at least 1"),
    ({"layers": 3}, "tau has entries for 2 layers, not 3"),
    ({"heads": 3}, "tau, layer 0 has entries for 4 heads, not 3"),
    ({"tau": [BY_HEAD[0], 0.8]}, "tau, layer 1: expected a list of 4 heads, not 0.8"),
    ({"tau": [BY_HEAD[0], [1, 1, 0, 1]]}, "layer 1, head 2: 0 is not a temperature"),
    ({"tau": [BY_HEAD[0], [1, 10**400, 1, 1]]}, "layer 1, head 1: 10+ is not a temperature"),
    ({"tau": [BY_HEAD[0], [1, 1, 1, None]]}, "layer 1, head 3: None is not a temperature"),
    ({"tau": [BY_HEAD[0], [1, "1", 1, 1]]}, "layer 1, head 1: 1 is not a temperature"),
    ({"tau": [BY_HEAD[0], [True, 1, 1, 1]]}, "layer 1, head 0: True is not a temperature"),
    ({"tau": [BY_HEAD[0], [1, 1, 1, float("nan")]]}, "layer 1, head 3: nan is not a temp"),
    ({"lengths": []}, r"lengths=\[\] is not a list of rising numbers of tokens"),
    ({"lengths": 9}, "lengths=9 is not a list of rising numbers of tokens"),
    ({"lengths": [9, 9]}, r"lengths=\[9, 9\] is not a list of rising"),
    ({"lengths": [24, 9]}, r"lengths=\[24, 9\] is not a list of rising"),
    ({"lengths": [0, 9]}, "lengths: 0 is not a whole number of at least 1"),
    ({"lengths": [9, 24, 48], "tau": [BY_HEAD, EVEN]}, "tau has entries for 2 lengths, not 3"),
    ({"lengths": [9, 24], "tau": [BY_HEAD, BY_HEAD[:1]]}, "tau at length 24 has entries for 1 lay"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_is_no_file_of_temperatures_is_refused(
    path: Path, change: dict[str, Any], message: str
) -> None:
    path.write_text(json.dumps({**PLAIN, **change}))
    with pytest.raises(RequestError, match=message) as refused:
        parse({"heads": str(path)})
    assert str(refused.value).startswith(f"tau={{heads: {path}}}: ")


def test_what_cannot_be_read_is_refused(path: Path) -> None:
    with pytest.raises(RequestError, match=r"tuned.json}: the file cannot be read .No such file"):
        parse({"heads": str(path)})
    path.write_text("{")
    with pytest.raises(RequestError, match=r"tuned.json}: the file is not JSON"):
        parse({"heads": str(path)})
    path.write_text("[]")
    with pytest.raises(RequestError, match="expected an object"):
        parse({"heads": str(path)})
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="the file is not JSON"):
        parse({"heads": str(path)})
    for value in (0.8, "", None, [str(path)]):
        with pytest.raises(RequestError, match="heads takes a file of temperatures by layer and h"):
            parse({"heads": value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 3}, "has temperatures for 2 layers, and the model has 3"),
        ({"heads": 8}, "has temperatures for 4 heads, and the model has 8"),
        ({"name": "other", "revision": "r"}, "has temperatures for tiny, not for other at rev"),
    ],
)
def test_a_file_for_another_model_is_refused(change: dict[str, Any], message: str) -> None:
    policy = parse({"heads": PLAIN})
    assert policy.resolve(replace(SHAPE, name="tiny", revision="r")) == policy
    with pytest.raises(RequestError, match=message):
        policy.resolve(replace(SHAPE, **change))


def test_a_file_that_names_a_revision_is_for_that_one() -> None:
    policy = parse({"heads": {**PLAIN, "revision": "sha256-1"}})
    # The same weights by another name.
    assert policy.resolve(replace(SHAPE, name="local/copy", revision="sha256-1")) == policy
    with pytest.raises(RequestError, match=r'tiny at revision sha256-1, .* set "revision": null'):
        policy.resolve(replace(SHAPE, name="tiny", revision="sha256-2"))
    with pytest.raises(RequestError, match=r"for other at revision sha256-2.*\(lcbench tune\)\.$"):
        policy.resolve(replace(SHAPE, name="other", revision="sha256-2"))


def test_a_loaded_model_with_other_heads_is_refused_and_unchanged() -> None:
    model = make("BERT")
    before = states(model)
    for change in ({"num_attention_heads": 8}, {"num_hidden_layers": 3}):
        with pytest.raises(RequestError, match="and the model has"):
            lcbench.inject(make("BERT", **change), {"heads": PLAIN})
    assert torch.equal(states(model), before)


def test_layers_that_share_their_weights_must_have_the_same_temperatures() -> None:
    sizes = {"hidden_size": 32, "embedding_size": 16, "num_hidden_layers": 2, "vocab_size": 120}
    sizes |= {"num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
    model = transformers.AlbertModel(transformers.AlbertConfig(**sizes)).eval()
    alike = [BY_HEAD[0]] * 2
    for tau, lengths in ((alike, None), ([alike, [EVEN[0]] * 2], [9, 24])):
        content = heads_file([tau] if lengths is None else tau, lengths)
        with lcbench.inject(model, {"heads": content}) as injection:
            states(model)
            injection.check()
    for content in (PLAIN, heads_file([alike, EVEN], [9, 24])):
        with pytest.raises(InjectionError, match="shared by layers of different temperatures"):
            lcbench.inject(model, {"heads": content})


@pytest.mark.parametrize("back_end", [*BACK_ENDS, UNPADDED])
def test_where_all_heads_have_1_the_model_is_the_baseline_to_the_bit(back_end: str) -> None:
    model = make("BERT")
    model.set_attn_implementation(back_end)
    ones = [[1.0] * 4] * 2
    untouched = states(model)
    # Up to 15 tokens all are 1.
    with lcbench.inject(model, {"heads": heads_file([ones, BY_HEAD], [15, 24])}):
        found = states(model)
    assert torch.equal(found[24:], untouched[24:])
    assert not torch.equal(found[:24], untouched[:24])


def test_the_proof_shows_the_temperatures_of_each_head() -> None:
    with lcbench.inject(make("BERT"), {"heads": PLAIN}) as injection:
        assert injection.proof.tau == tuple(tuple(layer) for layer in BY_HEAD)
        assert injection.proof.largest_error < 1e-5
        assert dict(injection.of_layers) == dict(
            zip(injection.proof.layers, map(tuple, BY_HEAD), strict=True)
        )
    with lcbench.inject(make("BERT"), {"heads": BY_LENGTH}) as injection:
        for layer, first, last in zip(injection.proof.tau, BY_HEAD, EVEN, strict=True):
            assert set(layer) == {*first, *last}


TAUS = st.floats(0.01, 100)


@given(
    st.lists(st.integers(1, 10**5), min_size=2, max_size=5, unique=True).map(sorted),
    st.data(),
)
def test_between_two_lengths_log_tau_is_linear_in_log_n(
    lengths: list[int], data: st.DataObject
) -> None:
    matrices = data.draw(
        st.lists(st.lists(TAUS, min_size=1, max_size=1), min_size=len(lengths))
        .filter(lambda one: len(one) >= len(lengths))
        .map(lambda one: one[: len(lengths)])
    )
    made = HeadTemperatures("m", None, tuple((tuple(one),) for one in matrices), tuple(lengths))
    tokens = data.draw(st.integers(0, 3000))
    found = made.by_length(3000)
    assert found.shape == (3001, 1, 1)
    expected = np.interp(
        np.log(max(1, tokens)), np.log(lengths), np.log([one[0] for one in matrices])
    )
    assert found[tokens, 0, 0] == pytest.approx(np.exp(expected), rel=1e-12)


@pytest.mark.parametrize("content", [PLAIN, BY_LENGTH], ids=["heads", "by-length"])
def test_attention_is_measured_at_the_temperatures_of_heads(content: dict[str, Any]) -> None:
    """An observer sees the weights that the layer used: a wrong temperature raises."""
    from lcbench.measures.attention import attention

    model = make("BERT")
    ids = [list(range(5, 17))]
    found = attention(model, ids, [1.0, {"heads": content}])
    changed = found[found.policy != "1"]
    assert len(changed) == len(found) / 2 == 8
    policy = parse({"heads": content})
    assert isinstance(policy, ByHead)
    taus = policy.of_lengths(12)[12]
    assert changed.groupby("layer").tau.first().tolist() == pytest.approx(taus.mean(axis=1))
    # Smaller temperatures make rows more uneven.
    entropy = changed.entropy.to_numpy() - found[found.policy == "1"].entropy.to_numpy()
    assert np.array_equal(entropy < 0, taus.ravel() < 1)
