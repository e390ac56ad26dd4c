"""Extensions of absolute positions: which rows texts get, short and long, and what is restored."""

from typing import Any

import pytest
import torch
from exactness import make, states_by_text, token_ids

from lcbench.errors import InjectionError
from lcbench.repair.extension import Extension
from lcbench.repair.positions import interpolated, rows_of
from lcbench.tempscale.inject import Injection
from lcbench.tempscale.policy import parse
from lcbench.tempscale.unpadded import boundaries, first_position, register

# 64 rows in their tables; RoBERTa, XLM-RoBERTa and MPNet use those after the padding id's.
ARCHITECTURES = ("BERT", "RoBERTa", "XLM-RoBERTa", "MPNet", "ELECTRA", "DistilBERT")
METHODS = ("gp", "rp", "pi")


def made(architecture: str) -> Any:
    sizes = {"max_position_embeddings": 64} if architecture == "DistilBERT" else {}
    return make(architecture, **sizes)


def positions(model: Any) -> int:
    return int(model.config.max_position_embeddings) - first_position(model)


@torch.no_grad()
def states_at(model: Any, text: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The last hidden states of a text whose positions are looked up at the given rows."""
    found = model(input_ids=text, attention_mask=torch.ones_like(text), position_ids=rows[None])
    return found.last_hidden_state[0]


def weights(model: Any) -> dict[str, torch.Tensor]:
    every = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value.detach().clone() for name, value in every.items()}


def test_rows_of_each_method() -> None:
    assert rows_of("gp", 10, 4).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert rows_of("rp", 10, 4).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    # The last three tokens have no row on their right.
    assert rows_of("pi", 8, 4).tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    table = torch.tensor([[0.0, 4.0], [1.0, 0.0], [3.0, 8.0]])
    found = interpolated(table, torch.tensor([0.0, 0.25, 1.5, 2.0], dtype=torch.float64))
    assert found.tolist() == [[0.0, 4.0], [0.25, 3.0], [2.0, 4.0], [3.0, 8.0]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", ["gp", "rp"])
def test_tokens_of_a_long_text_have_the_rows_of_their_method(
    architecture: str, method: str
) -> None:
    """The model itself, told the rows, computes the same bits."""
    model = made(architecture)
    own, first = positions(model), first_position(model)
    length = 2 * own + 5
    text = token_ids(length)
    rows = rows_of(method, length, own).long() + first
    expected = states_at(model, text, rows)
    applied = Extension(method, length).apply(model)
    found = states_by_text(model, text)[0]
    assert torch.equal(found, expected)
    assert applied.proof["positions"] == own
    assert applied.proof["largest_error"] == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "extension",
    [
        Extension("rp", 200),
        Extension("pi", 200, kept=True),
        Extension("pi", 100, start=20, kept=True),
    ],
    ids=str,
)
def test_short_texts_keep_their_bits(architecture: str, extension: Extension) -> None:
    """Up to the old window, alone and beside a longer text."""
    model = made(architecture)
    texts = [token_ids(n) for n in (1, 7, extension.start or positions(model))]
    before = [states_by_text(model, text)[0] for text in texts]
    extension.apply(model)
    assert all(
        torch.equal(states_by_text(model, text)[0], one)
        for text, one in zip(texts, before, strict=True)
    )
    together = states_by_text(model, token_ids(extension.window), *texts)[1:]
    assert all(
        torch.allclose(one, two, atol=2e-5) for one, two in zip(together, before, strict=True)
    )


@pytest.mark.parametrize("architecture", ["BERT", "RoBERTa"])
@pytest.mark.parametrize("method", ["gp", "pi"])
def test_a_fixed_factor_changes_short_texts(architecture: str, method: str) -> None:
    model = made(architecture)
    text = token_ids(12)
    before = states_by_text(model, text)[0]
    Extension(method, 2 * positions(model)).apply(model)
    assert (states_by_text(model, text)[0] - before).abs().max() > 0.1


@pytest.mark.parametrize("architecture", ["BERT", "MPNet"])
def test_interpolated_rows_lie_between_those_of_the_model(architecture: str) -> None:
    model = made(architecture)
    own, first = positions(model), first_position(model)
    table = model.embeddings.position_embeddings.weight.detach().clone()
    proof = Extension("pi", 3 * own).apply(model).proof
    longer = model.embeddings.position_embeddings.weight
    assert torch.equal(longer[:first], table[:first])
    assert torch.equal(longer[first::3], table[first:])
    third = (2 * table[first].double() + table[first + 1].double()) / 3
    assert torch.allclose(longer[first + 1].double(), third, atol=1e-9)
    assert torch.equal(longer[-1], table[-1])
    assert proof["rows_without_right_neighbor"] == 2
    assert proof["largest_error"] <= 2**-24


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "extension", [Extension("pi", 150, kept=True), Extension("gp", 150)], ids=str
)
def test_a_text_is_the_same_alone_and_in_any_batch(architecture: str, extension: Extension) -> None:
    model = made(architecture)
    extension.apply(model)
    texts = [token_ids(n) for n in (150, 70, 9)]
    alone = [states_by_text(model, text)[0] for text in texts]
    for order in ([0, 1, 2], [2, 0], [1, 2]):
        together = states_by_text(model, *(texts[one] for one in order))
        for one, found in zip(order, together, strict=True):
            assert torch.allclose(found, alone[one], atol=2e-5)
    # After any other text.
    assert torch.equal(states_by_text(model, texts[2])[0], alone[2])


@pytest.mark.parametrize("architecture", ["BERT", "RoBERTa"])
def test_texts_may_lie_in_one_row_without_padding(architecture: str) -> None:
    model = make(architecture, attn_implementation=register())
    lengths = (150, 20, positions(model))
    texts = [token_ids(n) for n in lengths]
    Extension("pi", 150, kept=True).apply(model)
    row = torch.cat(texts, dim=1)
    places = torch.cat([torch.arange(n) for n in lengths])[None] + first_position(model)
    with torch.no_grad():
        found = model(input_ids=row, position_ids=places, **boundaries(lengths)).last_hidden_state
    for text, part in zip(texts, found[0].split(lengths), strict=True):
        assert torch.allclose(part, states_by_text(model, text)[0], atol=2e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_is_restored_exactly(architecture: str) -> None:
    model = made(architecture)
    before, config = weights(model), model.config.to_dict()
    parameters = {name: id(one) for name, one in model.named_parameters()}
    for extension in (Extension("pi", 150, kept=True), Extension("rp", 150)):
        applied = extension.apply(model)
        assert model.config.max_position_embeddings >= 150
        applied.remove()
        applied.remove()
    assert {name: id(one) for name, one in model.named_parameters()} == parameters
    assert all(torch.equal(one, before[name]) for name, one in weights(model).items())
    assert model.config.to_dict() == config
    assert "forward" not in model.__dict__


def test_a_temperature_by_length_sees_the_length_that_is_read() -> None:
    """Up to 512 tokens it is 1; of 600 it is log 512 / log 600."""
    model = make("BERT", max_position_embeddings=512)
    with torch.no_grad():
        model.embeddings.position_embeddings.weight.mul_(10)
    policy = parse({"length": "logn"})
    Extension("rp", 600).apply(model)
    text, short = token_ids(600), token_ids(100)
    plain, plain_short = (states_by_text(model, one)[0] for one in (text, short))
    with Injection(model, policy) as injection:
        assert not injection.policy.is_baseline
        assert not torch.allclose(states_by_text(model, text)[0], plain, atol=1e-4)
        assert torch.equal(states_by_text(model, short)[0], plain_short)


def tuned(architecture: str, step: int) -> tuple[Any, Any, torch.Tensor]:
    """A model, the same with rows trained between its own as in E5-Base-4k, and that one's rows."""
    base = made(architecture)
    first, own = first_position(base), positions(base)
    longer = made(architecture)
    Extension("rp", step * own).apply(longer)
    table = longer.embeddings.position_embeddings.weight
    between = torch.randn(table.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        table.copy_(between)
        table[:first] = base.embeddings.position_embeddings.weight[:first]
        table[first::step] = base.embeddings.position_embeddings.weight[first:]
    return base, longer, torch.arange(step * own) + first


@pytest.mark.parametrize("architecture", ["BERT", "RoBERTa", "MPNet"])
def test_short_texts_of_a_tuned_model_are_those_of_its_base(architecture: str) -> None:
    """LongEmbed's E5-Base-4k: position ids of texts of at most 512 tokens are multiplied by 8."""
    base, model, rows = tuned(architecture, 8)
    own = positions(base)
    texts = [token_ids(n) for n in (1, 9, own)]
    long = [token_ids(own + 1), token_ids(8 * own)]
    expected = [states_by_text(base, text)[0] for text in texts]
    expected += [states_at(model, text, rows[: text.shape[1]]) for text in long]
    applied = Extension("window", 8 * own, step=8).apply(model)
    assert applied.proof["step_up_to"] == own
    assert applied.proof["largest_error"] == 0
    alone = [states_by_text(model, text)[0] for text in (*texts, *long)]
    assert all(torch.equal(*pair) for pair in zip(alone, expected, strict=True))
    # By each text, not by the longest of a batch.
    together = states_by_text(model, *long, *texts)
    for found, one in zip(together, (*expected[3:], *expected[:3]), strict=True):
        assert torch.allclose(found, one, atol=2e-5)
    applied.remove()
    again = states_by_text(model, texts[1])[0]
    assert torch.equal(again, states_at(model, texts[1], rows[:9]))
    assert "forward" not in model.__dict__


def test_other_rows_than_those_of_the_step_are_refused() -> None:
    """A model that goes its own way to the table is left as it was."""
    model = made("BERT")
    forward = model.embeddings.forward

    def own_places(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **{**kwargs, "position_ids": None})

    model.embeddings.forward = own_places
    with pytest.raises(InjectionError, match="takes other rows of its position table"):
        Extension("window", 64, step=8).apply(model)
    assert "forward" not in model.__dict__


def test_a_model_that_is_deaf_to_positions_is_refused() -> None:
    """Its short texts would not keep their rows."""
    model, text = made("BERT"), token_ids(12)
    before = states_by_text(model, text)[0]
    forward = model.forward

    def deaf(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("position_ids", None)
        return forward(*args, **kwargs)

    model.forward = deaf
    with pytest.raises(InjectionError, match="takes other rows of its position table"):
        Extension("pi", 128, kept=True).apply(model)
    assert torch.equal(states_by_text(model, text)[0], before)


@pytest.mark.parametrize("architecture", ["Llama", "DeBERTa-v2", "T5"])
def test_a_model_without_a_table_is_refused_and_left_alone(architecture: str) -> None:
    model = make(architecture)
    with pytest.raises(InjectionError, match="0 tables of absolute positions"):
        Extension("pi", 128).apply(model)


def test_a_window_beyond_the_table_is_refused() -> None:
    model = make("RoBERTa")
    proof = Extension("window", positions(model)).apply(model).proof
    assert proof == {"window": positions(model), "positions": positions(model)}
    with pytest.raises(InjectionError, match=r"extend={pi: 64} extends them"):
        Extension("window", positions(model) + 1).apply(make("RoBERTa"))
