"""Context extensions as they are written, named, and refused with what would suit."""

import json
from typing import Any

import pytest

from lcbench.errors import RequestError
from lcbench.hub.windows import position_kind
from lcbench.repair.extension import Extension, parse
from lcbench.repair.repair import Repair, canonical_of_folder, experiment_folder, parse_all
from lcbench.tempscale.policy import ModelShape, PositionKind
from lcbench.tempscale.policy import parse as parse_policy


def shape(kind: PositionKind | None = "absolute", window: int = 256, positions: int | None = 512):
    return ModelShape(6, window, False, 384, positions, kind)


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        ({"pi": 4096}, "pi=4096"),
        ({"pi": 4096, "short": "kept"}, "pi=4096,short=kept"),
        ({"from": 256, "pi": 512}, "pi=512,from=256"),
        ({"window": 512}, "window=512"),
        ({"window": 4096, "short": 8}, "window=4096,short=8"),
        ({"ntk": 1024, "lambda": 3.0}, "ntk=1024,lambda=3"),
        ({"ntk": 1024, "lambda": 2.5}, "ntk=1024,lambda=2.5"),
        ({"selfextend": 1024, "neighbors": 64, "group": 3}, "selfextend=1024,group=3,neighbors=64"),
    ],
)
def test_an_extension_has_one_name_and_can_be_written_again(value: Any, canonical: str) -> None:
    extension = parse(value)
    assert extension.canonical == canonical
    assert parse(json.loads(json.dumps(extension.written()))) == extension
    parts = {"extend": canonical, "tau": "0.9"}
    assert canonical_of_folder(experiment_folder(parts)) == f"0.9 + extend={canonical}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("pi", "extend=pi is not an extension. Extensions are {pi: 4096}"),
        ({"pi": "4k"}, "the number of tokens to read is 4k, not a whole number of at least 2"),
        ({"pi": True}, "not a whole number of at least 2"),
        ({"pi": None}, "pi takes the number of tokens to read"),
        ({"yarm": 4096}, "Did you mean yarn?"),
        ({"pi": 4096, "gp": 4096}, "a list: 'extend=[{pi: 4096},{gp: 4096}]'"),
        ({"dynamic": 4096}, "an embedding would depend on other texts. ntk and yarn are fixed"),
        ({"gp": 4096, "short": "kept"}, "gp takes from, not short"),
        ({"window": 512, "from": 256}, "window takes short, not from"),
        ({"window": 512, "short": "kept"}, "short is kept, not the distance between positions"),
        ({"window": 512, "short": 1}, "short is 1, not the distance between positions"),
        ({"pi": 4096, "short": 8}, "short takes kept, or is omitted"),
        ({"pi": 4096, "short": "no"}, "short takes kept, or is omitted"),
        ({"ntk": 4096, "lambda": 1}, "lambda is a number above 1"),
        ({"selfextend": 4096, "group": 0}, "group is 0, not a whole number of at least 1"),
    ],
)
def test_what_is_no_extension_is_refused_with_what_is(value: Any, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse(value)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("value", "of_model", "message"),
    [
        (
            {"ntk": 1024},
            shape(),
            "extend={ntk: 1024}: the model's positions are absolute, rows of a table; ntk is for "
            "rotary ones. Suitable: extend={pi: 1024}, {gp: 1024} or {rp: 1024}.",
        ),
        ({"pi": 1024}, shape("relative", positions=None), "Suitable: extend={window: 1024}."),
        ({"rp": 1024}, shape("alibi", positions=None), "linear biases (ALiBi)"),
        ({"pi": 1024}, shape("rotary"), "{linear: 1024}, {ntk: 1024}, {yarn: 1024} or"),
        ({"pi": 128}, shape(), "the model reads 256 tokens of a text without it"),
        ({"window": 256}, shape(), "the model reads 256 tokens of a text without it"),
        (
            {"window": 512, "short": 8},
            shape("rotary"),
            "the model's positions are rotary; short: 8 is for absolute ones",
        ),
        ({"window": 128, "short": 8}, shape(), "the model reads 256 tokens of a text without it"),
        ({"window": 512, "short": 300}, shape(), "too few for every 300th of them"),
        ({"pi": 384}, shape(), "nothing has to be extended: extend={window: 384} reads as many"),
        ({"window": 1024}, shape(), "has positions for 512 tokens. Beyond them: extend={pi: 1024}"),
        ({"pi": 1024, "from": 600}, shape(), "has positions for 512 tokens, not for 600"),
        (
            {"selfextend": 1024, "group": 2, "neighbors": 256},
            shape("rotary"),
            "distances are at most 512 in texts of 768 tokens",
        ),
    ],
)
def test_what_does_not_suit_a_model_is_refused_with_what_does(
    value: Any, of_model: ModelShape, message: str
) -> None:
    with pytest.raises(RequestError) as refused:
        parse(value).resolve(of_model)
    assert message in str(refused.value)


def test_options_that_are_the_defaults_for_a_model_are_left_out() -> None:
    assert parse({"pi": 1024, "from": 512}).resolve(shape()) == Extension("pi", 1024)
    full = parse({"selfextend": 1024, "group": 3, "neighbors": 256}).resolve(shape("rotary"))
    assert full == Extension("selfextend", 1024)
    # The window is the model's, but not what is read of short texts.
    spread = parse({"window": 4096, "short": 8})
    assert spread.resolve(shape(window=4096, positions=4096)) == spread
    # The same window as the model's, from fewer positions: the truth is known.
    true = parse({"pi": 512, "from": 256})
    assert true.resolve(shape(window=512)) == true


@pytest.mark.parametrize(
    ("factor", "scale", "group", "neighbors"), [(2, 3, 3, 256), (4, 5, 5, 128), (8, 10, 9, 64)]
)
def test_defaults_are_those_of_longembed(
    factor: int, scale: int, group: int, neighbors: int
) -> None:
    window = 512 * factor
    assert Extension("ntk", window).base_scale(512, 64) == (scale, "LongEmbed, Table 6")
    assert Extension("selfextend", window).groups(512) == (group, neighbors)
    assert Extension("selfextend", window).reach(512) == window


def test_ntk_elsewhere_scales_by_the_factor_and_the_dimensions() -> None:
    scale, source = Extension("ntk", 1536).base_scale(512, 64)
    assert scale == pytest.approx(3 ** (64 / 62))
    assert source == "s^(d/(d-2))"


def test_a_temperature_by_length_goes_by_the_window_of_the_repair() -> None:
    """Below 512 tokens it is the baseline; with more to read it is not."""
    logn = parse_policy({"length": "logn"})
    model = shape(window=512)
    assert Repair(logn).resolve(model).is_baseline
    both = Repair(logn, extension=Extension("pi", 4096)).resolve(model)
    assert both.canonical == "length_logn_512 + extend=pi=4096"
    assert both.window(512) == 4096
    assert Repair(logn).window(512) == 512


def test_extensions_are_combined_with_temperatures_and_none_is_the_baseline() -> None:
    repairs = parse_all({"tau": [1.0, 0.9], "extend": [None, {"pi": 1024}]})
    assert [one.canonical for one in repairs] == [
        "1",
        "extend=pi=1024",
        "0.9",
        "0.9 + extend=pi=1024",
    ]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (
            {"model_type": "bert", "max_position_embeddings": 512, "rope_parameters": None},
            "absolute",
        ),
        ({"model_type": "llama", "rope_theta": 10000.0, "max_position_embeddings": 512}, "rotary"),
        ({"model_type": "nomic_bert", "rotary_emb_base": 1000, "n_positions": 2048}, "rotary"),
        (
            {
                "model_type": "modernbert",
                "position_embedding_type": "absolute",
                "global_rope_theta": 160000.0,
                "max_position_embeddings": 8192,
            },
            "rotary",
        ),
        ({"model_type": "t5"}, "relative"),
        ({"model_type": "deberta-v2", "relative_attention": True}, "relative"),
        ({"model_type": "bloom"}, "alibi"),
        ({"model_type": "bert", "position_embedding_type": "alibi"}, "alibi"),
        ({"model_type": "mamba"}, None),
    ],
)
def test_the_kind_of_positions_is_read_from_the_configuration(
    config: dict[str, Any], kind: PositionKind | None
) -> None:
    assert position_kind(config) == kind
