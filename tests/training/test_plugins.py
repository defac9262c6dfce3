"""What installed packages offer, and how it may be wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest

import headrace
from headrace.model import drift, encoders, members, metrics, networks
from headrace.model.spec import Detector, NetworkName
from headrace.stream.errors import RecoveryError, TaskError
from headrace.stream.ledger import fingerprint
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import rows_of
from headrace.stream.task import Task, plugins, validate
from headrace.stream.training.plugins import REGISTRIES, learner_of
from tests.support.json_rows import normalised, records_of

MODULE = """
import jax.numpy as jnp
from headrace.model.members import by_row

PART = by_row(
    lambda spec: ["words"],
    lambda spec: jnp.zeros(1),
    lambda spec, state, asked: jnp.zeros((1, len(asked.inputs), spec.outputs)),
    lambda spec, state, row, labels: state,
)
"""
TASK = """
name = "t"
METRICS
[input]
topic = "events.t"
[target]
field = "y"
kind = "regress"
[features]
x = { kind = "number" }
c = { kind = "category" }
ENCODED
[model]
hidden = [2]
neighbours = 0
learning_rate = 0.01
MODEL
[drift]
ladder = []
DRIFT
"""
NAMED = {  # by kind: what is put where in the task, and the key of its messages
    "member": ("MODEL", 'members = ["odd"]', "model.members"),
    "network": ("MODEL", 'network = "odd"', "model.network"),
    "detector": ("DRIFT", 'detectors = ["odd"]', "drift.detectors"),
    "encoder": (
        "ENCODED",
        'e = { kind = "encoded", encoder = "odd", width = 2 }',
        "features.e.encoder",
    ),
    "metric": ("METRICS", 'metrics = ["odd"]', "metrics"),
}
EVERY = pytest.mark.parametrize("kind", NAMED)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registries: None) -> Path:
    """Give a place of installed packages; what is registered meanwhile is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def task_of(*kinds: str) -> Task:
    text = TASK
    for kind in kinds:
        place, line, _ = NAMED[kind]
        text = text.replace(place, line)
    for place in ("METRICS", "ENCODED", "MODEL", "DRIFT"):
        text = text.replace(place, "")
    return validate(tomllib.loads(text), "t")


def offer(site: Path, package: str, part: str, kind: str = "member") -> None:
    folder = site / f"{package.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    group = plugins.KINDS[kind].group
    (folder / "entry_points.txt").write_text(f"[{group}]\nodd = {part}\n")


def test_every_kind_has_a_registry_and_its_names() -> None:
    kinds = [registry.kind for registry in REGISTRIES]
    assert sorted(kinds) == sorted(plugins.KINDS) == sorted(NAMED)
    assert networks.NETWORKS.own == get_args(NetworkName) == plugins.KINDS["network"].own
    assert sorted(drift.DETECTORS.own) == sorted(get_args(Detector))


@EVERY
@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("OTHER = 1", "no attribute 'PART'"),
        ("PART = 1", "{kind} 'odd' is a int, expected a"),
    ],
)
def test_what_cannot_be_imported_or_is_something_else_is_told(
    site: Path, kind: str, module: str, told: str
) -> None:
    name = f"odd_{kind}_of_a_test_{len(told)}"
    offer(site, "odd-one", f"{name}:PART", kind)
    (site / f"{name}.py").write_text(module)
    task = task_of(kind)  # reads nothing of it
    with pytest.raises(TaskError) as caught:
        learner_of(task)
    assert str(caught.value).startswith(f"{NAMED[kind][2]}: ")
    assert told.format(kind=kind) in str(caught.value)
    assert f"({name}:PART)" in str(caught.value)


@EVERY
def test_a_name_that_two_packages_offer_or_none_is_told(site: Path, kind: str) -> None:
    key, group = NAMED[kind][2], plugins.KINDS[kind].group
    with pytest.raises(TaskError) as caught:
        learner_of(task_of(kind))
    told = f"{key}: no installed package offers 'odd' (entry point group {group}); there is "
    own = ", ".join(plugins.KINDS[kind].own) or "none"
    assert str(caught.value) == told + own
    offer(site, "odd-one", "odd_a:PART", kind)
    offer(site, "odd-two", "odd_b:PART", kind)
    with pytest.raises(TaskError, match=r"several packages \(odd-one, odd-two\)"):
        learner_of(task_of(kind))


def test_models_of_keras_that_were_read_are_no_names_to_choose(site: Path) -> None:
    networks.register("keras:sha256:" + 64 * "0", networks.NETWORKS["mlp"])
    with pytest.raises(TaskError, match="there is mlp") as caught:
        learner_of(task_of("network"))
    assert "keras" not in str(caught.value)


def test_an_encoder_that_is_not_there_is_told_where_rows_are_made(site: Path) -> None:
    with pytest.raises(TaskError, match=r"^features\.e\.encoder: no installed package offers"):
        Normalizer(task_of("encoder"))


def test_an_opinion_of_a_name_that_is_taken_is_told(site: Path) -> None:
    offer(site, "odd-one", "odd_words_of_a_test:PART")
    (site / "odd_words_of_a_test.py").write_text(MODULE)
    with pytest.raises(TaskError, match="'words' names two opinions"):
        learner_of(task_of("member"))


def test_a_saved_learner_is_refused_with_another_version_of_its_member(
    site: Path, tmp_path: Path
) -> None:
    offer(site, "odd-one", "odd_other_of_a_test:PART")
    (site / "odd_other_of_a_test.py").write_text(MODULE.replace("words", "odd"))
    learner = headrace.Learner(task_of("member"))
    learner.save(tmp_path / "now.hr")
    assert headrace.Learner.load(tmp_path / "now.hr").events == 0
    told = site / "odd_one-1.0.dist-info" / "METADATA"
    told.write_text(told.read_text().replace("Version: 1.0", "Version: 1.1"))
    with pytest.raises(RecoveryError, match=r"'odd-one': '1\.0'.*'odd-one': '1\.1'"):
        headrace.Learner.load(tmp_path / "now.hr")


@EVERY
def test_the_version_of_its_package_is_part_of_what_a_state_depends_on(
    site: Path, kind: str
) -> None:
    offer(site, "odd-one", "odd_never_imported:PART", kind)
    assert fingerprint.settings_of(task_of(kind))["packages"] == {"odd-one": "1.0"}


def test_without_plugins_nothing_is_asked_for_and_settings_are_as_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(**_: Any) -> Any:
        raise AssertionError("asked for entry points")

    monkeypatch.setattr(plugins, "entry_points", none)
    task = task_of()
    settings = fingerprint.settings_of(task)
    assert "packages" not in settings
    assert "metrics" not in settings
    assert "members" not in settings["model"]
    learner_of(task)
    Normalizer(task)


def wrong_alarm(spec: Any) -> Any:
    fold = drift.DETECTORS["ddm"](spec)
    return fold._replace(update=lambda state, observed: (state, fold.update(state, observed)[0]))


def wrong_state(spec: Any) -> Any:
    fold = drift.DETECTORS["ddm"](spec)

    def update(state: Any, observed: Any) -> Any:
        state, alarm = fold.update(state, observed)
        return state[:3], alarm

    return fold._replace(update=update)


def raising(*_: Any) -> Any:
    raise KeyError("what it lacks")


def narrow(spec: Any, rngs: Any) -> Any:
    module = networks.NETWORKS["mlp"](spec, rngs)
    module.head.features += 1
    return module


def demanding(spec: Any, rngs: Any) -> Any:
    raise ValueError("it reads a text: expected one among features")


@pytest.mark.parametrize(
    ("kind", "part", "told"),
    [
        ("network", narrow, ""),
        ("network", demanding, "it reads a text: expected one among features"),
        ("network", lambda spec, rngs: 7, ""),
        ("network", raising, "what it lacks"),
        ("detector", wrong_alarm, ""),
        ("detector", wrong_state, ""),
        ("detector", lambda spec: 7, ""),
        ("detector", raising, "what it lacks"),
        ("metric", metrics.Metric(lambda spec: 7, raising), ""),  # type: ignore[arg-type,return-value]
        ("metric", metrics.Metric(wrong_state, raising), ""),
        ("metric", metrics.Metric(raising, raising), "what it lacks"),
    ],
)
def test_a_part_that_does_not_do_what_it_has_to_is_named(
    site: Path, kind: str, part: Any, told: str
) -> None:
    registry = next(each for each in REGISTRIES if each.kind == kind)
    registry.register("odd", part)
    with pytest.raises(TaskError) as caught:
        headrace.Learner(task_of(kind))
    assert str(caught.value).startswith(f"{NAMED[kind][2]}: 'odd' does not fit: ")
    assert told in str(caught.value)


def test_a_name_is_registered_once() -> None:
    for registry in REGISTRIES:
        part = next(iter(registry.values()), None)
        with pytest.raises(TypeError, match=f"{registry.kind} 'x' is a int, expected a"):
            registry.register("x", 1)
        if part is not None:
            with pytest.raises(ValueError, match="expected a name that no other"):
                registry.register(registry.own[0], [*registry.values()][1])
    for module in (members, networks, drift, encoders, metrics):
        assert callable(module.register)


def test_a_metric_that_fails_tells_so_and_ends_nothing(site: Path) -> None:
    from headrace.model.metrics import make_regression_metrics

    odd = metrics.Metric(lambda spec: make_regression_metrics(), raising)
    metrics.register("odd", odd)
    learner = headrace.Learner(task_of("metric"))
    for at in range(20):
        learner.learn_one({"x": at, "c": "a", "y": 2 * at})
    assert learner.metrics["further"] == {"odd": {"error": "KeyError: 'what it lacks'"}}
    assert learner.metrics["all"]["events"] == 19


def rows(encoder: Any, values: list[str]) -> Any:
    encoders.ENCODERS["odd"] = encoder
    lines = [f'{{"id": {at}, "y": 1, "e": {value}}}' for at, value in enumerate(values)]
    return normalised(task_of("encoder"), [line.encode() for line in lines])


def lengths(values: Any) -> Any:
    """Encode texts, and lists of two numbers as they are."""
    return [each if isinstance(each, list) else (len(each), -0.0) for each in values]


HOSTILE = [
    '"ab"',
    "null",
    "7",
    '{"a": {"b": [1]}}',
    "[1, 2]",
    '["x", 2]',
    "[1, 2, 3]",
    "true",
    '""',
]


def test_events_that_an_encoder_cannot_take_are_refused_alone(site: Path) -> None:
    found, letters = rows(lengths, HOSTILE)
    assert [letter.offset for letter in letters] == [2, 5, 6, 7]  # a dictionary has a length
    assert {letter.code for letter in letters} == {"schema"}
    assert letters[0].detail.startswith("e: '7' cannot be encoded: TypeError: object of type 'int'")
    assert "gave [1, 3], expected [1, 2] numbers" in letters[2].detail
    nan = pytest.approx(float("nan"), nan_ok=True)
    assert found.numeric[:, 1:].tolist() == [[2, 0], [nan, nan], [1, 0], [1, 2], [0, 0]]


@pytest.mark.parametrize(
    "part",
    [
        lambda values: [[1.0, 2.0, 3.0]] * len(values),
        lambda values: None,
        lambda values: [["one", "two"]] * len(values),
        lambda values: [[1j, 2j]] * len(values),
        raising,
    ],
)
def test_an_encoder_that_is_wrong_makes_dead_letters_and_no_crash(site: Path, part: Any) -> None:
    found, letters = rows(part, ['"a"', "null", '"b"', '"c"'])
    assert [letter.code for letter in letters] == ["schema"] * len(letters)
    assert len(found.id) + len(letters) == 4
    assert not np.isfinite(found.numeric[:, 1:]).any()


def test_rows_do_not_depend_on_the_company_of_an_event(site: Path) -> None:
    together, refused = rows(lengths, HOSTILE * 5)
    alone = [rows(lengths, [value]) for value in HOSTILE]
    kept = [found.numeric[0].tobytes() for found, letters in alone if not letters]
    assert [row.tobytes() for row in together.numeric] == kept * 5
    assert len(refused) == 5 * (len(HOSTILE) - len(kept))


def test_what_is_encoded_goes_the_way_of_features_and_is_learned(site: Path) -> None:
    encoders.register("odd", lengths)
    task = task_of("encoder")
    events: list[dict[str, Any] | bytes] = [
        {"id": at, "x": 0, "c": "a", "y": 2.0 * (at % 5), "e": "-" * (at % 5)} for at in range(400)
    ]
    found, letters = normalised(task, events)
    assert not letters
    made, _ = Normalizer(task).features(records_of(events))
    again = rows_of(task, made, [None] * len(made))
    assert again.numeric.tobytes() == found.numeric.tobytes()
    learner = headrace.Learner(task)
    learner.predict_then_learn(events)
    assert (
        learner.metrics["window"]["mae"]
        < 0.5 * learner.metrics["baselines"]["mean"]["window"]["mae"]
    )


def test_an_error_that_is_no_text_is_told_too(site: Path) -> None:
    def strange(values: Any) -> Any:
        raise ValueError("\udcff")

    _, (letter,) = rows(strange, ['"a"'])
    assert msgspec.json.encode(letter)


def test_a_whole_number_of_any_size_is_the_same_in_any_company(site: Path) -> None:
    values = [f"[{2**70}, 3]", "[0.5, 1]", f"[{2**63}, -1]", f"[-1, {2**64 - 1}]", "[true, null]"]
    together, letters = rows(list, values)
    assert not letters
    for value, row in zip(values, together.numeric, strict=True):
        assert rows(list, [value])[0].numeric[0].tobytes() == row.tobytes()


def test_few_events_that_are_refused_cost_few_calls(site: Path) -> None:
    asked: list[int] = []

    def counting(values: Any) -> Any:
        asked.append(len(values))
        return lengths(values)

    found, letters = rows(counting, ['"a"'] * 700 + ["7"] + ['"b"'] * 300)
    assert (len(found.id), len(letters)) == (1000, 1)
    assert len(asked) < 25
    assert sum(asked) < 3100


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ('{"a": 1, "a": 2}', "duplicate_key"),
        ("[" * 12 + "]" * 12, "depth"),
        ("[[[[[[[[[1]]]]]]]]]", "depth"),
        ('[{"a": [[[[[[[[]]]]]]]]}]', "depth"),
    ],
)
def test_what_is_encoded_is_decoded_as_strictly_as_all_else(
    site: Path, value: str, code: str
) -> None:
    for company in ([], ['"a"', "[1, 2]"], ["{}"], ["[[1]]"]):
        _, letters = rows(lambda values: [[0.0, 0.0]] * len(values), [*company, value])
        assert [letter.code for letter in letters] == [code], company
