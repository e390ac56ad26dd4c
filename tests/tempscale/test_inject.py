"""TempScale: exact in every layer, undone exactly, and refused where it cannot be proven."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from engines import encoder_of
from exactness import BY_HEAD, EVEN, UNPADDED, heads_file, make, states, weights_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mteb.types import PromptType
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tiny_models import tiny_transformer
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

import lcbench
from lcbench.errors import InjectionError, RequestError
from lcbench.tempscale.attend import LAYER_ATTRIBUTE
from lcbench.tempscale.inject import Injection
from lcbench.tempscale.policy import ByRole, parse

ARCHITECTURES = ("bert", "roberta", "t5")
BACK_ENDS = ("eager", "sdpa")
# In float64, so that only the formula can make a difference. Measured: 6e-15 at most.
TOLERANCE = 1e-12
# Largest relative difference of an embedding between two batches that hold its text, in fp32 on a
# CPU: the noise floor. Measured: 2.6e-7 (BERT) to 7.9e-7 (T5).
NOISE_FLOOR = 5e-6


def ragged_batch() -> dict[str, Tensor]:
    ids = torch.randint(1000, 30000, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 13:] = 0
    mask[2, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def hidden(model: nn.Module) -> Tensor:
    """Return the last hidden states of the tokens that are not padding: [tokens, dimensions]."""
    batch = ragged_batch()
    states: Tensor = model(**batch).last_hidden_state
    return states[batch["attention_mask"].bool()]


def relative(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max() / right.abs().max())


def fold(model: nn.Module, tau: float) -> None:
    """Divide the logits by τ through the weights: an independent way to the same attention."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            parts = name.split(".")
            is_query = "query" in parts or (parts[-2] == "q" and "SelfAttention" in parts)
            if is_query or "relative_attention_bias" in parts:
                weight /= tau


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tau", [0.5, 0.7, 1.5])
def test_injection_equals_weights_divided_by_tau(
    architecture: str, back_end: str, tau: float
) -> None:
    model, folded = (tiny_transformer(architecture).double() for _ in range(2))
    model.set_attn_implementation(back_end)
    folded.set_attn_implementation(back_end)
    fold(folded, tau)
    untouched, expected = hidden(model), hidden(folded)
    with lcbench.inject(model, tau) as injection:
        injected = hidden(model)
        injection.check()
    assert relative(injected, expected) < TOLERANCE
    # A no-op could not pass.
    assert relative(untouched, expected) > 0.01
    assert injection.proof.tau == ((tau,), (tau,))
    assert injection.proof.largest_error < 1e-5


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tau_1_and_removal_are_bit_identical(architecture: str, back_end: str) -> None:
    model = tiny_transformer(architecture)
    model.set_attn_implementation(back_end)
    before = hidden(model)
    with lcbench.inject(model, 1.0):
        assert torch.equal(hidden(model), before)
    handle = lcbench.inject(model, 0.5)
    assert not torch.equal(hidden(model), before)
    handle.remove()
    handle.remove()
    assert torch.equal(hidden(model), before)
    assert model.config._attn_implementation == back_end


def test_an_exception_in_the_context_restores_the_model() -> None:
    model = tiny_transformer("bert")
    before = hidden(model)
    with pytest.raises(ZeroDivisionError), lcbench.inject(model, 0.5):
        raise ZeroDivisionError
    assert torch.equal(hidden(model), before)


def test_two_models_do_not_touch_each_other() -> None:
    one, other = tiny_transformer("bert"), tiny_transformer("bert")
    with lcbench.inject(one, 0.5):
        alone = hidden(one)
    with lcbench.inject(one, 0.5), lcbench.inject(other, 0.9):
        assert torch.equal(hidden(one), alone)
        assert not torch.equal(hidden(other), alone)


def test_injecting_twice_is_an_error_and_leaves_the_first_at_work() -> None:
    model = tiny_transformer("bert")
    with lcbench.inject(model, 0.5):
        scaled = hidden(model)
        with pytest.raises(InjectionError, match="already runs at a temperature"):
            lcbench.inject(model, 0.9)
        assert torch.equal(hidden(model), scaled)


def test_training_mode_is_kept_and_the_proof_runs_without_dropout() -> None:
    model = tiny_transformer("bert").train()
    with lcbench.inject(model, 0.5):
        assert model.training


def test_an_architecture_outside_the_interface_is_refused_by_name() -> None:
    model = tiny_transformer("canine")
    before = hidden(model)
    with pytest.raises(InjectionError, match="CanineModel neither uses the attention interface"):
        lcbench.inject(model, 0.8)
    assert torch.equal(hidden(model), before)


def test_what_is_no_temperature_is_refused() -> None:
    with pytest.raises(RequestError, match="is not a temperature"):
        lcbench.inject(tiny_transformer("bert"), 0)


def test_a_sentence_transformer_is_found_inside(
    make_model: Callable[[str], Path],
) -> None:
    model = SentenceTransformer(str(make_model("roberta")), device="cpu")
    before = model.encode(["a text to embed"])
    with lcbench.inject(model, 0.5) as injection:
        assert (model.encode(["a text to embed"]) != before).any()
        assert len(injection.proof.layers) == 2
    assert (model.encode(["a text to embed"]) == before).all()


def test_a_module_without_a_transformer_is_refused() -> None:
    with pytest.raises(InjectionError, match="holds 0 transformers"):
        lcbench.inject(nn.Linear(2, 2), 0.8)


class OwnSoftmax(nn.Module):
    """An attention layer that ignores every scaling: it computes its own softmax."""

    def __init__(self, replaced: Any) -> None:
        super().__init__()
        self.replaced = replaced

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        shape = (*states.shape[:-1], 4, 8)
        query, key, value = (
            part(states).view(shape).transpose(1, 2)
            for part in (self.replaced.query, self.replaced.key, self.replaced.value)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2) / 8**0.5, dim=-1)
        return (weights @ value).transpose(1, 2).reshape(states.shape), weights


class FusedOfItsOwn(OwnSoftmax):
    """As above, through the fused kernel."""

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        shape = (*states.shape[:-1], 4, 8)
        query, key, value = (
            part(states).view(shape).transpose(1, 2)
            for part in (self.replaced.query, self.replaced.key, self.replaced.value)
        )
        output = nn.functional.scaled_dot_product_attention(query, key, value)
        return output.transpose(1, 2).reshape(states.shape), output


class NoAttention(OwnSoftmax):
    """A layer that does not attend at all."""

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self.replaced.value(states), states


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OwnSoftmax, r"encoder\.layer\.1\.attention\.self \(OwnSoftmax\) computes attention"),
        (FusedOfItsOwn, r"encoder\.layer\.1\.attention\.self \(FusedOfItsOwn\) computes attention"),
        (NoAttention, "1 attention layers were reached, but its configuration has 2"),
    ],
)
def test_a_layer_that_ignores_the_temperature_is_refused(
    kind: type[OwnSoftmax], message: str
) -> None:
    model = tiny_transformer("bert")
    attention = model.encoder.layer[1].attention
    attention.self = kind(attention.self)
    before = hidden(model)
    with pytest.raises(InjectionError, match=message):
        lcbench.inject(model, 0.8)
    assert torch.equal(hidden(model), before)


def test_a_layer_replaced_after_the_injection_is_found_at_the_next_check() -> None:
    model = tiny_transformer("bert")
    with lcbench.inject(model, 0.8) as injection:
        hidden(model)
        injection.check()
        attention = model.encoder.layer[1].attention
        original, attention.self = attention.self, OwnSoftmax(attention.self)
        hidden(model)
        with pytest.raises(InjectionError, match=r"encoder\.layer\.1\.attention\.self no longer"):
            injection.check()
        attention.self = original


def test_a_fresh_layer_without_a_temperature_is_found_at_the_next_check() -> None:
    model, donor = tiny_transformer("bert"), tiny_transformer("bert")
    with lcbench.inject(model, 0.8) as injection:
        attention = model.encoder.layer[0].attention
        original = attention.self
        attention.self = donor.encoder.layer[0].attention.self
        hidden(model)
        with pytest.raises(InjectionError, match=r"encoder\.layer\.0\.attention\.self no longer"):
            injection.check()
        attention.self = original


def test_the_proof_is_cheap(minilm_folder: Path) -> None:
    """A run or two of short texts: 0.06 s were measured on two cores."""
    model = SentenceTransformer(str(minilm_folder), device="cpu")
    runs = []
    model[0].auto_model.register_forward_hook(lambda *_: runs.append(1))
    with lcbench.inject(model, 0.8) as injection:
        assert len(injection.proof.layers) == 6
    assert 1 <= len(runs) <= 3


def apart(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    return float(np.abs(left - right).max() / np.abs(right).max())


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_length_counts_the_tokens_that_are_read(
    make_model: Callable[[str], Path], back_end: str
) -> None:
    model = SentenceTransformer(str(make_model("bert")), device="cpu")
    model[0].auto_model.set_attn_implementation(back_end)
    assert model.max_seq_length == 48
    # Each word is one token; two special ones are added; 48 are read.
    expected = {9: 1.0, 10: 0.8, 45: 0.8, 46: 0.5, 47: 0.5, 200: 0.5}
    texts = {count: "word " * count for count in expected}
    for count, text in texts.items():
        assert model.preprocess([text])["input_ids"].shape[1] == min(count + 2, 48)
    with lcbench.inject(model, {"length": {0: 1.0, 12: 0.8, 48: 0.5}}):
        found = dict(zip(texts, model.encode(list(texts.values())), strict=True))
    for count, tau in expected.items():
        with lcbench.inject(model, tau):
            constant = model.encode([texts[count]])[0]
        assert apart(found[count], constant) < 1e-6
        with lcbench.inject(model, 0.9 * tau):
            assert apart(found[count], model.encode([texts[count]])[0]) > 1e-3


def test_logn_counts_the_tokens_that_are_read(make_model: Callable[[str], Path]) -> None:
    model = SentenceTransformer(str(make_model("bert")), device="cpu")
    # 8, 16 and, truncated, 48 tokens.
    texts = ["word " * 6, "word " * 14, "word " * 99]
    with lcbench.inject(model, {"length": {"logn": 8}}):
        found = model.encode(texts)
    for row, tau in enumerate([1.0, 3 / 4, np.log(8) / np.log(48)]):
        with lcbench.inject(model, float(tau)):
            assert apart(found[row], model.encode([texts[row]])[0]) < 1e-6


@pytest.mark.parametrize("back_end", [*BACK_ENDS, UNPADDED])
@pytest.mark.parametrize("formula", ["logn", "infoscale", "yarn"])
def test_up_to_its_base_a_formula_is_the_baseline_to_the_bit(formula: str, back_end: str) -> None:
    model = make("BERT")
    model.set_attn_implementation(back_end)
    lengths = (24, 15, 7)
    untouched = states(model, lengths)
    with lcbench.inject(model, {"length": {formula: 15}}):
        found = states(model, lengths)
    assert torch.equal(found[24:], untouched[24:])
    assert relative(found[:24], untouched[:24]) > 1e-3


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_as_tau_grows_every_token_gets_the_mean_of_the_values(back_end: str) -> None:
    model = make("BERT")
    model.set_attn_implementation(back_end)
    attention = model.encoder.layer[0].attention.self
    seen: list[tuple[Tensor, Tensor]] = []
    with lcbench.inject(model, 1e9), torch.no_grad():
        attention.register_forward_hook(lambda _, given, found: seen.append((given[0], found[0])))
        model(input_ids=torch.arange(1, 21)[None])
        ((hidden_states, output),) = seen
        values = attention.value(hidden_states)
    mean = values.mean(dim=1, keepdim=True).expand_as(values)
    assert relative(output, mean) < 1e-6
    assert relative(values, mean) > 0.1


@pytest.mark.parametrize(
    "policy",
    [
        0.7,
        {"layers": {1: 0.7}},
        {"length": {0: 0.9, 20: 0.7}},
        {"length": {"infoscale": 6}},
        {"length": {"yarn": 6}},
        {"heads": heads_file([BY_HEAD])},
        {"heads": heads_file([BY_HEAD, EVEN], [4, 30])},
    ],
    ids=str,
)
@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet", "deberta", "t5"])
def test_company_and_padding_change_no_embedding(
    make_model: Callable[[str], Path], architecture: str, policy: Any
) -> None:
    model = SentenceTransformer(str(make_model(architecture)), device="cpu")
    texts = ["word", "a text to embed", "attention divides logits " * 5, "long " * 60]
    with lcbench.inject(model, policy):
        alone = np.stack([model.encode([text])[0] for text in texts])
        together = model.encode(texts)
        backwards = model.encode([*texts[::-1], "word " * 46])[3::-1]
    assert apart(together, alone) < NOISE_FLOOR
    assert apart(backwards, alone) < NOISE_FLOOR


def first_layer_of(injection: Injection) -> Tensor:
    """Return what the first layer divides its queries by in this run."""
    layer = getattr(injection._modules[0], LAYER_ATTRIBUTE)
    found = injection.temperature(layer)
    assert isinstance(found, Tensor)
    return found


def test_temperatures_by_length_are_found_without_asking_the_device() -> None:
    """What a text gets is looked up where its length is counted: a meta tensor has no numbers."""
    transformer = tiny_transformer("bert")
    mask = torch.ones(3, 20, dtype=torch.long, device="meta")
    ids = torch.ones(1, 60, dtype=torch.long, device="meta")
    boundaries = torch.zeros(4, dtype=torch.int32, device="meta")
    with lcbench.inject(transformer, {"length": {0: 1.0, 12: 0.8}}) as injection:
        for given, shape in (
            ({"input_ids": mask, "attention_mask": mask}, (3, 1, 1, 1)),
            ({"input_ids": mask}, (3, 1, 1, 1)),
            ({"input_ids": ids, "cu_seq_lens_q": boundaries}, (1, 1, 60, 1)),
        ):
            injection._find_rows(injection._by_length, (), given)
            rows = first_layer_of(injection)
            assert (rows.shape, rows.dtype, rows.device.type) == (shape, torch.float32, "meta")


def test_temperatures_by_length_are_those_of_the_policy() -> None:
    transformer = tiny_transformer("bert")
    policy = parse({"length": {"logn": 8}})
    mask = (torch.arange(20) < torch.tensor([[20], [13], [5]])).long()
    long = torch.ones(2, 9000, dtype=torch.bool)
    bounds = torch.tensor([0, 3, 3 + 17], dtype=torch.int32)
    cases: list[tuple[dict[str, Tensor], list[int]]] = [
        ({"input_ids": mask, "attention_mask": mask}, [20, 13, 5]),
        ({"input_ids": mask, "attention_mask": mask.float()}, [20, 13, 5]),
        # Longer than any that was looked up before.
        ({"input_ids": long.long(), "attention_mask": long}, [9000, 9000]),
        ({"input_ids": mask}, [20, 20, 20]),
        ({"input_ids": mask[:1], "cu_seq_lens_q": bounds}, [3] * 3 + [17] * 17),
    ]
    with lcbench.inject(transformer, policy) as injection:
        # What the proof says is what was asked for, not what float32 makes of it.
        assert injection.proof.tau == ((policy.of_length(64), 1.0),) * 2
        for given, lengths in cases:
            injection._find_rows(injection._by_length, (), given)
            rows = first_layer_of(injection)
            expected = torch.tensor([policy.of_length(n) for n in lengths], dtype=torch.float32)
            assert torch.equal(rows.flatten(), expected)


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "t5"])
def test_temperatures_by_length_in_float32_change_no_embedding(
    make_model: Callable[[str], Path], architecture: str
) -> None:
    """Against the same in float64, of which scores are made that agree to 1e-6."""
    model = SentenceTransformer(str(make_model(architecture)), device="cpu")
    texts = ["word", "a text to embed", "attention divides logits " * 5, "long " * 60]

    def similarities() -> NDArray[np.float64]:
        found = model.encode(texts, normalize_embeddings=True).astype(np.float64)
        return found @ found.T

    with lcbench.inject(model, {"length": {0: 0.9, 8: 0.7, 20: 0.55}}) as injection:
        single = similarities()
        assert injection._by_length is not None
        assert injection._by_length.table.dtype == torch.float32
        taus = [injection.policy.of_length(tokens) for tokens in range(100)]
        injection._by_length.table = torch.tensor(taus, dtype=torch.float64).view(-1, 1, 1)
        double = similarities()
    assert np.abs(single - double).max() < 1e-6
    assert np.abs(single - similarities()).max() > 1e-3


@pytest.fixture(scope="module")
def exact_bert() -> nn.Module:
    return tiny_transformer("bert").double()


@settings(max_examples=15, deadline=None)
@given(exponent=st.floats(-9, -1), above=st.booleans())
def test_tau_near_1_is_near_the_baseline(
    exact_bert: nn.Module, exponent: float, above: bool
) -> None:
    distance = 10**exponent
    before = hidden(exact_bert)
    with lcbench.inject(exact_bert, 1 + distance if above else 1 - distance):
        change = relative(hidden(exact_bert), before)
    # In proportion to the distance, up to the rounding of float64.
    assert change <= 2 * distance + 1e-14
    assert change >= 0.01 * distance - 1e-14


def entropies(logits: Tensor, tau: float) -> Tensor:
    """Return the entropy of each row's weights by the tests' reference: [rows]."""
    weights = weights_of(logits, torch.tensor(tau, dtype=torch.float64))
    return -torch.xlogy(weights, weights).sum(dim=-1)


@given(
    seed=st.integers(0, 2**32 - 1),
    keys=st.integers(2, 40),
    masked=st.integers(0, 38),
    size=st.floats(0.1, 20),
    smaller=st.floats(0.05, 5),
    factor=st.floats(1.01, 20),
)
def test_a_larger_tau_flattens_and_a_smaller_one_sharpens_every_row(
    seed: int, keys: int, masked: int, size: float, smaller: float, factor: float
) -> None:
    logits = size * torch.randn(5, keys, generator=torch.Generator().manual_seed(seed)).double()
    allowed = keys - min(masked, keys - 2)
    logits[:, allowed:] = -torch.inf
    sharp, flat = entropies(logits, smaller), entropies(logits, smaller * factor)
    # Rows so sharp that float64 gives one key everything stay as they are.
    assert (flat >= sharp - 1e-12).all()
    assert (flat[sharp > 1e-6] > sharp[sharp > 1e-6] - 1e-12).all()
    assert (flat <= np.log(allowed) + 1e-12).all()
    assert torch.allclose(entropies(logits, 1e9), torch.tensor(np.log(allowed)), atol=1e-6)


def test_queries_and_documents_get_their_own_temperature(
    make_model: Callable[[str], Path],
) -> None:
    texts = ["a text to embed", "and one that is longer than the other one"]
    loader = SimpleNamespace(dataset={"text": texts})
    folder = make_model("bert")
    encoder = encoder_of(folder, {"query": 0.5, "document": 0.9})
    metadata = mteb.get_task("STSBenchmark").metadata
    found = {
        prompt: encoder.encode(loader, task_metadata=metadata, prompt_type=prompt)
        for prompt in (PromptType.query, PromptType.document, None)
    }
    again = encoder.encode(loader, task_metadata=metadata, prompt_type=PromptType.query)
    query, document = (encoder_of(folder, tau).embed(texts) for tau in (0.5, 0.9))
    assert np.array_equal(found[PromptType.query], query)
    assert np.array_equal(found[PromptType.document], document)
    # A task without roles treats all text as documents.
    assert np.array_equal(found[None], document)
    assert apart(query, document) > 0.01
    # Equal texts of both roles are kept apart in memory, and each is encoded once.
    assert np.array_equal(again, query)
    assert encoder.counters.encoded_texts == 4
    assert encoder.counters.texts == 8


@pytest.mark.parametrize("policy", [ByRole(0.8, 0.8), {"query": 0.8, "document": 0.8}], ids=str)
def test_roles_at_the_same_temperature_share_embeddings(
    make_model: Callable[[str], Path], policy: Any
) -> None:
    encoder = encoder_of(make_model("bert"), policy)
    query = encoder.embed(["a text to embed"], "query")
    assert np.array_equal(encoder.embed(["a text to embed"], "document"), query)
    assert encoder.counters.encoded_texts == 1


class RemoteConfig(PretrainedConfig):
    """As a repository with code of its own brings one."""

    model_type = "remote-to-lcbench"
    num_hidden_layers = 1


class RemoteAttention(nn.Module):
    """Attention as model repositories write it."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.keys, self.values = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        logits = self.queries(states) @ self.keys(states).transpose(-1, -2) / 8**0.5
        weights = logits.masked_fill(mask[:, None, :] == 0, -1e30).softmax(dim=-1)
        return weights @ self.values(states)


class RemoteModel(PreTrainedModel):
    """A model that transformers knows nothing of."""

    config_class = RemoteConfig

    def __init__(self, config: RemoteConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(100, 8)
        self.mixer = RemoteAttention()
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.mixer(self.words(input_ids), attention_mask)


class RemoteModelThatClaimsTheInterface(RemoteModel):
    """As above, and it says that its attention can be exchanged."""

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True

    _supports_sdpa = True


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (RemoteModel, "RemoteModel neither uses the attention interface"),
        (RemoteModelThatClaimsTheInterface, r"mixer \(RemoteAttention\) computes attention"),
    ],
)
def test_remote_code_with_a_softmax_of_its_own_is_refused_by_name(
    kind: type[RemoteModel], message: str
) -> None:
    torch.manual_seed(0)
    model = kind(RemoteConfig()).eval()
    inputs = {"input_ids": torch.arange(12).view(2, 6), "attention_mask": torch.ones(2, 6)}
    before = model(**inputs)
    with pytest.raises(InjectionError, match=message):
        lcbench.inject(model, 0.8)
    assert torch.equal(model(**inputs), before)
