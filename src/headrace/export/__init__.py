"""Predictors for elsewhere: what a learner knows at a moment, as a file for other runtimes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from headrace.export import network
from headrace.export.card import Card as Card
from headrace.export.card import make_card
from headrace.export.function import Predictor, in_32_bits
from headrace.export.signature import inputs, outputs
from headrace.model.batch import Batch
from headrace.model.predictor import make_predictor
from headrace.model.state import named
from headrace.stream.errors import UsageError
from headrace.stream.storage import tensors
from headrace.stream.training.asking import Frozen
from headrace.stream.training.trainer import Trainer

ROWS = 1024  # that a program of StableHLO takes; any number of them may be meant


def export(trainer: Trainer, path: Path, to: str, origin: dict[str, str], licence: str) -> Card:
    """Write what a learner would say next to a file, and a model card beside it.

    Args:
        to: one of FORMATS.
        origin: where the learner comes from, by what it is called.
        licence: what the card says of it.

    Raises:
        UsageError: the format is unknown, or what writes it is not installed; the file cannot be
            written; the task has what the format cannot express.
    """
    if to not in FORMATS:
        raise UsageError(f"{to!r} is no format: expected one of {', '.join(FORMATS)}")
    form = FORMATS[to]
    if "\0" in str(path):
        raise UsageError(f"{str(path)!r}: cannot be written: there is a NUL in it")
    if path.suffix != form.suffix:
        expected = f"a name that ends in {form.suffix}" if form.suffix else "the name of a folder"
        raise UsageError(f"{path}: expected {expected} for {to}")
    frozen = trainer.frozen()
    card = make_card(trainer, frozen, to, form.reader, form.whole, origin, licence)
    new, old = (path.with_name(f".{path.stem}.{what}{path.suffix}") for what in ("new", "old"))
    about = Path(f"{path}.md"), Path(f"{new}.md")
    try:
        if path.exists() and not form.is_another(path):
            raise UsageError(f"{path}: is there, and no predictor as {to}: expected another name")
        form.write(frozen, new, card)
        about[1].write_text(card.as_markdown(), "utf-8")
        if path.is_dir():  # which nothing can take the place of while it is there
            path.replace(old)
        new.replace(path)
        about[1].replace(about[0])
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed, which {to} needs: pip install 'headrace[{form.extra}]'"
        ) from error
    except NotImplementedError as error:
        raise UsageError(f"this learner cannot be written as {to}: {error}") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if old.exists() and not path.exists():  # interrupted right there
            old.replace(path)
        for each in (new, old):
            shutil.rmtree(each) if each.is_dir() else each.unlink(missing_ok=True)
        about[1].unlink(missing_ok=True)
    return card


def _predictor(frozen: Frozen, real: str = "float64") -> Predictor:
    """Return what all formats but StableHLO have: all rows are predicted at once."""
    predict = make_predictor(frozen.learner.spec)

    def core(batch: Batch) -> jax.Array:
        return in_32_bits(lambda batch: predict(frozen.state, batch), batch)

    return Predictor(frozen.task, core, frozen.frame, len(frozen.classes), real)


def _graph(frozen: Frozen, card: Card, real: str = "float64") -> Any:
    """Return the predictor as a model of ONNX."""
    from headrace.export.onnx import to_onnx

    task, predictor = frozen.task, _predictor(frozen, real)
    with jax.enable_x64(True):
        (rows,) = jax.export.symbolic_shape("n")
        names = [each.name for each in inputs(task)]
        given = [*zip(names, predictor.shapes(rows), strict=True)]
        named = [each.name for each in outputs(task, [*frozen.classes])]
        return to_onnx(predictor, given, named, card.notes())


def _write_onnx(frozen: Frozen, path: Path, card: Card) -> None:
    path.write_bytes(_graph(frozen, card).SerializeToString())


def _write_tf(frozen: Frozen, path: Path, card: Card) -> None:
    from headrace.export import tensorflow

    tensorflow.write_model(_graph(frozen, card), path)


def _write_tflite(frozen: Frozen, path: Path, card: Card) -> None:
    from headrace.export import tensorflow

    tensorflow.write_lite(_graph(frozen, card, "float32"), path)


def _write_stablehlo(frozen: Frozen, path: Path, card: Card) -> None:
    """Write the program that `Learner.predict` runs, and beside it the state that it goes by.

    A state within the program, or rows of a symbol's number, would let XLA round otherwise.
    """
    import flatbuffers  # noqa: F401  which JAX needs for it

    leaves, shape = jax.tree.flatten(frozen.state)
    names = [name for name, _ in named(frozen.state)]
    given = [each.name for each in inputs(frozen.task)]

    def program(
        state: dict[str, jax.Array], rows: dict[str, jax.Array], count: jax.Array
    ) -> dict[str, jax.Array]:
        held = jax.tree.unflatten(shape, [state[name] for name in names])

        def core(batch: Batch) -> jax.Array:
            return in_32_bits(lambda *given: frozen.learner.ask(*given)[0], held, batch, count)

        predictor = Predictor(frozen.task, core, frozen.frame, len(frozen.classes))
        said = [each.name for each in outputs(frozen.task, [*frozen.classes])]
        return dict(zip(said, predictor(*(rows[name] for name in given)), strict=True))

    predictor = _predictor(frozen)
    arrays = {name: np.asarray(leaf) for name, leaf in zip(names, leaves, strict=True)}
    with jax.enable_x64(True), _without_places():
        rows = dict(zip(given, predictor.shapes(ROWS), strict=True))
        told = jax.export.export(jax.jit(program))(arrays, rows, np.int32(0))
        data = told.serialize()
    path.mkdir()
    (path / "predictor.stablehlo").write_bytes(data)
    (path / "state.safetensors").write_bytes(b"".join(tensors.pack(arrays)))


@contextmanager
def _without_places() -> Iterator[None]:
    """Keep out of a program where in which files of this machine each operation was written."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        jax.config.update(name, before)  # type: ignore[no-untyped-call]


def _write_torch(frozen: Frozen, path: Path, card: Card) -> None:
    network.write_torch(frozen, path)


def _write_keras(frozen: Frozen, path: Path, card: Card) -> None:
    try:
        network.write_keras(frozen, path)
    except ValueError as error:  # Keras is missing, or not on JAX
        raise NotImplementedError(str(error)) from error


class Format(NamedTuple):
    """Say what a format is called, what reads it, and what writes it."""

    suffix: str  # of the file; a folder has none
    extra: str  # of this package, with what is needed to write it
    reader: str
    write: Callable[[Frozen, Path, Card], None]
    whole: bool = True  # the predictor, or else one network of its pool
    holds: frozenset[str] = frozenset()  # what may lie in the folder

    def is_another(self, path: Path) -> bool:
        """Return whether what is there may be replaced: a file, or a folder of this format."""
        if self.suffix:
            return not path.is_dir()
        return path.is_dir() and {each.name for each in path.iterdir()} <= self.holds


PROGRAM = frozenset({"predictor.stablehlo", "state.safetensors"})
SAVED_MODEL = frozenset({"saved_model.pb", "fingerprint.pb", "variables", "assets"})
FORMATS = {
    "onnx": Format(".onnx", "onnx", "any runtime of ONNX, such as onnxruntime", _write_onnx),
    "stablehlo": Format(
        *("", "stablehlo", "XLA, through jax.export", _write_stablehlo), holds=PROGRAM
    ),
    "tf": Format(*("", "tensorflow", "TensorFlow, as a SavedModel", _write_tf), holds=SAVED_MODEL),
    "tflite": Format(".tflite", "tensorflow", "TensorFlow Lite", _write_tflite),
    "torch": Format(".safetensors", "", "headrace.torch.Network", _write_torch, whole=False),
    "keras": Format(".keras", "keras", "Keras", _write_keras, whole=False),
}
