"""Members that installed packages offer, and how they may be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

import headrace
from headrace.model import members
from headrace.stream.errors import RecoveryError, TaskError
from headrace.stream.task import parse
from headrace.stream.training.plugins import learner_of

MODULE = """
import jax.numpy as jnp
from headrace.model.members import by_row

MEMBER = by_row(
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
members = ["odd"]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a place of installed packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(members, "MEMBERS", dict(members.MEMBERS))
    return tmp_path


def offer(site: Path, package: str, member: str) -> None:
    folder = site / f"{package.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[headrace.members]\nodd = {member}\n")


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("OTHER = 1", "no attribute 'MEMBER'"),
    ],
)
def test_a_member_that_cannot_be_imported_is_told(site: Path, module: str, told: str) -> None:
    offer(site, "odd-one", "odd_member_of_a_test:MEMBER")
    (site / "odd_member_of_a_test.py").write_text(module)
    with pytest.raises(TaskError, match=r"model\.members: 'odd' \(odd_member_of_a_test") as caught:
        learner_of(parse(TASK, "t"))
    assert told in str(caught.value)


def test_a_name_that_two_packages_offer_is_told(site: Path) -> None:
    offer(site, "odd-one", "odd_a:MEMBER")
    offer(site, "odd-two", "odd_b:MEMBER")
    with pytest.raises(TaskError, match=r"several packages \(odd-one, odd-two\)"):
        learner_of(parse(TASK, "t"))


def test_an_opinion_of_a_name_that_is_taken_is_told(site: Path) -> None:
    offer(site, "odd-one", "odd_words_of_a_test:MEMBER")
    (site / "odd_words_of_a_test.py").write_text(MODULE)
    with pytest.raises(TaskError, match="'words' names two opinions"):
        learner_of(parse(TASK, "t"))


def test_a_saved_learner_is_refused_with_another_version_of_its_member(
    site: Path, tmp_path: Path
) -> None:
    offer(site, "odd-one", "odd_other_of_a_test:MEMBER")
    (site / "odd_other_of_a_test.py").write_text(MODULE.replace("words", "odd"))
    learner = headrace.Learner(parse(TASK, "t"))
    learner.save(tmp_path / "now.hr")
    assert headrace.Learner.load(tmp_path / "now.hr").events == 0
    told = site / "odd_one-1.0.dist-info" / "METADATA"
    told.write_text(told.read_text().replace("Version: 1.0", "Version: 1.1"))
    with pytest.raises(RecoveryError, match=r"odd-one 1\.0.*odd-one 1\.1"):
        headrace.Learner.load(tmp_path / "now.hr")
