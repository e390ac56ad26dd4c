"""SelfExtend: the table of distances, attention by it, batches, and temperatures on top."""

from typing import Any

import pytest
import torch
import transformers
from exactness import make, states_by_text, token_ids
from grouped_attention import by_the_table
from torch.utils._python_dispatch import TorchDispatchMode

from lcbench.repair.extension import Extension
from lcbench.repair.selfextend import IMPLEMENTATION, Groups, _positions_of
from lcbench.system.thirdparty import attention_implementation
from lcbench.tempscale.inject import Injection
from lcbench.tempscale.policy import parse
from lcbench.tempscale.unpadded import boundaries, register

# Cohere rotates neighboring dimensions, the others those that are half of them apart.
CAUSAL = ("Llama", "Qwen3", "Mistral")
BIDIRECTIONAL = ("NomicBERT", "ModernBERT")


def made(architecture: str, **options: Any) -> Any:
    """A model with 64 positions; Mistral sees a little further."""
    wider = {"sliding_window": 80} if architecture == "Mistral" else {}
    return make(architecture, **wider, **options)


def test_the_table_of_distances() -> None:
    """Those of the paper's example, and their mirror image."""
    groups = Groups(2, 4, torch.ones(1), "halves", only_whole=False)
    places = torch.arange(10)
    table = -groups.distances(places, places)
    assert table[0].tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 6, 6]
    assert table[4].tolist() == [-4, -3, -2, -1, 0, 1, 2, 3, 4, 4]
    assert torch.equal(table, -table.T)
    # With groups of one token, or where all are neighbors, they are as they were.
    plain = places[:, None] - places
    for group, neighbors in ((1, 4), (3, 10)):
        groups = Groups(group, neighbors, torch.ones(1), "halves", only_whole=False)
        assert torch.equal(groups.distances(places, places), plain)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_no_distance_within_the_reach_is_beyond_the_old_window(factor: int) -> None:
    extension = Extension("selfextend", 512 * factor)
    groups = Groups(*extension.groups(512), torch.ones(1), "halves", only_whole=False)
    places = torch.arange(extension.reach(512))
    assert groups.distances(places[-1:], places).max() <= 512


@pytest.mark.parametrize("architecture", [*CAUSAL, *BIDIRECTIONAL])
@pytest.mark.parametrize(("group", "neighbors"), [(1, 5), (4, 200)])
def test_with_groups_of_one_or_only_neighbors_it_is_the_model(
    architecture: str, group: int, neighbors: int
) -> None:
    model, text = made(architecture), token_ids(60)
    before = states_by_text(model, text)[0]
    Extension("selfextend", 128, group=group, neighbors=neighbors).apply(model)
    assert torch.allclose(states_by_text(model, text)[0], before, atol=2e-5)


@pytest.mark.parametrize("architecture", ["Llama", "Cohere", "NomicBERT", "ModernBERT", "Qwen3"])
def test_attention_is_that_of_the_table(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a model whose own rotation is done for each pair of tokens at its distance."""
    model = made(architecture).double() if architecture != "Cohere" else cohere()
    text = token_ids(60)
    expected = by_the_table(model, text, group=3, neighbors=16, monkeypatch=monkeypatch)
    before = states_by_text(model, text)[0]
    applied = Extension("selfextend", 120, group=3, neighbors=16).apply(model)
    found = states_by_text(model, text)[0]
    assert (found - expected).abs().max() / expected.abs().max() < 1e-5
    assert (before - expected).abs().max() / expected.abs().max() > 1e-3
    assert applied.proof["rotation"] == ("pairs" if architecture == "Cohere" else "halves")
    assert applied.proof["largest_error"] < 1e-5


def cohere() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.CohereConfig(
        **sizes,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=120,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    model = transformers.CohereModel(config).eval().double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                torch.nn.init.normal_(weight, std=0.25)
    return model


@pytest.mark.parametrize("architecture", [*CAUSAL, *BIDIRECTIONAL])
def test_a_text_is_the_same_alone_and_in_any_batch(architecture: str) -> None:
    """With padding on either side, and without: groups are counted from a text's first token."""
    model = made(architecture)
    texts = [token_ids(n) for n in (101, 64, 9)]
    Extension("selfextend", 128).apply(model)
    alone = [states_by_text(model, text)[0] for text in texts]
    for order, left in (([0, 1, 2], False), ([2, 0], True), ([1, 0], True)):
        together = states_by_text(model, *(texts[one] for one in order), left=left)
        for one, found in zip(order, together, strict=True):
            assert torch.allclose(found, alone[one], atol=3e-5)
    assert torch.equal(states_by_text(model, texts[2])[0], alone[2])


@pytest.mark.parametrize("architecture", ["Llama", "NomicBERT", "ModernBERT"])
def test_texts_may_lie_in_one_row_without_padding(architecture: str) -> None:
    model = made(architecture, attn_implementation=register())
    lengths = (101, 40)
    texts = [token_ids(n) for n in lengths]
    Extension("selfextend", 128).apply(model)
    row = torch.cat(texts, dim=1)
    places = torch.cat([torch.arange(n) for n in lengths])[None]
    with torch.no_grad():
        found = model(input_ids=row, position_ids=places, **boundaries(lengths)).last_hidden_state
    for text, part in zip(texts, found[0].split(lengths), strict=True):
        assert torch.allclose(part, states_by_text(model, text)[0], atol=3e-5)


@pytest.mark.parametrize("architecture", ["Llama", "ModernBERT"])
@pytest.mark.parametrize("policy", [0.7, {"length": {0: 1.0, 20: 0.5}}], ids=str)
def test_a_temperature_divides_the_logits_of_the_groups(architecture: str, policy: Any) -> None:
    """The proof of a temperature takes them into account, also where the probe is grouped."""
    model, text = made(architecture), token_ids(60)
    Extension("selfextend", 128, group=3, neighbors=4, start=60).apply(model)
    before = states_by_text(model, text)[0]
    with Injection(model, parse(policy)) as injection:
        assert injection.proof.largest_error < 1e-5
        assert not torch.allclose(states_by_text(model, text)[0], before, atol=1e-3)
    assert torch.equal(states_by_text(model, text)[0], before)


@pytest.mark.parametrize("architecture", [*CAUSAL, *BIDIRECTIONAL])
def test_a_model_is_restored(architecture: str) -> None:
    model, text = made(architecture), token_ids(60)
    before, name = states_by_text(model, text)[0], attention_implementation(model.config)
    applied = Extension("selfextend", 128).apply(model)
    assert attention_implementation(model.config) == IMPLEMENTATION
    applied.remove()
    assert attention_implementation(model.config) == name
    assert torch.equal(states_by_text(model, text)[0], before)
    assert not any("_lcbench_selfextend" in module.__dict__ for module in model.modules())


def test_positions_are_on_the_device_of_the_layer() -> None:
    """Where a model is spread over several GPUs, token ids are on the first of them."""
    groups = Groups(2, 4, torch.ones(1), "halves", only_whole=False)
    groups.texts.places = groups.texts.within = torch.arange(6)[None]
    query = torch.empty(1, 1, 6, 4, device="meta")
    assert {one.device.type for one in _positions_of(groups, query)} == {"meta"}


class Tf32(TorchDispatchMode):
    """Rounds the factors of products as TF32 does, to 10 bits."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.__name__.partition(".")[0] in ("mm", "bmm") and args[0].shape[-1] > 1:
            args = [
                ((one.view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)
                if one.dtype == torch.float32
                else one
                for one in args
            ]
        return func(*args, **(kwargs or {}))


def test_the_check_stands_a_protocol_in_tf32() -> None:
    model = made("Llama")
    with Tf32():
        applied = Extension("selfextend", 128).apply(model)
    assert applied.proof["largest_error"] < 1e-6
