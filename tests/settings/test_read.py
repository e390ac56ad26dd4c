"""Every config composes, every key is classified, and what cannot be is refused by its key."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from composed import composed, composed_by_hydra, read
from hydra.errors import HydraException
from omegaconf import OmegaConf

from lcbench.encode.options import StoreSettings
from lcbench.errors import RequestError
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.results.cell import Protocol
from lcbench.settings import configs as settings_configs
from lcbench.settings import frozen as settings_frozen
from lcbench.settings import read as settings
from lcbench.settings import schema, values
from lcbench.settings import sources as settings_sources
from lcbench.settings.configs import config_folder, config_groups
from lcbench.settings.schema import IDENTITY, MEASUREMENT, RUNTIME
from lcbench.tasks import suites
from lcbench.tasks.docs.selection import SyntheticSizes
from lcbench.tasks.suites import shipped_suites
from lcbench.tempscale.policy import Constant, ModelShape

GROUPS = {
    group: sorted(path.stem for path in Path(config_folder(), group).glob("*.yaml"))
    for group in sorted(config_groups())
}

CUSTOM = ("model=custom", "model.name=some/model")


def test_no_key_is_both_identity_and_runtime() -> None:
    assert not IDENTITY & RUNTIME
    assert not MEASUREMENT & (IDENTITY | RUNTIME)


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, names in GROUPS.items() for name in names]
)
def test_every_config_of_every_group_composes(group: str, name: str) -> None:
    extra = ["model.name=some/model"] if name == "custom" else []
    found = read(f"{group}={name}", *extra)
    assert found.tasks
    assert found.repairs[0].is_baseline


@pytest.mark.parametrize("path", sorted(config_folder().rglob("*.yaml")))
def test_every_config_begins_with_the_command_that_uses_it(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))
    assert first.startswith("# python -m lcbench")


@pytest.mark.parametrize(
    "words",
    [
        "",
        "tau=0.5 model=bge model.window=128 launch=slurm",
        "tau={query:0.8,document:1} docs.documents=20",
        "sweep=demo docs.synthetic_lengths=[64,128] model=custom model.name=a/b",
        "results_dir=${oc.env:HOME}/runs suite=paper",
        "+suite.columns.A=[STS12] ~docs.documents",
    ],
)
def test_the_tests_compose_what_hydra_does(words: str) -> None:
    by_hydra = composed_by_hydra(*words.split())
    assert OmegaConf.to_container(composed(*words.split())) == OmegaConf.to_container(by_hydra)
    with pytest.raises(HydraException, match="Could not override 'nothing'"):
        composed(*words.split(), "nothing=1")


def test_every_key_of_every_config_is_classified() -> None:
    configs = sorted(path.stem for path in config_folder().glob("*.yaml"))
    assert {"config", "report", "export", "import_results"} <= set(configs)
    for config in configs:
        content: Any = OmegaConf.to_container(composed(config=config))
        assert set(values._leaves(content)) <= IDENTITY | MEASUREMENT | RUNTIME


def test_the_defaults() -> None:
    found = read()
    assert [model.config for model in found.models] == ["minilm"]
    assert found.repairs == (NO_REPAIR, Repair(Constant(0.8)))
    assert len(found.tasks) == 8
    assert found.results_dir == Path("results/runs")
    assert (found.mirror, found.offline) == (None, False)


def test_a_mirror_is_a_folder_or_an_address() -> None:
    found = read("mirror=some/folder")
    assert (found.mirror, found.hub) == (Path("some/folder"), None)
    found = read("mirror=https://hub.example.org:8090/")
    assert (found.mirror, found.hub) == (None, "https://hub.example.org:8090")


def test_prefetch_takes_every_key_of_a_run() -> None:
    run, prefetch = composed("sweep=demo"), composed("sweep=demo", config="prefetch")
    assert set(prefetch) - set(run) == {"verify"}
    assert set(run) <= set(prefetch)
    assert {key for key in run if run[key] != prefetch[key]} == {"mirror"}


def test_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCBENCH_CACHE", str(tmp_path))
    assert read().store == StoreSettings(tmp_path / "store", 10 * 2**30, is_named=False)
    assert read("store=none").store == StoreSettings(None, 2**30, is_named=False)
    named = read("store.folder=here", "store.max_gib=0.5").store
    assert named == StoreSettings(Path("here"), 2**29, is_named=True)


@pytest.mark.parametrize("config", ["report", "export", "import_results", "tasks"])
def test_what_encodes_nothing_has_no_store(config: str) -> None:
    assert "store" not in composed(config=config)


def test_a_report_has_the_samples_and_the_seed_of_a_run() -> None:
    """A run has no such keys: its report takes the constants."""
    from lcbench.reporting.statistics import RESAMPLES, SEED

    found = settings.read_report(composed(config="report"))
    assert (found.resamples, found.seed) == (RESAMPLES, SEED)
    defaults = schema.ReportSettings(Path("runs"), None, None)
    assert (defaults.resamples, defaults.seed) == (RESAMPLES, SEED)


def test_the_demo() -> None:
    found = read("sweep=demo")
    assert found.models[0].window == 512
    assert [one.policy.written() for one in found.repairs] == [1.0, 0.9, 0.8, 0.7]


def test_the_command_line_wins_over_a_sweep() -> None:
    found = read("sweep=demo", "tau=0.5", "model.window=128")
    assert found.models[0].window == 128
    assert [one.policy.written() for one in found.repairs] == [1.0, 0.5]


def test_the_paper_suite_has_its_columns() -> None:
    suite = next(suite for suite in shipped_suites() if suite.name == "paper")
    assert {column: len(tasks) for column, tasks in suite.columns.items()} == {
        "Class": 8,
        "Clust": 11,
        "Summ": 1,
        "STS": 10,
        "BeirRetr": 2,
        "Rerank": 4,
        "LongEmbRetr": 4,
    }
    assert len(set(suite.tasks)) == 40


@pytest.mark.parametrize(
    ("override", "lengths"),
    [
        ("docs.synthetic_lengths=auto", None),
        ("docs.synthetic_lengths=256", (256,)),
        ("docs.synthetic_lengths=[512,64,512]", (64, 512)),
    ],
)
def test_the_lengths_of_synthetic_documents(override: str, lengths: tuple[int, ...] | None) -> None:
    assert read(override, "docs.synthetic_documents=7").docs.synthetic == SyntheticSizes(lengths, 7)


def test_the_longembed_suite_and_sweep() -> None:
    suite = next(suite for suite in shipped_suites() if suite.name == "longembed")
    assert {column: len(tasks) for column, tasks in suite.columns.items()} == {
        "LongEmbRetr": 4,
        "Needle": 1,
        "Passkey": 1,
    }
    assert set(suite.revisions) == set(suite.tasks)
    found = read("sweep=longembed")
    assert tuple(task.name for task in found.tasks) == suite.tasks
    assert [one.policy.written() for one in found.repairs] == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.1]
    names = settings.model_names(composed("sweep=longembed"))
    assert names == ("ance", "gtr", "gist", "bge", "e5")


def test_longembeds_own_sweep_fits_its_models() -> None:
    """E5-Base and GTE are extended and chunked; E5-Base-4k reads as much by itself."""
    found = read("sweep=longembed_paper")
    assert found.leave_out_unsuited
    assert found.protocol.prompts == "registry"
    fits: dict[int, set[str]] = {}
    for window in (512, 4096):
        shape = ModelShape(12, window, False, 768, window, "absolute")
        for repair in found.repairs:
            with suppress(RequestError):
                fits.setdefault(window, set()).add(repair.resolve(shape).canonical)
    lengths = (1024, 2048, 4096)
    assert fits[512] == {
        "1",
        *(f"length_logn_512 + extend={one}={n}" for one in ("gp", "rp", "pi") for n in lengths),
        *(f"chunks=mean=512,most={n}" for n in lengths),
    }
    assert fits[4096] == {"1", "length_logn_512", "length_logn_512 + extend=window=4096,short=8"}


@pytest.mark.parametrize(
    ("override", "tasks"),
    [
        ("tasks=[STS12,STS13,STS12]", ("STS12", "STS13")),
        ("tasks=STS12", ("STS12",)),
        ("tasks=[DocstringRetrieval]", ("DocstringRetrieval",)),
    ],
)
def test_tasks_take_the_suites_place(override: str, tasks: tuple[str, ...]) -> None:
    assert tuple(task.name for task in read(override).tasks) == tasks


def test_tasks_can_name_suites() -> None:
    assert len(read("tasks=[docs,STS12]").tasks) == 9


def test_a_path_in_a_home_and_one_that_only_looks_like_it() -> None:
    assert read("results_dir='~/runs'").results_dir == Path.home() / "runs"
    assert read("results_dir='~no such user/runs'").results_dir == Path("~no such user/runs")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+tua=0.8"], "tua is not a key. Did you mean tau?"),
        (["+model.windw=1"], "model.windw is not a key. Did you mean model.window"),
        (["tasks=[]"], "tasks=[] is empty"),
        (["tasks=3"], "tasks=3 is not a list"),
        (["tau=[]"], "tau=[] is empty"),
        (["model.window=0"], "model.window=0 is not a whole number of at least 1"),
        (["model.window=1.5"], "model.window=1.5 is not a whole number"),
        (["model.window=true"], "model.window=True is not a whole number"),
        (["model.source=web"], "model.source=web is not one of: package, hub, folder, auto"),
        (["docs.clustering_share=2"], "docs.clustering_share=2.0 is not a share"),
        (["docs.synthetic_lengths=[]"], "docs.synthetic_lengths=[] is neither auto nor a list"),
        (["docs.synthetic_lengths=long"], "docs.synthetic_lengths=long is neither auto nor"),
        (["docs.synthetic_lengths=[1.5]"], "docs.synthetic_lengths=1.5 is not a whole number"),
        (["docs.synthetic_lengths=[512,63]"], "documents need at least 64 tokens"),
        (["docs.synthetic_documents=0"], "docs.synthetic_documents=0 is not a whole number"),
        (["docs.documents=-1"], "docs.documents=-1 is not a whole number of at least 1"),
        (["protocol.dtype=float8"], "protocol.dtype=float8 is not one of: float32"),
        (["protocol.prompts=all"], "protocol.prompts=all is not one of: auto, none"),
        (["engine.device=gpu"], "engine.device=gpu is not a device"),
        (["engine.batch_tokens=0"], "engine.batch_tokens=0 is not a whole number"),
        (["engine.attention=flash"], "engine.attention=flash is not one of: auto, sdpa"),
        (["engine.scoring=-1"], "engine.scoring=-1 is not a whole number of at least 0"),
        (["store.max_gib=0"], "store.max_gib=0 is not a number above 0"),
        (["store.max_gib=-1"], "store.max_gib=-1 is not a number"),
        (["store.max_gib=inf"], "store.max_gib=inf is not a number above 0"),
        (["store.max_gib=nan"], "store.max_gib=nan is not a number"),
        (["store.max_gib=all"], "store.max_gib=all is not a number"),
        (["store.folder=''"], "store.folder= is not a path"),
        (["store.on_disk=1"], "store.on_disk=1 is neither true nor false"),
        (["store=none", "store.folder=here"], "use store=disk store.folder=here"),
        (["+store.max_gb=1"], "store.max_gb is not a key. Did you mean store.max_gib"),
        (["offline=maybe"], "offline=maybe is neither true nor false"),
        (["cell_minutes=0"], "cell_minutes=0 is not a number of at least 0.1"),
        (["cell_minutes=true"], "cell_minutes=True is not a number"),
        ([f"cell_minutes=1{400 * '0'}"], "cell_minutes is a number of 401 digits"),
        (
            ["cell_minutes=5", "engine.scoring=0"],
            "cell_minutes=5 needs scoring processes, which can be ended: engine.scoring=1",
        ),
        (["mirror=''"], "mirror= is not a path"),
        (["results_dir=null"], "results_dir needs a path"),
        (["model=custom"], "model.name has no value yet"),
        (["protocol.name=a/b"], "protocol.name=a/b cannot name a folder"),
        (["model.revision=main"], "is read from a package, which has no revisions"),
        (["model=bge", "model.revision=main", "model.trust_remote_code=true"], "40 digits"),
        (["model.dimensions=0"], "model.dimensions=0 is not a whole number of at least 1"),
        (["model.dimensions=half"], "model.dimensions=half is not a whole number"),
        ([*CUSTOM, "model.special_tokens=eos"], "model.special_tokens=eos is not a list"),
        ([*CUSTOM, "model.special_tokens=[end]"], "of bos and eos, such as [eos]"),
        ([*CUSTOM, "model.matryoshka=64"], "model.matryoshka=64 is neither a list"),
        ([*CUSTOM, "model.matryoshka=[a]"], "model.matryoshka=a is not a whole number"),
        (["tau_bias=halved"], "tau_bias=halved is not one of: divided, kept"),
        (["tau={layer: {0: 1.0}}"], "is not a policy. Did you mean layers?"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(overrides: Sequence[str], message: str) -> None:
    with pytest.raises(RequestError) as refused:
        read(*overrides)
    assert message in str(refused.value)


def test_a_sweeps_models() -> None:
    assert settings.model_names(composed()) is None
    assert settings.model_names(composed("models=[minilm,bge,minilm]")) == ("minilm", "bge")
    assert settings.model_names(composed("models=bge")) == ("bge",)
    for bad in ("models=[]", "models=[3]", "models={a: 1}"):
        with pytest.raises(RequestError, match="is not a list of names"):
            settings.model_names(composed(bad))


@pytest.mark.parametrize(
    ("overrides", "subsets"),
    [
        ([], None),
        (["subsets=[en]"], ("en",)),
        (["subsets=en"], ("en",)),
        (["subsets=[en,de,en]"], ("de", "en")),
        (["protocol=leaderboard"], ("en",)),
        (["protocol=leaderboard", "subsets=[de]"], ("de",)),
        (["protocol=leaderboard", "subsets=all"], None),
    ],
)
def test_subsets_of_the_request_go_before_the_protocols(
    overrides: list[str], subsets: tuple[str, ...] | None
) -> None:
    assert read(*overrides).protocol.subsets == subsets


@pytest.mark.parametrize("value", ["[]", "[false]", "3", "[[en]]", "{a: b}"])
def test_subsets_that_are_none(value: str) -> None:
    with pytest.raises(RequestError, match="subsets="):
        read(f"subsets={value}", "tasks=[STS17]")


# One change of every key, and the tasks it is made under, where it matters.
CHANGES = {
    "model.name": "model=custom model.name=some/model",
    "model.source": "model.source=hub",
    "model.package": "model.package=another",
    "model.revision": f"model=bge model.revision={'0' * 40}",
    "model.window": "model.window=128",
    "model.trust_remote_code": "model.source=folder model.trust_remote_code=true",
    "model.pooling": "model=custom model.name=some/model model.pooling=cls",
    "model.special_tokens": "model=custom model.name=some/model model.special_tokens=[eos]",
    "model.dimensions": "model.dimensions=128",
    "tau": "tau=0.7",
    "tau_bias": "tau_bias=kept",
    "gain": "gain={ffn:0.9}",
    "attend": "attend={attnscale:0.2}",
    "chunks": "chunks=mean",
    "correct": "correct=centre",
    "extend": "extend={pi:1024}",
    "repairs": "repairs=[{tau:0.9,correct:whiten}]",
    "tasks": "tasks=[STS12]",
    "subsets": "subsets=[en]",
    "limit": "limit=5",
    "suite.name": "suite.name=mine",
    "suite.columns": "suite.columns.STS=[STS12]",
    "suite.revisions": f"suite.revisions.STS12={'0' * 40}",
    "protocol.name": "protocol.name=mine",
    "protocol.prompts": "protocol.prompts=registry",
    "protocol.dtype": "protocol.dtype=float16",
    "protocol.subsets": "protocol.subsets=[en]",
    "docs.documents": "docs.documents=399",
    "docs.documents_per_module": "docs.documents_per_module=11",
    "docs.long_documents": "docs.long_documents=259",
    "docs.clustering_sets": "docs.clustering_sets=9",
    "docs.clustering_share": "docs.clustering_share=0.6",
    "docs.synthetic_lengths": "docs.synthetic_lengths=[64]",
    "docs.synthetic_documents": "docs.synthetic_documents=9",
}
# A sweep's models are composed one by one (see the tests of runs).
WITHOUT_A_CHANGE = {"models"}
UNCHANGED = {
    "leave_out_unsuited": "leave_out_unsuited=true",
    "engine.device": "engine.device=cpu",
    "engine.batch_tokens": "engine.batch_tokens=99",
    "engine.scoring": "engine.scoring=0",
    "engine.compile": "engine.compile=true",
    "engine.fuse_qkv": "engine.fuse_qkv=true",
    "engine.graphs": "engine.graphs=true",
    "engine.fp32": "engine.fp32=fp16x3",
    "engine.attention": "engine.attention=eager",
    "store.on_disk": "store=none",
    "store.folder": "store.folder=elsewhere",
    "store.max_gib": "store.max_gib=0.5",
    "mirror": "mirror=somewhere",
    "name": "name=second",
    "offline": "offline=true",
    "results_dir": "results_dir=elsewhere",
    "retries": "retries=0",
    "cell_minutes": "cell_minutes=30",
    "manifest": "manifest=elsewhere",
    "element": "element=3",
    "launch.name": "launch=slurm",
    "launch.elements": "launch.elements=6",
    "launch.hours": "launch.hours=2",
    "launch.tflops": "launch.tflops=20",
    "launch.card": "launch.card=h100",
}


def identity(found: schema.Settings) -> tuple[Any, ...]:
    """Return what of a request its results belong to."""
    return found.models, found.repairs, found.tasks, found.suites, found.protocol, found.docs


def test_every_key_of_identity_changes_what_a_result_belongs_to() -> None:
    assert set(CHANGES) | WITHOUT_A_CHANGE == IDENTITY
    base = identity(read())
    for key, overrides in CHANGES.items():
        config = composed()
        changed = composed(
            *overrides.replace("suite.columns.", "+suite.columns.")
            .replace("suite.revisions.", "+suite.revisions.")
            .split()
        )
        assert OmegaConf.select(changed, key) != OmegaConf.select(config, key), key
        assert identity(settings.read({"minilm": changed})) != base, key


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["suite=paper", "mirror=some/mirror", "store.folder=some/store", "model.window=128"],
        ["tau=[0.8,{query: 0.9},{layers: {3: 0.7}},{length: {256: 0.5}},{length: {logn: 128}}]"],
        ["tau=0.8", "tau_bias=kept", "subsets=[en,de]", "store=none", "engine.scoring=0"],
        ["cell_minutes=2.5", "engine.scoring=1"],
        ["limit=7", "model.label=mine", "name=second"],
        [
            "tasks=NanoBEIR",
            "protocol=leaderboard",
            "docs.synthetic_lengths=[64,128]",
            "offline=true",
        ],
        ["model=bge"],
        ["model=e5-mistral", "model.dimensions=512"],
        ["model=qwen3-8b"],
        ["sweep=repairs"],
        ["correct={abtt: {components: 2, on: docstrings}}"],
    ],
)
def test_what_was_frozen_is_the_same_request(overrides: list[str], tmp_path: Path) -> None:
    asked = read(*overrides)
    frozen = settings_frozen.freeze(asked)
    thawed = settings_frozen.thaw(json.loads(json.dumps(frozen)), tmp_path)
    assert thawed.results_dir == tmp_path
    assert identity(thawed) == identity(asked)
    assert settings_frozen.freeze(thawed) == frozen
    assert thawed.engine == asked.engine
    assert thawed.store == replace(
        asked.store, folder=asked.store.folder and asked.store.folder.absolute()
    )
    if asked.mirror is not None:
        assert thawed.mirror == asked.mirror.absolute()


def test_a_frozen_request_holds_the_temperatures_of_heads(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    content = {"model": "m", "layers": 1, "heads": 2, "tau": [[0.8, 0.9]], "made": {"by": "hand"}}
    path.write_text(json.dumps(content))
    asked = read(f"tau={{heads: {path}}}")
    frozen = settings_frozen.freeze(asked)
    path.write_text("changed since")
    thawed = settings_frozen.thaw(json.loads(json.dumps(frozen)), tmp_path)
    assert thawed.repairs == asked.repairs
    assert thawed.repairs[1].policy.written()["heads"]["made"] == {"by": "hand"}
    assert settings_frozen.freeze(thawed) == frozen


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("", "paper-ef77fa4d"),
        ("protocol=paper protocol.dtype=float16", "paper-cf90f667"),
        ("protocol=paper protocol.dtype=bfloat16", "paper-8a9cda3b"),
        ("protocol=paper protocol.dtype=tf32", "paper-484ec066"),
    ],
)
def test_the_keys_of_results_are_what_they_were(words: str, key: str) -> None:
    """Also of protocols that had a config of their own, and of a rule that was a key."""
    asked = read(*words.split())
    (model,) = asked.models
    protocol = asked.protocol.of(model, has_prompts=True)
    assert (protocol.name, protocol.splits) == ("paper", "test")
    fields = asdict(protocol) | {"window": 256, "texts": None}
    assert Protocol(**fields).key == key
    assert settings_frozen.freeze(asked)["protocol"]["splits"] == "test"


def test_what_was_frozen_does_not_change_with_the_configs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = settings_frozen.freeze(read("suite=paper"))

    def no_config(*_: str) -> Path:
        raise AssertionError("a config was read")

    shipped_suites.cache_clear()
    monkeypatch.setattr(suites, "shipped", no_config)
    for module in (settings_configs, settings_sources):
        monkeypatch.setattr(module, "config_folder", no_config)
    assert len(settings_frozen.thaw(frozen, tmp_path).tasks) == 40


def test_texts_of_a_correction_that_changed_are_no_fault_of_the_version(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    frozen = settings_frozen.freeze(read(f"correct={{centre: {{on: {path}}}}}"))
    path.write_text('{"text": "one"}\n{"text": "three"}\n')
    with pytest.raises(RequestError, match=r"^on: .*a\.jsonl changed since this was planned"):
        settings_frozen.thaw(frozen, tmp_path)


def test_what_another_version_has_frozen_is_refused(tmp_path: Path) -> None:
    frozen = settings_frozen.freeze(read())
    del frozen["protocol"]["prompts"]
    with pytest.raises(RequestError, match=r"do not fit this version of lcbench: .* prompts"):
        settings_frozen.thaw(frozen, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["element=3"], "element=3 needs its sweep"),
        (["manifest=x", "element=-1"], "element=-1 is not a whole number of at least 0"),
        (["launch=slurm", "launch.elements=0"], "launch.elements=0 is not a whole number"),
        (["launch.hours=-1"], "launch.hours=-1 is not a number"),
        (["launch=slurm", "launch.options=x"], "launch.options=x is not a list of words"),
        (["launch=slurm", "launch.gpus=[1]"], "launch.gpus="),
        (["launch=slurm", "launch.requeue=3"], "launch.requeue=3 is neither true nor false"),
    ],
)
def test_launches_that_cannot_be(overrides: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        settings.read_run(composed(*overrides))


def test_a_launch_is_read() -> None:
    asked = settings.read_run(
        composed("launch=slurm", "launch.gpus=1", "launch.time='4:00:00'", "launch.hours=2")
    )
    assert asked.launch.jobs.gpus == "1"
    assert asked.launch.jobs.time == "4:00:00"
    assert (asked.launch.elements, asked.launch.hours) == (None, 2.0)
    assert settings.read_run(composed("launch=slurm")).launch.elements == 20
    both = settings.read_run(composed("launch.hours=2", "launch.elements=3")).launch
    assert (both.elements, both.hours) == (3, 2.0)
    assert settings.read_run(composed()).launch == schema.LaunchSettings("local")


def test_no_runtime_knob_does() -> None:
    assert set(UNCHANGED) <= RUNTIME
    base = identity(read())
    for overrides in UNCHANGED.values():
        assert identity(read(overrides)) == base


@pytest.mark.parametrize("value", ["3", "[a]", "{STS: STS12}", "{STS: [3]}"])
def test_columns_that_are_none(value: str) -> None:
    config = composed()
    parsed: Any = OmegaConf.create(f"x: {value}").x
    OmegaConf.update(config, "suite.columns", parsed, merge=False)
    with pytest.raises(RequestError, match="is not a list of tasks for each column"):
        settings.read({"minilm": config})


@pytest.mark.parametrize("key", ["results_dir", "mirror", "store.folder"])
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, key: str) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    for path in (link, link / "below"):
        with pytest.raises(RequestError, match=r"link is a symbolic link to nowhere, which does"):
            read(f"{key}={path}")
