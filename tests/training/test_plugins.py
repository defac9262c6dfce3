"""What installed packages offer, and how it may be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

import headrace
from headrace.model import drift, members, networks
from headrace.model.learner import make_learner
from headrace.model.spec import Detector, NetworkName
from headrace.stream.errors import RecoveryError, TaskError
from headrace.stream.ledger import fingerprint
from headrace.stream.task import Task, parse, plugins
from headrace.stream.training.plugins import REGISTRIES, learner_of

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
[input]
topic = "events.t"
[target]
field = "y"
kind = "regress"
[features]
x = { kind = "number" }
c = { kind = "category" }
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
}
EVERY = pytest.mark.parametrize("kind", NAMED)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a place of installed packages; what is registered meanwhile is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = [dict(registry) for registry in REGISTRIES]
    make_learner.cache_clear()
    yield tmp_path
    make_learner.cache_clear()
    for registry, kept in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(kept)


def task_of(*kinds: str) -> Task:
    text = TASK
    for kind in kinds:
        place, line, _ = NAMED[kind]
        text = text.replace(place, line)
    for place in ("MODEL", "DRIFT"):
        text = text.replace(place, "")
    return parse(text, "t")


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
    assert "members" not in settings["model"]
    learner_of(task)


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
    for module in (members, networks, drift):
        assert callable(module.register)
