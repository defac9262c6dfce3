"""Frozen encoders: what tiny ONNX models make of texts and images, and what is refused of files."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

import headrace
from headrace.stream.errors import RecoveryError, TaskError
from headrace.stream.ledger import fingerprint
from headrace.stream.rows import frozen
from headrace.stream.rows.encoder_files import check_model
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import rows_of
from headrace.stream.task import Task, load, validate
from headrace.stream.task import plugins as task_plugins
from tests.support import onnx_models
from tests.support.json_rows import normalised, records_of
from tests.support.onnx_models import WORDS, image_model, text_model

NAN = float("nan")


def task_of(feature: dict[str, Any], name: str = "title") -> Task:
    return validate(
        {
            "name": "t",
            "input": {"topic": "events.t"},
            "target": {"field": "y", "kind": "classify", "classes": ["no", "yes"]},
            "features": {name: feature},
            "model": {"hidden": [4], "neighbours": 20},
            "drift": {"ladder": []},
        },
        "t",
    )


def text_task(folder: Path, dimensions: int = 6, **more: Any) -> Task:
    return task_of({"kind": "text", "encoder": str(folder), "dimensions": dimensions, **more})


def events(values: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"id": at, "y": "no", "title": value} for at, value in enumerate(values)]


def numbers(task: Task, values: Sequence[Any]) -> NDArray[np.float64]:
    rows, refused = normalised(task, events(values))
    assert not refused
    return rows.numeric


def mean_of(text: str, width: int = 6) -> list[float]:
    """Work out by hand what a mean of words is, scaled to the length 1."""
    known = onnx_models.table()
    ids = [WORDS.index(word) if word in WORDS else 0 for word in text.lower().split()]
    mean = sum(known[at].astype(float) for at in ids) / len(ids)
    found: list[float] = (mean / np.linalg.norm(mean))[:width].tolist()
    return found


@pytest.fixture
def words(tmp_path: Path) -> Path:
    return text_model(tmp_path / "words")


def test_a_text_is_the_mean_of_its_tokens_scaled_to_one(words: Path) -> None:
    texts = ["Free prize now", "hello", "lunch the unheard", "the " * 100]
    assert numbers(text_task(words), texts) == pytest.approx(np.array(list(map(mean_of, texts))))
    assert numbers(text_task(words, 2), texts) == pytest.approx(
        np.array([mean_of(text, 2) for text in texts])
    )
    assert text_task(words, 2).columns == ["title, 1", "title, 2"]


def test_one_vector_for_a_text_is_taken_as_it_is(tmp_path: Path) -> None:
    task = text_task(text_model(tmp_path / "pooled", tail="pooled"))
    mean = onnx_models.table()[[1, 2]].mean(0)
    assert numbers(task, ["free prize"]) == pytest.approx(mean[None])


def test_what_says_nothing_is_missing(words: Path) -> None:
    rows = numbers(text_task(words, 2), [None, "", "   ", "hello"])
    assert rows[:3] == pytest.approx(np.full((3, 2), NAN), nan_ok=True)
    assert rows[3] == pytest.approx(mean_of("hello", 2))
    absent, refused = normalised(text_task(words, 2), [{"id": 1, "y": "no"}])
    assert np.isnan(absent.numeric).all()
    assert not refused


def test_a_text_keeps_its_words(words: Path) -> None:
    plain, _ = normalised(task_of({"kind": "text"}), events(["free prize", "lunch"]))
    rows, _ = normalised(text_task(words), events(["free prize", "lunch"]))
    assert rows.ids.tolist() == plain.ids.tolist()
    assert (plain.numeric.shape, rows.numeric.shape) == ((2, 0), (2, 6))


def test_long_texts_are_cut_where_the_tokenizer_says(words: Path) -> None:
    many = "free " * 3 + "lunch " * 10_000
    assert numbers(text_task(words), [many]) == pytest.approx(
        np.array([mean_of("free " * 3 + "lunch " * (frozen.TOKENS - 3))])
    )
    onnx_models.tokenizer(words, **onnx_models.truncated(4))
    assert numbers(text_task(words), [many]) == pytest.approx(
        np.array([mean_of("free free free lunch")])
    )
    onnx_models.tokenizer(words, **onnx_models.truncated(10**6))
    assert numbers(text_task(words), [many]) == pytest.approx(
        np.array([mean_of("free " * 3 + "lunch " * (frozen.MOST_TOKENS - 3))])
    )


TEXT = st.lists(st.sampled_from([*WORDS, "x"]), max_size=12).map(" ".join) | st.none()


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a model that shares a scale among all that it is run for at once."""
    vectors = onnx_models.table(32) * np.geomspace(0.01, 100, len(WORDS), dtype=np.float32)[:, None]
    return text_model(tmp_path_factory.mktemp("quantised"), vectors, tail="quantised")


@settings(max_examples=30, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=12), st.data())
def test_the_numbers_of_an_event_are_a_function_of_its_value_alone(
    quantised: Path, texts: list[str | None], data: Any
) -> None:
    """To the bit: in any lot, in any company, from the cache or not."""
    frozen._loaded.cache_clear()
    normalizer = Normalizer(text_task(quantised, 32))
    alone = {}
    for text in set(texts):
        frozen._loaded.cache_clear()
        alone[text] = numbers(text_task(quantised, 32), [text]).tobytes()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(texts)))) | {0, len(texts)})
    for start, end in pairwise(cuts):
        rows, _ = normalizer.normalize(records_of(events(texts[start:end])))
        assert [row.tobytes() for row in rows.numeric] == [alone[t] for t in texts[start:end]]


SCRIPT = """
import sys
from headrace.stream.rows.normalizer import Normalizer
from tests.rows.test_frozen import Path, events, records_of, text_task
rows, _ = Normalizer(text_task(Path(sys.argv[1]), 32)).normalize(records_of(events(sys.argv[2:])))
print(rows.numeric.tobytes().hex())
"""


def test_another_process_makes_the_same_of_it(quantised: Path) -> None:
    texts = ["free prize now", "hello the lunch", "you"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(quantised), *texts[::-1]],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "3"},
        cwd=Path(__file__).parents[2],
    )
    here = numbers(text_task(quantised, 32), texts)
    assert done.stdout.strip() == np.ascontiguousarray(here[::-1]).tobytes().hex()


def test_the_cache_is_bounded_and_changes_nothing(
    words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    before = numbers(text_task(words), texts)
    monkeypatch.setattr(frozen, "CACHE_BYTES", 3 * (frozen.ENTRY_BYTES + 8 * 6))
    frozen._loaded.cache_clear()
    task = text_task(words)
    for _ in range(2):
        assert numbers(task, texts).tobytes() == before.tobytes()
    encoder = frozen.load("title", task.frozen["title"])
    assert isinstance(encoder, frozen._Cached)
    assert len(encoder._kept) == 3


def test_a_text_that_the_model_fails_at_is_refused_alone(tmp_path: Path) -> None:
    task = text_task(text_model(tmp_path / "even", tail="even"))
    texts = ["free prize", "free", "lunch now", "a b c", None]
    rows, letters = normalised(task, events(texts))
    assert [(letter.offset, letter.code) for letter in letters] == [(1, "schema"), (3, "schema")]
    assert letters[0].detail.startswith("title: 'free' cannot be encoded: ")
    good = [mean_of("free prize"), mean_of("lunch now"), [NAN] * 6]
    assert rows.numeric == pytest.approx(np.array(good), nan_ok=True)


def test_a_text_that_the_tokenizer_panics_at_is_refused_alone(words: Path) -> None:
    """At all but ASCII, of which its table is too short to say something."""
    table = base64.b64encode((512).to_bytes(4, "little") + bytes(512)).decode()
    charsmap = {"type": "Precompiled", "precompiled_charsmap": table}
    onnx_models.tokenizer(words, normalizer=charsmap)
    values = ["free", "\u1234", None]
    _, letters = normalised(text_task(words), events(values))
    assert [(letter.offset, letter.code) for letter in letters] == [(1, "schema")]


def test_what_a_model_makes_nan_or_endless_is_missing(tmp_path: Path) -> None:
    vectors = onnx_models.table()
    vectors[1], vectors[2] = np.nan, np.inf
    folder = text_model(tmp_path / "nan", vectors, tail="pooled")
    rows = numbers(text_task(folder), ["free", "prize", "now"])
    assert np.isnan(rows[:2]).all()
    assert np.isfinite(rows[2]).all()


# Images


def photo(pixels: NDArray[np.uint8]) -> str:
    return base64.b64encode(pixels.tobytes()).decode()


@pytest.mark.parametrize("byte", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_an_image_comes_in_the_order_and_the_type_of_the_input(
    tmp_path: Path, byte: bool, first: bool, named: bool
) -> None:
    """Channels first or last; where the model does not say how large, first."""
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (4, 5, 3), np.uint8)
    matrix = rng.normal(size=(60, 7)).astype(np.float32)
    sizes: list[int | str] = [3, 4, 5] if first else [4, 5, 3]
    if named:
        sizes = ["c", "h", "w"] if first else ["h", "w", 3]
    folder = image_model(tmp_path / "image", sizes, matrix, byte=byte)
    feature = {"kind": "image", "height": 4, "width": 5, "channels": 3}
    task = task_of(feature | {"encoder": str(folder / "model.onnx"), "dimensions": 7})
    ordered = pixels.transpose(2, 0, 1) if first else pixels
    expected = ordered.reshape(-1).astype(float) / (1 if byte else 255) @ matrix
    assert numbers(task, [photo(pixels)]) == pytest.approx(expected[None], rel=1e-5)
    assert (task.spec.network, task.spec.pixels, task.row_bytes) == ("mlp", 0, 8 * 7 + 8)


def test_images_with_an_encoder_may_be_large_and_several(tmp_path: Path) -> None:
    matrix = np.eye(3 * 100 * 90, 2, dtype=np.float32)
    folder = image_model(tmp_path / "image", [3, 100, 90], matrix)
    size = {"height": 100, "width": 90, "channels": 3}
    feature = {"kind": "image", "encoder": str(folder), "dimensions": 2, **size}
    settings = task_of(feature).model_dump(mode="json", exclude_unset=True)
    settings["features"]["back"] = feature
    settings["features"]["small"] = {"kind": "image", "height": 1, "width": 2}
    with pytest.raises(TaskError, match=r"features\.title takes 36000 bytes in base64"):
        validate(settings | {"input": {"topic": "t", "max_bytes": 30_000}}, "t")
    task = validate(settings | {"input": {"topic": "t", "max_bytes": 200_000}}, "t")
    good = np.zeros((100, 90, 3), np.uint8)
    good[0, :2, 0] = [51, 255]
    values = [photo(good), photo(good[1:])]
    small = photo(good[0, :2, 0])
    lines = [event | {"small": small, "back": values[0]} for event in events(values)]
    rows, letters = normalised(task, lines)
    assert rows.numeric == pytest.approx(np.array([[0.2, 1, 0.2, 1]]))
    assert rows.image.reshape(-1).tolist() == [51, 255]
    assert [(letter.offset, letter.code) for letter in letters] == [(1, "image")]
    with pytest.raises(TaskError, match="expected 16384 bytes at most, or an encoder"):
        task_of({"kind": "image", **size})


# The task


def test_a_path_is_relative_to_the_task_file(
    words: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = tmp_path / "t.toml"
    path.write_text(
        'name = "t"\n[input]\ntopic = "e"\n[target]\nfield = "y"\nkind = "regress"\n'
        '[features]\ntitle = { kind = "text", encoder = "words", dimensions = 6 }\n'
    )
    task = load(path)
    assert task.frozen["title"].encoder == words
    Normalizer(task)
    again = validate(fingerprint.written(task), "the saved task")
    assert again == task


@pytest.mark.parametrize(
    ("feature", "told"),
    [
        ({"dimensions": 3}, "dimensions are of an encoder: expected one"),
        ({"encoder": "a\0b"}, "features.title.encoder = .*expected the path"),
        ({"encoder": 7}, r"features\.title\.encoder = 7: "),
        ({"encoder": "words", "dimensions": 0}, r"features\.title\.dimensions = 0: "),
        ({"encoder": "words", "dimensions": 5000}, r"features\.title\.dimensions = 5000: "),
    ],
)
def test_keys_that_are_wrong_are_named(feature: dict[str, Any], told: str) -> None:
    with pytest.raises(TaskError, match=told):
        task_of({"kind": "text", **feature})


def test_the_files_are_part_of_what_a_state_depends_on(words: Path, tmp_path: Path) -> None:
    task = text_task(words)
    told = fingerprint.settings_of(task)
    assert told["packages"].keys() == {"onnxruntime", "tokenizers"}
    assert told["features"]["title"]["encoder"].startswith("sha256 ")
    before = fingerprint.of_task(task)
    moved = text_task(words.rename(tmp_path / "moved"))
    assert fingerprint.of_task(moved) == before
    onnx_models.tokenizer(tmp_path / "moved", WORDS[::-1])
    assert fingerprint.of_task(moved) != before
    (change,) = fingerprint.differences(told, fingerprint.settings_of(moved))
    assert change.startswith('features.title.encoder: "sha256 ')
    plain = fingerprint.settings_of(task_of({"kind": "text"}))
    assert not {"encoder", "dimensions"} & plain["features"]["title"].keys()
    assert "packages" not in plain
    folder = image_model(tmp_path / "image", [1, 1, 2], np.eye(2, dtype=np.float32))
    image = task_of({"kind": "image", "height": 1, "width": 2, "encoder": str(folder)})
    assert task_plugins.versions(image).keys() == {"onnxruntime"}
    with pytest.raises(TaskError, match="cannot be read"):
        fingerprint.of_task(text_task(words))


def test_a_saved_learner_is_not_opened_with_another_encoder(words: Path, tmp_path: Path) -> None:
    learner = headrace.Learner(text_task(words))
    for at in range(20):
        learner.learn_one({"title": WORDS[at % 9], "y": "yes" if at % 9 < 4 else "no"})
    learner.save(tmp_path / "t.hr")
    event = {"title": "free lunch"}
    again = headrace.Learner.load(tmp_path / "t.hr")
    assert again.predict_one(event) == learner.predict_one(event)
    text_model(words, onnx_models.table() + 1)
    with pytest.raises(RecoveryError, match=r"features\.title\.encoder = .*: its files are others"):
        headrace.Learner.load(tmp_path / "t.hr")


def test_rows_go_the_way_of_features(words: Path) -> None:
    task = text_task(words)
    records = records_of(events(["free", None, "see you"]))
    rows, _ = Normalizer(task).normalize(records)
    features, _ = Normalizer(task).features(records)
    assert rows_of(task, features, [None] * 3).numeric.tobytes() == rows.numeric.tobytes()


def test_a_learner_learns_by_the_numbers(tmp_path: Path) -> None:
    """Of words that it sees once each: the encoder alone knows which are alike."""
    names = ["[UNK]", *(f"w{at}" for at in range(300))]
    labels = np.arange(len(names)) % 2
    vectors = onnx_models.table(8, len(names)) + 2 * labels[:, None].astype(np.float32)
    folder = text_model(tmp_path / "many", vectors)
    onnx_models.tokenizer(folder, names)
    path = tmp_path / "stream.jsonl"
    order = np.random.default_rng(1).permutation(np.arange(1, 301))
    lines = [{"title": names[at], "y": ["no", "yes"][labels[at]]} for at in order]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    scores = [
        headrace.evaluate(task, path).metrics["all"]["accuracy"]
        for task in (text_task(folder, 8), task_of({"kind": "text"}))
    ]
    assert scores[0] > 0.85 > 0.6 > scores[1]


# Files of strangers


def refused(task: Task) -> str:
    with pytest.raises(TaskError) as caught:
        Normalizer(task)
    (feature,) = task.frozen.values()
    start = f"features.title.encoder = {feature.encoder}: "
    told = str(caught.value)
    assert told.startswith(start)
    assert "\n" not in told
    return told.removeprefix(start)


IDS: dict[str, Any] = {"input_ids": (TensorProto.INT64, ["b", "t"])}
OUT: dict[str, Any] = {"out": (TensorProto.FLOAT, ["b", "t", 6])}
GATHER = helper.make_node("Gather", ["table", "input_ids"], ["out"])
TABLE = {"table": onnx_models.table()}


def odd(folder: Path, how: str) -> None:
    """Make the model of a folder wrong in one way."""
    model = folder / "model.onnx"
    if how == "no model":
        model.unlink()
    elif how == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif how == "tokenizer":
        (folder / "tokenizer.json").write_text('{"model": 7}')
    elif how == "panic":
        onnx_models.tokenizer(folder, pre_tokenizer={"type": "FixedLength", "length": 0})
    elif how == "dropout":
        merges = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
        onnx_models.tokenizer(folder, model=merges | {"dropout": 0.5})
    elif how == "random":
        noise = helper.make_node("RandomNormalLike", ["found"], ["out"], seed=1.0)
        found = helper.make_node("Gather", ["table", "input_ids"], ["found"])
        onnx_models.save(folder, [found, noise], IDS, OUT, TABLE)
    elif how == "folder":
        model.unlink()
        model.mkdir()
    elif how == "pipe":
        model.unlink()
        os.mkfifo(model)
    elif how == "text":
        model.write_text("a model")
    elif how == "empty":
        model.write_bytes(b"")
    elif how == "cut":
        model.write_bytes(model.read_bytes()[:-40])
    elif how == "vocabulary":
        onnx_models.tokenizer(folder, [*WORDS, "further"])
    elif how == "inputs":
        more = {"pixel_values": (TensorProto.FLOAT, ["b", 3])}
        onnx_models.save(folder, [GATHER], IDS | more, OUT, TABLE)
    elif how == "outputs":
        second = helper.make_node("Gather", ["table", "input_ids"], ["other"])
        outputs = OUT | {"other": OUT["out"]}
        onnx_models.save(folder, [GATHER, second], IDS, outputs, TABLE)
    elif how == "axes":
        node = helper.make_node("Gather", ["table", "input_ids"], ["out"], axis=0)
        table = {"table": onnx_models.table().reshape(9, 2, 3)}
        onnx_models.save(folder, [node], IDS, {"out": (1, ["b", "t", 2, 3])}, table)
    elif how == "custom op":
        node = helper.make_node("Evil", ["input_ids"], ["out"], domain="org.evil")
        imports = [helper.make_opsetid("org.evil", 1)]
        onnx_models.save(folder, [node], IDS, OUT, {}, imports=imports)
    elif how == "external":
        onnx_models.save(
            folder,
            [GATHER],
            IDS,
            OUT,
            {"table": onnx_models.table(2000)},
            save_as_external_data=True,
            location="weights",
        )


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("no model", "model.onnx cannot be read: No such file"),
        ("no tokenizer", "tokenizer.json cannot be read: No such file"),
        ("tokenizer", "tokenizer.json cannot be used: Cannot instantiate Tokenizer"),
        ("panic", "tokenizer.json cannot be used: chunk size must be non-zero"),
        ("dropout", "tokenizer.json has a dropout, and splits a text by chance"),
        ("random", "the model gives other numbers each time: expected the same"),
        ("folder", "model.onnx cannot be read: expected a file"),
        ("pipe", "model.onnx cannot be read: expected a file"),
        ("text", "not an ONNX model"),
        ("empty", "not an ONNX model"),
        ("cut", "not an ONNX model"),
        ("vocabulary", "the model does not take 256 tokens up to 9 of tokenizer.json: "),
        ("inputs", "the model has the inputs input_ids, pixel_values: expected integers, input"),
        ("outputs", "the model has the outputs out, other: expected one, or sentence_embedding"),
        ("axes", "the model's output out has 4 axes, expected 2 or 3"),
        ("custom op", "the model cannot be loaded: "),
        ("external", "its weights lie in other files (external data): expected all in one file"),
    ],
)
def test_files_that_are_none_of_an_encoder_are_told_in_one_line(
    words: Path, how: str, told: str
) -> None:
    odd(words, how)
    assert refused(text_task(words)).startswith(told)


def test_a_model_with_fewer_numbers_than_dimensions_is_told(words: Path) -> None:
    told = refused(text_task(words, 7))
    assert told == "the model gives 6 numbers, expected dimensions = 7 or more"


def test_a_model_of_other_images_is_told(tmp_path: Path) -> None:
    folder = image_model(tmp_path / "image", [3, 4, 5], np.ones((60, 2), np.float32))
    feature = {"kind": "image", "height": 8, "width": 8, "encoder": str(folder), "dimensions": 2}
    assert "expected one of float or uint8, [1, 1, 8, 8] or [1, 8, 8, 1]" in refused(
        task_of(feature)
    )


def test_files_that_are_too_large_are_not_read(words: Path) -> None:
    with (words / "model.onnx").open("r+b") as file:
        file.truncate((512 << 20) + 1)  # sparse
    assert "expected a model of 512 MiB at most" in refused(text_task(words))


@pytest.mark.parametrize("library", ["onnxruntime", "tokenizers"])
def test_a_library_that_is_not_installed_is_told_with_its_extra(
    words: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    frozen._loaded.cache_clear()
    assert refused(text_task(words)) == f"needs {library}: pip install 'headrace[encoders]'"


def test_weights_elsewhere_are_found_wherever_they_are_named(tmp_path: Path) -> None:
    """In constants, sparse tensors, branches of branches, functions; of a place in memory, too."""
    for location in ("/etc/passwd", "../up", "*/_ORT_MEM_ADDR_/*"):
        tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location
        constant = helper.make_node("Constant", [], ["c"], value=tensor)
        inner = helper.make_graph([constant], "inner", [], [])
        branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
        outer = helper.make_graph([branch], "outer", [], [])
        branches = helper.make_node("If", ["x"], ["y"], then_branch=outer, else_branch=outer)
        function = helper.make_function(
            "d", "F", [], ["c"], [constant], [helper.make_opsetid("", 17)]
        )
        plain = helper.make_graph([helper.make_node("Neg", ["a"], ["b"])], "plain", [], [])
        check_model(helper.make_model(plain).SerializeToString())
        for model in (
            helper.make_model(helper.make_graph([], "g", [], [], [tensor])),
            helper.make_model(helper.make_graph([constant], "g", [], [])),
            helper.make_model(helper.make_graph([branches], "g", [], [])),
            helper.make_model(plain, functions=[function]),
        ):
            with pytest.raises(ValueError, match="external data"):
                check_model(model.SerializeToString())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_bytes_of_strangers_are_checked_or_refused(data: bytes, at: int) -> None:
    graph = helper.make_graph([GATHER], "g", [], [])
    model = helper.make_model(graph).SerializeToString()
    for mangled in (data, model[:at] + data + model[at:], model[:at]):
        try:
            check_model(mangled)
        except ValueError as error:
            assert "ONNX" in str(error) or "external" in str(error)
