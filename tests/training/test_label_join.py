"""Labels that come by themselves, joined: against a model of plain lists, however it is cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.late_scores import AGAIN, HELD_OUT, LABEL, UNASKED
from headrace.stream.rows.classes import NEW_CLASS, Classes
from headrace.stream.rows.late import LateLabel, Placed, Truth
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task, parse
from headrace.stream.task.labels import Policy
from headrace.stream.training import clock, label_join
from headrace.stream.training.delays import Delays
from headrace.stream.training.join_arrays import arrays, shapes_of
from headrace.stream.training.joined import Joined
from headrace.stream.training.label_join import LEFT_OUT, LabelJoin
from headrace.stream.training.late_labels import account, join_of
from headrace.stream.training.newest_rows import LOADED, NewestRows
from headrace.stream.training.turns import Turns

TOPICS = ("t.events", "t.labels")
KEPT, CLOCK, ENTITIES = 3, 5, 2
HOUR_MS = 3_600_000
CORRECTED = {"rescore": "rescored", "relearn": "relearned"}
DRAWN = ("b", 7)  # ids of events that are held out
TEXT = """
name = "t"
[input]
topic = "t.events"
[features]
x = { kind = "number" }
[target]
field = "label"
"""
KINDS = {
    "two classes": 'kind = "classify"\nclasses = ["no", "yes"]\n',
    "room for two more": 'kind = "classify"\nclasses = ["no", "yes"]\nmax_classes = 4\n',
    "a number": 'kind = "regress"\n',
}
TASKS = {name: parse(TEXT + target, "t") for name, target in KINDS.items()}
LABELS: dict[str, list[Any]] = {
    "two classes": ["no", "yes"],
    "room for two more": ["no", "yes", "a", "b", "c"],
    "a number": [-1.0, 0.0, 2.5],  # -1 is no new class there
}


class Step(NamedTuple):
    """Say what comes next: an event, perhaps with its label, or a label."""

    is_event: bool
    id: str | int
    time_ms: int
    label: Any  # a class's name, or a number; None: an event without
    entity: int = 0


@dataclass
class Row:
    """Hold what the model knows of an event."""

    id: str | int
    place: tuple[int, int, int]
    since_ms: int
    asked: Row | None  # what its label answers
    entity: int
    told: bool = False  # whether its label came, though it answers nothing
    label: Any = None
    status: str = "waits"


@dataclass
class Model:
    """Join labels as the documentation says it, by looking through lists."""

    most: int
    ttl_ms: int | None
    policy: Policy
    horizon: int
    implied: Any
    names: list[Any]
    room: int
    rows: list[Row] = field(default_factory=list)  # all that ever came
    ended: list[Row] = field(default_factory=list)  # remembered, first ended first
    held: list[tuple[LateLabel, Any, str]] = field(default_factory=list)
    gone: list[str | int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    turns: dict[int, list[Row]] = field(default_factory=dict)  # by entity, seen last at the end
    lines: list[tuple[Any, ...]] = field(default_factory=list)
    letters: list[tuple[Any, ...]] = field(default_factory=list)
    expired: list[tuple[Any, ...]] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    truth: Counter[str] = field(default_factory=Counter)

    @property
    def kept(self) -> list[Row]:
        return [*self.ended, *self.waiting]

    @property
    def waiting(self) -> list[Row]:
        return [row for row in self.rows if row.status == "waits"]

    def event(self, label: LateLabel, value: Any, entity: int) -> None:
        """Take in an event, told as the label that it brings."""
        self.times.append(label.time_ms)
        newest = sorted(self.times[-CLOCK:])
        now_ms = label.time_ms if self.ttl_ms is None else newest[len(newest) // 2]
        for row in self.waiting:
            if row.id == label.id:
                self.expire(row)
        while self.waiting and (
            len(self.waiting) == self.most
            or (self.ttl_ms is not None and self.waiting[0].since_ms <= now_ms - self.ttl_ms)
        ):
            self.expire(self.waiting[0])
        row = Row(label.id, (label.partition, label.offset, label.time_ms), now_ms, None, entity)
        known = [each for each in self.held if each[0].id == label.id]
        for early in known:
            self.held.remove(early)
            self.truth["held"] -= 1
        if value is not None:
            self.truth["labels"] += 1
            known.append((label, value, TOPICS[0]))
        if self.horizon:
            earlier = self.turns.pop(entity, [])
            if len(self.turns) == ENTITIES:
                del self.turns[next(iter(self.turns))]
            row.asked = earlier[-self.horizon] if len(earlier) >= self.horizon else None
            self.turns[entity] = [*earlier, row]
            for each in known:
                self.answer(row, *each)
        if len(self.kept) == self.most:
            self.ended.pop(0)
        self.rows.append(row)
        self.lines.append((0, len(self.rows) - 1, label.id, label.offset, label.time_ms, None))
        if not self.horizon:
            row.asked = row
            for each in known:
                self.answer(row, *each)

    def label(self, label: LateLabel, value: Any, topic: str) -> None:
        """Take in a label."""
        self.truth["labels"] += 1
        self.find(label, value, topic)

    def find(self, label: LateLabel, value: Any, topic: str) -> None:
        """Find the row of a label."""
        known = [row for row in self.kept if row.id == label.id]
        event = max(known, key=self.number, default=None)
        if event is None:
            self.hold(label, value, topic)
        else:
            self.answer(event, label, value, topic)

    def answer(self, event: Row, label: LateLabel, value: Any, topic: str) -> None:
        """Answer the row that an event does."""
        row = event.asked
        if row is None and event.told:
            self.truth["repeated"] += 1
        elif row is None and not self.has_room(value):
            self.refuse("label", label, topic)
        elif row is None:
            self.truth["unasked"] += 1
            event.told = True
            said = float(self.names.index(value)) if self.room else value
            entity, place = event.entity, (event.id, event.place[1])
            self.lines.append((LABEL | UNASKED, entity, *place, label.time_ms, said))
        elif row.status == "expired" or not any(row is each for each in self.kept):
            self.refuse("expired_id", label, topic)
        elif row.status == "labelled" and row.label == value:
            self.truth["repeated"] += 1
        elif row.status == "labelled" and self.policy == "ignore":
            self.refuse("corrected", label, topic)
        elif not self.has_room(value):
            self.refuse("label", label, topic)
        else:
            again = row.status == "labelled"
            self.truth[CORRECTED[self.policy] if again else "scored"] += 1
            if not again:
                self.delays.append(max(label.time_ms - event.place[2], 0))
            self.learn(row, event, value, label.time_ms)

    def has_room(self, value: Any) -> bool:
        """Return whether a class is known or can be taken up; take it up."""
        if self.room and value not in self.names:
            if len(self.names) == self.room:
                return False
            self.names.append(value)
        return True

    def learn(self, row: Row, event: Row, value: Any, time_ms: int) -> None:
        kind = LABEL + AGAIN * (row.status == "labelled") + HELD_OUT * (row.id in DRAWN)
        if row.status == "waits":
            row.status = "labelled"
            self.ended.append(row)
        row.label = value
        told = float(self.names.index(value)) if self.room else value
        self.lines.append((kind, self.number(row), event.id, event.place[1], time_ms, told))

    def expire(self, row: Row) -> None:
        told = None
        if self.implied is not None and self.has_room(self.implied):
            self.learn(row, row, self.implied, row.place[2])
            told = self.lines[-1][-1]
            self.truth["scored"] += 1
            self.truth["implied"] += 1
        else:
            row.status = "expired"
            self.ended.append(row)
            if row.id not in self.gone:
                self.gone = [*self.gone, row.id][-KEPT:]
            self.truth["expired"] += 1
        self.expired.append((row.id, *row.place, told))

    def hold(self, label: LateLabel, value: Any, topic: str) -> None:
        early = [at for at, each in enumerate(self.held) if each[0].id == label.id]
        if label.id in self.gone:
            self.refuse("expired_id", label, topic)
        elif not early:
            self.held.append((label, value, topic))
            self.truth["held"] += 1
            if len(self.held) > KEPT:
                first, _, its_topic = self.held.pop(0)
                self.truth["held"] -= 1
                self.refuse("unknown_id", first, its_topic)
        elif self.held[early[0]][1] == value:
            self.truth["repeated"] += 1
        elif self.policy == "ignore":
            self.refuse("corrected", label, topic)
        else:
            self.held[early[0]] = (label, value, topic)
            self.truth[CORRECTED[self.policy]] += 1

    def refuse(self, code: str, label: LateLabel, topic: str) -> None:
        self.truth["refused"] += 1
        self.letters.append((code, topic, label.partition, label.offset, label.key, None))

    def number(self, row: Row) -> int:
        return next(at for at, each in enumerate(self.rows) if each is row)


def rows_of(task: Task, events: Sequence[LateLabel], entities: Sequence[int] = ()) -> Rows:
    """Make rows that hold no more than what a label has."""
    count, entity = len(events), np.zeros((len(events), 2), np.uint32)
    entity[:, 1] = entities or 0
    return Rows(
        id=[each.id for each in events],
        key=[each.key for each in events],
        partition=[each.partition for each in events],
        offset=[each.offset for each in events],
        time_ms=np.array([each.time_ms for each in events], np.int64),
        numeric=np.zeros((count, task.spec.numeric)),
        ids=np.zeros((count, 0), np.uint32),
        entity=entity,
        label=np.array([each.label for each in events], np.float64),
        new_class=[each.new_class for each in events],
        image=np.zeros((count, 0, 0, 0), np.uint8),
        weight=np.zeros((count, 0)),
        arrived_ms=np.zeros(count, np.int64),
    )


def read(task: Task, at: int, step: Step) -> LateLabel:
    """Tell a step as the readers of records do."""
    label, new_class = (np.nan if step.label is None else step.label), None
    if task.spec.classes and step.label is not None:
        classes = task.target.classes
        label = float(classes.index(step.label)) if step.label in classes else NEW_CLASS
        new_class = None if step.label in classes else step.label
    key = None if at % 3 else b"k%d" % at
    return LateLabel(step.id, key, at % 2, at, step.time_ms, label, new_class)


@dataclass
class Life:
    """Let a join go through steps, cut into micro-batches."""

    task: Task
    settings: dict[str, Any]
    slots: int
    steps: list[Step]
    horizon: int = 0
    in_memory: int = 0  # rows that the learner has slots for; 0: all

    def __post_init__(self) -> None:
        self.outside: dict[int, int] = {}  # line with which a row was taken out, by its number
        self.join, self.classes = self.fresh(), Classes(self.task)
        self.truth = Truth()
        self.lines: list[tuple[Any, ...]] = []
        self.letters: list[tuple[Any, ...]] = []
        self.expired: list[tuple[Any, ...]] = []
        self.owners: dict[int, int] = {}  # number of the event that took a slot last, by slot
        self.events = 0

    def fresh(self) -> LabelJoin:
        turns = Turns(self.horizon, self.slots, ENTITIES) if self.horizon else None
        newest, again = None, self.settings.get("policy", "ignore") != "ignore"
        if self.in_memory:
            newest = NewestRows(self.in_memory, self.slots, again=again)
        return LabelJoin(self.slots, TOPICS, turns=turns, newest=newest, **self.settings)

    def go(self, first: int, last: int) -> Joined:
        """Take the steps from `first` to `last` as one micro-batch."""
        events = list[LateLabel]()
        labels = list[Placed]()
        for at in range(first, last):
            told = read(self.task, at, self.steps[at])
            if self.steps[at].is_event:
                events.append(told)
            else:
                labels.append((len(events), told))
        came = [each.entity for each in self.steps[first:last] if each.is_event]
        rows = rows_of(self.task, events, came)
        marks = [HELD_OUT * (id in DRAWN) for id in rows.id]
        joined = self.join.join(rows, labels, self.classes, marks)
        self.truth.add(joined.truth)
        assert joined.told.id == [each.id for each in events]
        assert [joined.rows.id[at] for at in joined.events] == joined.told.id
        self.note(joined)
        self.letters += [
            (each.code, each.topic, each.partition, each.offset, each.key, each.raw)
            for each in joined.letters
        ]
        self.expired += joined.expired
        return joined

    def note(self, joined: Joined) -> None:
        rows = joined.rows
        columns = (rows.id, rows.offset, rows.time_ms.tolist(), rows.label.tolist())
        lines = zip(joined.line.tolist(), *columns, strict=True)
        before, loads = len(self.lines), dict(joined.moves.loads)
        self.outside |= {number: before + at for at, number in joined.moves.leaving}
        for place, ((kind, slot), *told, label) in enumerate(lines):
            if not kind:
                self.owners[slot] = self.events
                self.events += 1
            said = None if label != label else label
            if kind & UNASKED:
                whose = rows.entity[place, 1]
            elif place in loads:
                whose = loads[place]
                apart = before + place - self.outside[whose]
                assert slot == LOADED and apart >= self.in_memory // 2
            else:
                assert 0 <= slot < (self.in_memory or self.slots)
                whose = self.owners[slot]
            self.lines.append((kind, whose, *told, said))

    def truth_counts(self) -> dict[str, int]:
        found: dict[str, int] = msgspec.structs.asdict(self.truth)
        return found

    def begin_again(self) -> None:
        """Go on in another object, from arrays alone."""
        kept = arrays(self.join.copied())
        shapes = shapes_of(self.slots, self.horizon, outside=bool(self.in_memory))
        shapes.pop("left_rows", None)
        for name, (kind, shape) in shapes.items():
            assert kept[name].dtype == kind, name
            assert shape in ((-1,), kept[name].shape), name
        assert kept.keys() == shapes.keys()
        self.join = self.fresh()
        self.join.restore(kept)


class Case(NamedTuple):
    """Say what comes, how it is set, and where it is cut: also whether it begins again there."""

    kind: str
    slots: int
    steps: list[Step]
    cuts: list[tuple[int, bool]]
    ttl_hours: float | None = None
    policy: Policy = "ignore"
    implied: Any = None
    horizon: int = 0
    in_memory: int = 0

    def life(self) -> Life:
        given: dict[str, Any] = {"ttl_hours": self.ttl_hours, "policy": self.policy}
        if self.implied is not None:
            told = read(TASKS[self.kind], 0, Step(False, 0, 0, self.implied))
            given["implied"] = told.label, told.new_class
        more = self.horizon, self.in_memory
        return Life(TASKS[self.kind], given, self.slots, self.steps, *more)

    def model(self) -> Model:
        ttl_ms = None if self.ttl_hours is None else int(self.ttl_hours * HOUR_MS)
        target = TASKS[self.kind].target
        names = [*target.classes]
        told = self.policy, self.horizon, self.implied
        return Model(self.slots, ttl_ms, *told, names, target.room)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw events and labels of few ids, so that they meet in every way."""
    kind = draw(st.sampled_from([*KINDS]))
    labels = st.sampled_from(LABELS[kind])
    usual = st.integers(-3 * HOUR_MS, 3 * HOUR_MS)
    wild = st.sampled_from([-(10**14), 0, 10**14])
    ids: st.SearchStrategy[str | int] = st.sampled_from(["a", "b", "c", "é", 7, 2**63, -1])
    entities = st.integers(0, 2)
    events = st.builds(Step, st.just(True), ids, usual | wild, st.none() | labels, entities)
    late = st.builds(Step, st.just(False), ids, usual | wild, labels)
    steps = draw(st.lists(events | late, min_size=1, max_size=40))
    return Case(
        kind,
        draw(st.integers(1, 5)),
        steps,
        sorted(draw(st.lists(st.tuples(st.integers(0, len(steps)), st.booleans()), max_size=6))),
        draw(st.sampled_from([None, None, 1e-6, 1.5, 24.0])),
        draw(st.sampled_from(get_args(Policy))),
        draw(st.none() | labels),
        draw(st.sampled_from([0, 0, 1, 2])),
        draw(st.sampled_from([0, 2, 3, 4])),
    )


@pytest.fixture(autouse=True, scope="module")
def few_are_kept() -> Any:
    """Let labels that are early be few, so that there is no room for more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_join, "KEPT", KEPT)
        patch.setattr(clock, "NEWEST", CLOCK)
        yield


@settings(deadline=None, max_examples=100)
@given(cases())
def test_it_is_what_a_model_of_lists_says_however_it_is_cut(case: Case) -> None:
    compare(case)


@pytest.mark.long
@settings(deadline=None, max_examples=2_000)
@given(cases())
def test_so_it_is_thousands_of_times(case: Case) -> None:
    compare(case)


def came(id: str | int, label: Any = None) -> Step:
    return Step(True, id, 0, label)


def label_of(id: str | int, label: Any) -> Step:
    return Step(False, id, 0, label)


def test_a_row_that_is_scored_again_is_not_learned_again() -> None:
    weighted = TEXT.replace("[features]", 'weight = "w"\n[features]') + KINDS["a number"]
    life = Life(parse(weighted, "t"), {"policy": "rescore"}, 2, [])
    event_of_a = LateLabel("a", None, 0, 7, 0, np.nan, None)
    come = [(1, LateLabel("a", None, 0, 0, 5, value, None, 3.0)) for value in (1.0, 2.0)]
    rows = rows_of(life.task, [event_of_a])._replace(weight=np.array([[8.0]]))
    joined = life.join.join(rows, come, life.classes)
    assert joined.rows.weight.tolist() == [[8.0], [3.0], [0.0]]
    assert joined.truth == Truth(labels=2, scored=1, rescored=1)


def test_a_row_out_of_the_sample_teaches_nothing_where_it_is_negative() -> None:
    weighted = TEXT.replace("[features]", 'weight = "w"\n[features]') + KINDS["two classes"]
    life = Life(parse(weighted, "t"), {"implied": (0.0, "no")}, 1, [])
    events = [LateLabel(at, None, 0, at, 0, label, None) for at, label in enumerate([0.0, 1.0])]
    waits = LateLabel(2, None, 0, 2, 0, np.nan, None)
    rows = rows_of(life.task, [*events, waits, waits._replace(id=3, offset=3)])
    rows = rows._replace(weight=np.ones((4, 1)))
    joined = life.join.join(rows, [], life.classes, [LEFT_OUT] * 4)
    is_label = joined.line[:, 0] > 0
    told = zip(joined.rows.label[is_label], joined.rows.weight[is_label, 0], strict=True)
    assert [*told] == [(0.0, 0.0), (1.0, 1.0), (0.0, 0.0)]
    assert joined.truth == Truth(labels=2, scored=3, implied=1)


OPEN = "room for two more"
FULL = [came(1, "a"), came(2, "b")]  # no more classes have room there
CASES = {
    "an id came twice, and it begins again": Case(
        "two classes",
        2,
        [came("x", "no"), came("a", "no"), came("a"), label_of("a", "yes"), came("b"), came("c")],
        [(3, True)],
    ),
    "an event expires into a class without room": Case(
        OPEN, 1, [*FULL, came(3), came(4), label_of(4, "no")], [], implied="c"
    ),
    "a label that is refused for another one takes up no class": Case(
        OPEN, 3, [came(1, "no"), label_of(1, "c"), came(2, "a"), came(3, "b")], []
    ),
    "one without room leaves its event waiting": Case(
        OPEN, 3, [*FULL, came(3), label_of(3, "c"), label_of(3, "no")], []
    ),
    "an early label without room is refused when its event comes": Case(
        OPEN, 3, [label_of(3, "c"), *FULL, came(3), label_of(3, "b")], [(1, True)]
    ),
    "an id comes again while its event waits": Case(
        "a number", 3, [came("a"), came("b"), came("a"), label_of("a", 2.5)], [(2, True)]
    ),
    "a wrong clock right after it began again": Case(
        "a number",
        5,
        [*(came(at) for at in range(3)), Step(True, 3, 10**14, None), label_of(0, 2.5)],
        [(3, True)],
        ttl_hours=1.5,
    ),
    "a label of what expired is told from one that is unknown": Case(
        "a number", 1, [came(at) for at in range(5)] + [label_of(at, 0.0) for at in range(9)], []
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_so_it_is_when(name: str) -> None:
    compare(CASES[name])


def compare(case: Case) -> None:
    """Let a life and the model go through the same steps; compare them at every cut."""
    life, model = case.life(), case.model()
    ends = [*case.cuts, (len(case.steps), False)]
    predicted = 0
    for first, (last, again) in zip([0, *(at for at, _ in case.cuts)], ends, strict=True):
        life.go(first, last)
        for at in range(first, last):
            step, told = life.steps[at], read(life.task, at, life.steps[at])
            if step.is_event:
                model.event(told, step.label, step.entity)
            else:
                model.label(told, step.label, TOPICS[1])
        predicted += sum(step.is_event for step in life.steps[first:last])
        assert life.lines == model.lines
        assert life.letters == model.letters
        assert life.expired == model.expired
        assert life.truth_counts() == {name: model.truth[name] for name in life.truth_counts()}
        assert life.truth.balanced
        assert life.truth.held == len(model.held)
        assert life.join.pending == len(model.waiting)
        assert predicted == life.truth.scored + life.truth.expired + life.join.pending
        # No other event has taken the slot of one that waits.
        waiting = {model.number(row) for row in model.waiting}
        assert waiting <= {*life.owners.values()} | life.outside.keys()
        assert {*life.join.outside().tolist()} <= life.outside.keys()
        if life.task.spec.classes:
            assert [*life.classes] == model.names
        counted = Delays()
        counted.add(model.delays)
        assert (life.join.delays.counts == counted.counts).all()
        if again:
            life.begin_again()


@pytest.mark.parametrize(
    ("target", "given", "name"),
    [
        ('kind = "classify"\nclasses = ["low", "high"]', "'high'", "high"),
        ('kind = "classify"\nclasses = ["0", "1"]', "1", "1"),
        ('kind = "classify"\nclasses = ["0", "1"]', "1.0", "1"),
        ('kind = "classify"\nclasses = ["0.0", "1.0"]', "1", "1.0"),
        ('kind = "classify"\nclasses = ["false", "true"]', "true", "true"),
        ('kind = "classify"\nclasses = ["click"]\nmax_classes = 4', "'no click'", "no click"),
        ('kind = "classify"\nclasses = ["click"]\nmax_classes = 4', "7", "7"),
        ('kind = "regress"', "-1", -1.0),
        ('kind = "regress"', "0.5", 0.5),
    ],
)
def test_the_label_of_what_expires_is_read_as_an_event_s(
    target: str, given: str, name: str | float
) -> None:
    labels = f'[labels]\ntopic = "t.labels"\nmax_pending = 1\non_expiry = {given}'
    task = parse(f"{TEXT}{target}\n{labels}", "t")
    join, classes = join_of(task), Classes(task)
    assert join
    events = [LateLabel(at, None, 0, at, 10 * at, np.nan, None) for at in range(3)]
    joined = join.join(rows_of(task, events), [], classes)
    assert joined.truth == Truth(scored=2, implied=2)
    found = [each.label for each in joined.expired]
    assert [classes[int(each or 0)] if task.spec.classes else each for each in found] == [name] * 2
    assert joined.line[:, 0].tolist() == [0, 1, 0, 1, 0]
    assert not joined.letters


@pytest.mark.parametrize(
    ("policy", "code"), [("ignore", ["corrected"]), ("rescore", []), ("relearn", [])]
)
def test_a_task_says_what_becomes_of_another_label(policy: str, code: list[str]) -> None:
    labels = f'[labels]\ntopic = "their.labels"\npolicy = "{policy}"\nttl_hours = 0.5'
    task = parse(f"{TEXT}{KINDS['two classes']}{labels}", "t")
    join = join_of(task)
    assert join
    come = [
        (1, LateLabel("a", b"key", 3, 40 + at, 0, label, None))
        for at, label in enumerate((0.0, 1.0))
    ]
    event_of_a = LateLabel("a", None, 0, 0, 0, np.nan, None)
    joined = join.join(rows_of(task, [event_of_a]), come, Classes(task))
    assert [each.code for each in joined.letters] == code
    assert all((e.topic, e.partition, e.offset) == ("their.labels", 3, 41) for e in joined.letters)


def test_a_task_says_how_long_a_label_is_waited_for() -> None:
    labels = '[labels]\ntopic = "t.labels"\nttl_hours = 0.5'
    task = parse(f"{TEXT}{KINDS['a number']}{labels}", "t")
    join = join_of(task)
    assert join
    left = []
    for at, time_ms in enumerate((0, HOUR_MS // 2 - 1, HOUR_MS // 2)):
        came = LateLabel(at, None, 4, 50 + at, time_ms, np.nan, None)
        left.append(join.join(rows_of(task, [came]), [], Classes(task)).expired)
    # Three times, whose median is the second: then it is not yet time for the first to leave.
    assert left == [[], [], []]
    came = LateLabel(3, None, 4, 53, HOUR_MS // 2, np.nan, None)
    assert join.join(rows_of(task, [came]), [], Classes(task)).expired == [(0, 4, 50, 0, None)]


def test_labels_of_no_topic_of_their_own_are_not_joined() -> None:
    assert join_of(TASKS["two classes"]) is None


def test_records_that_are_no_labels_count_as_refused() -> None:
    letters: list[Any] = ["one", "other"]
    assert account(None, letters) == Truth(labels=2, refused=2)
    life = Life(TASKS["a number"], {}, 1, [Step(True, "a", 0, 2.5)])
    found = account(life.go(0, 1), letters)
    assert found == Truth(labels=3, scored=1, refused=2)
    assert found.balanced


def test_a_label_s_weight_is_that_of_its_line_also_if_it_came_early() -> None:
    weighted = TEXT.replace("[features]", 'weight = "w"\n[features]')
    task = parse(weighted + KINDS["a number"], "t")
    life = Life(task, {"policy": "relearn"}, 2, [])
    early = LateLabel("a", None, 0, 0, 5, 1.0, None, 0.25)
    life.join.join(rows_of(task, []), [(0, early)], life.classes)
    life.begin_again()
    event_of_a = LateLabel("a", None, 0, 7, 0, np.nan, None)
    later = early._replace(label=2.0, weight=3.0)
    rows = rows_of(task, [event_of_a])._replace(weight=np.array([[8.0]]))
    joined = life.join.join(rows, [(1, later)], life.classes)
    assert joined.rows.weight.tolist() == [[8.0], [0.25], [3.0]]
    assert joined.rows.label[1:].tolist() == [1.0, 2.0]
