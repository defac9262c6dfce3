from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from headrace.model.spec import Detector, NetworkName
from headrace.stream.errors import TaskError
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.task import STAGES, Task, load, parse
from headrace.stream.task.features import Number
from tests.support.events import IMAGE_TASK, TASK

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (('kind = "classify"', 'kind = "guess"'), r"target\.kind = 'guess': .*'classify' or"),
        (('["no", "yes"]', '["no"]'), r"target.*room for 1 of 1 classes"),
        (
            ('time = "time"', 'tiem = "time"'),
            r"tiem: no such key; did you mean 'time'\? known: topic",
        ),
        (("max_bytes = 4096", "max_bytes = 1"), r"input\.max_bytes = 1: .*64"),
        (("min = -100", "min = 1000"), r"features\.x.*min must be below max, not 1000"),
        (('unit = "x"', ""), None),
        (('y = { kind = "number" }', 'y = { kind = "number", unit = "m" }'), "unit and to"),
        (('name = "poisoned"', ""), r"name: missing"),
        (('"events.poisoned"', '"poisoned.ledger"'), r"input\.topic = .*written by this task"),
        (('field = "label"', 'field = ""'), r"target\.field"),
        (("[features]", "[features"), r"not TOML"),
        (('x = { kind = "number"', 'x = { kind = "numbr"'), r"features\.x.*'number'"),
        (("max_tokens = 16", "max_tokens = 0"), r"features\.text\.max_tokens = 0: .*1"),
        (("height = 2", "height = 0"), r"features\.photo\.height = 0: .*1"),
        (("height = 2, ", ""), r"features\.photo\.height: missing"),
        (("width = 3", "width = 9999"), r"features\.photo = .*= 79992: expected 16384 bytes"),
        (("width = 3", "width = 999"), r"photo takes 10656 bytes .*max_bytes = 4096"),
        (
            ("[features]", '[features]\nmap = { kind = "image", height = 1, width = 1 }'),
            r"features\.map and features\.photo are images: expected one",
        ),
    ],
)
def test_a_wrong_key_is_named_with_value_and_expectation(
    change: tuple[str, str], line: str | None
) -> None:
    text = IMAGE_TASK.replace(*change)
    if line is None:
        assert parse(text, "t").name == "poisoned"
        return
    assert text != IMAGE_TASK
    with pytest.raises(TaskError, match=line) as error:
        parse(text, "wrong.toml")
    assert all(part.startswith("wrong.toml:") for part in str(error.value).splitlines())


def test_a_task_with_an_image_has_the_network_that_sees_it() -> None:
    assert parse(TASK, "t").spec.network == "mlp"
    assert parse(IMAGE_TASK, "t").spec.network == "cnn2d"
    assert parse(IMAGE_TASK + '[model]\nnetwork = "mlp"', "t").spec.network == "mlp"
    with pytest.raises(TaskError, match=r"model\.network = 'cnn2d'.* image: expected one"):
        parse(TASK + '[model]\nnetwork = "cnn2d"', "t")


@pytest.mark.parametrize(
    ("model", "change", "line"),
    [
        (
            'network = "../rnn"',
            ("", ""),
            r"model\.network = '\.\./rnn': .*the name of an inst",
        ),
        ('activation = "swish"', ("", ""), r"model\.activation = 'swish': .*'relu'.*'gelu'"),
        ('loss = "absolute"', ("", ""), r"model\.loss = 'absolute': .*'pinball'"),
        (
            'loss = "mse"',
            ("", ""),
            r"model\.loss = 'mse': .*'classify'; expected cross_entropy or bce",
        ),
        (
            'loss = "bce"',
            ('"classify"\nclasses = ["no", "yes"]', '"regress"'),
            r"model\.loss = 'bce': .*'regress'; expected huber or mse or pinball",
        ),
        ('network = "gru"', ("", ""), r"model\.network = 'gru': .*lags\.rows = 1 or more"),
        ('network = "cnn1d"', ('= "number"', '= "category"'), r"'cnn1d': .*expected a number"),
        ('network = "textcnn"', ('= "text"', '= "category"'), r"'textcnn': .*a text"),
        ('network = "textbag"', ('= "text"', '= "category"'), r"'textbag': .*a text"),
        ('network = "textcnn"\nhidden = []', ("", ""), r"'textcnn': .*model\.hidden"),
        ('network = "gru"\nhidden = []\n[lags]\nrows = 2', ("", ""), r"'gru': .*model\.hidden"),
        (
            '[drift]\nladder = ["restore"]',
            ("", ""),
            r"drift\.ladder = .*: restore .*expected both",
        ),
    ],
)
def test_a_model_that_does_not_fit_its_task_is_explained(
    model: str, change: tuple[str, str], line: str
) -> None:
    text = re.sub(r", m(in|ax|ax_tokens) = -?\d+", "", TASK).replace(*change)
    with pytest.raises(TaskError, match=rf"^t:\d+:\d+: (model.network = )?{line}"):
        parse(f"{text}[model]\n{model}\n", "t")


@pytest.mark.parametrize("network", get_args(NetworkName))
def test_every_network_fits_some_task(network: str) -> None:
    spec = parse(f'{IMAGE_TASK}[lags]\nrows = 2\n[model]\nnetwork = "{network}"\n', "t").spec
    assert spec.network == network
    assert spec.words == ((16,) if network == "textcnn" else ())


def test_quantiles_are_left_to_the_networks() -> None:
    text = TASK.replace('"classify"\nclasses = ["no", "yes"]', '"regress"')
    spec = parse(f'{text}[model]\nloss = "pinball"\ncoverage = 0.8', "t").spec
    assert spec.quantiles == pytest.approx((0.1, 0.5, 0.9))
    assert (spec.outputs, spec.neighbours) == (3, 0)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="cannot be read"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_are_tasks_with_topics_of_their_own(path: Path) -> None:
    task = load(path)
    names = [spec.name for spec in topic_specs(task)]
    assert names[0] == task.input.topic
    assert f"{task.name}.predictions" in names
    assert len(set(names)) == len(names) == 8


def test_the_schema_describes_every_key() -> None:
    schema = Task.model_json_schema()
    json.dumps(schema)
    parts = ("Input", "Target", "Lags", "Model", "Drift", "Topics")
    for name in (*parts, "Number", "Text", "Image", "Encoded"):
        for key, value in schema["$defs"][name]["properties"].items():
            assert "description" in value or key in ("kind",), (name, key)


def test_the_schema_says_our_names_and_lets_others_in() -> None:
    parts = Task.model_json_schema()["$defs"]
    network = parts["Model"]["properties"]["network"]["anyOf"]
    assert network[0]["enum"] == [*get_args(NetworkName)]
    assert re.fullmatch(network[1]["pattern"], "a_net-1")
    detector = parts["Drift"]["properties"]["detectors"]["items"]["anyOf"]
    assert detector[0]["enum"] == [*get_args(Detector)]
    task = parse(f'{TASK}[model]\nnetwork = "a_net-1"\n[drift]\ndetectors = ["odd"]', "t")
    assert (task.spec.network, task.spec.detectors) == ("a_net-1", ("odd",))


def test_what_is_encoded_are_columns_behind_the_numbers() -> None:
    more = 'place = { kind = "encoded", field = "/a/b", encoder = "odd", width = 2 }'
    task = parse(TASK.replace("[features]", f"[features]\n{more}"), "t")
    plain = parse(TASK, "t")
    at = len(plain.of_kind(Number))
    assert task.columns == [*plain.columns[:at], "place, 1", "place, 2", *plain.columns[at:]]
    assert task.spec.numeric == plain.spec.numeric + 2
    with pytest.raises(
        TaskError,
        match=r"place\.encoder = 'os:system': expected the name of an",
    ):
        parse(TASK.replace("[features]", f"[features]\n{more.replace('odd', 'os:system')}"), "t")


def test_a_task_cannot_be_changed() -> None:
    task = parse(TASK, "t")
    with pytest.raises(ValueError, match="frozen"):
        task.name = "other"  # type: ignore[misc]


def test_the_stages_are_the_topics_that_a_task_writes() -> None:
    task = parse(TASK + '[labels]\ntopic = "labels"\n', "t")
    written = [spec.name for spec in topic_specs(task) if spec.role != "input"]
    assert sorted(map(task.output, STAGES)) == sorted(written)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('thousands = "."', "expected decimal, too"),
        ('decimal = ",", thousands = ","', "it is the decimal mark: expected another one"),
        ('duration = true, decimal = "."', "a duration is read in seconds: expected no decimal"),
        ('unit = "kWh"', "expected to, too; or decimal"),
        ('decimal = ";"', "decimal"),
    ],
)
def test_keys_of_reading_that_do_not_fit_are_explained(keys: str, said: str) -> None:
    text = TASK.replace('y = { kind = "number" }', f'y = {{ kind = "number", {keys} }}')
    with pytest.raises(TaskError, match=r"features\.y") as raised:
        parse(text, "t")
    assert said in str(raised.value)
    with pytest.raises(TaskError, match="decimal is of numbers: expected kind = 'regress'"):
        parse(TASK.replace('kind = "classify"', 'kind = "classify"\ndecimal = ","'), "t")
