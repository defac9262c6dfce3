"""What is learned: the sizes and settings that fix every array of the core."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

Statistic = Literal["count", "sum", "mean", "max", "min", "distinct", "since_last"]
Detector = Literal["adwin", "page_hinkley", "ddm", "eddm", "hddm_a", "hddm_w", "kswin"]
Rung = Literal["relabel", "boost", "challenger", "restore", "rollback"]
Step = Literal["boost", "challenge", "promotion", "rollback", "dismissal", "relabel", "reset"]
Rival = Literal["fresh", "earlier"]
METRIC_BYTES = 16_384  # of all that a metric from elsewhere says: a record has to have room for it
ORDER = 12  # steps between past labels that an autoregression goes by
RUNGS: tuple[Rung, ...] = ("relabel", "boost")  # by default: trials take XLA seconds to compile
NetworkName = Literal["mlp", "linear", "cnn1d", "cnn2d", "gru", "textbag", "textcnn"]
WINDOWED: tuple[NetworkName, ...] = ("cnn1d", "gru")
LOADED = "keras:"  # what names of networks begin with that a file brings
Activation = Literal["relu", "tanh", "sigmoid", "gelu"]
Loss = Literal["cross_entropy", "bce", "mse", "huber", "pinball"]
CLASS_LOSSES: tuple[Loss, ...] = ("cross_entropy", "bce")
NUMBER_LOSSES: tuple[Loss, ...] = ("huber", "mse", "pinball")
OptimizerName = Literal[
    "adabelief",
    "adagrad",
    "adam",
    "adamw",
    "amsgrad",
    "lion",
    "momentum",
    "nadam",
    "nesterov",
    "radam",
    "rmsprop",
    "sgd",
    "yogi",
]


@dataclass(frozen=True)
class Schedule:
    """Say how the learning rates change with the optimizer's steps.

    Attributes:
        kind: constant; linear or cosine from 1 to `end` within `steps`; exponential halves every
            `steps` until it is `end`.
        steps: optimizer steps, > 0.
        end: share of the rate that is left for ever, in (0, 1].
        warmup: steps at the beginning in which the rate grows evenly to its full size.
    """

    kind: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    steps: int = 100_000
    end: float = 0.1
    warmup: int = 0


@dataclass(frozen=True)
class Aggregate:
    """Say what is made of an entity's events within a time: a column of a row.

    Attributes:
        statistic: since_last is the time since the event before.
        seconds: the time, > 0; 0 for since_last.
        source: of distinct, the category. What others are of stands in the aggregate's own column.
    """

    statistic: Statistic
    seconds: float = 0.0
    source: int = 0


@dataclass(frozen=True)
class Spec:
    """Fix the shapes and settings of one learner; equal specs compile to equal programs.

    Attributes:
        numeric: numeric columns of a row; the last ones are its aggregates.
        aggregates: of the events of the row's entity.
        frozen: numeric columns that frozen encoders make: the first one, and how many.
        categories: categorical columns of a row.
        crosses: columns of combinations of categories; of their members only those that learn
            vectors and weights of ids go by them.
        lists: slots for the ids of each list of categories, or of each category's n-grams.
        tokens: slots for the tokens of all texts, 0 when there is no text.
        words: places for the words of each text in their order, for a network that reads them.
        image: height, width and channels of a row's image; zeros when there is none.
        classes: number of classes, or 0 for regression.
        open_classes: of them, the last ones, which are not predicted before one like them or a
            later one was met.
        costs: of predicting each class (columns) by the true one (rows); none: a miss costs 1.
        balanced: whether a miss costs the more the rarer the true class is.
        sampled: the class of which a sample is learned, and the share of it in (0, 1): published
            probabilities are those of the whole stream. None: all labels are learned.
        weighted: whether rows say how much they teach.
        horizon: events of the same entity between a prediction and its label; 0 = same event.
        waiting: rows that may wait at a time for a label that comes by itself, in a line of its
            own; 0 = labels come in events.
        loads: whether a label may bring its row, that of an older event than the newest `waiting`.
        label_lags: last known labels of the entity that are inputs.
        traces: events that fading means of the numeric columns remember; how far a row lies from
            each mean is an input.
        numeric_lags: earlier rows of the entity whose numeric columns are inputs.
        entities: entities remembered at a time; 0 when rows carry no entity.
        network: what the networks of the pool are, by name.
        hidden: widths of the hidden layers.
        activation: of the hidden layers.
        chunk: rows per step of the layers below the last, and of the table; 1 is exact per-event
            learning.
        loss: what networks and words are taught by; None is the first of the target's kind.
        rates: learning rates of the networks in the pool, one for each and view.
        optimizer: of the networks, by the name that optax gives it.
        beta1, beta2: of optimizers like Adam; their memory of gradients and of squared ones.
        clip: largest norm of a network's gradient; 0 = any.
        schedule: of the rates.
        neighbours: rows of the window whose neighbours vote; 0 = no votes, as with the pinball
            loss: a vote has no quantiles.
        members: of the pool from elsewhere, by the names that they are registered under.
        embedding: dimensions of a hashed id's vector.
        table_bits: log2 of the rows in the table of hashed ids.
        coverage: share of labels that a regression interval should hold, in (0, 1).
        detectors: of drift, by name, each watching the error of every labelled event.
        adwin_delta: ADWIN's confidence, in (0, 1).
        page_hinkley_threshold: Page-Hinkley's alarm level, > 0.
        ladder: what is done about drift, by name.
        metrics: from elsewhere, by the names that they are registered under.
        window: effective number of events in fading metrics.
        seed: of the initial weights.
    """

    numeric: int
    aggregates: tuple[Aggregate, ...] = ()
    frozen: tuple[int, int] = (0, 0)
    categories: int = 0
    crosses: int = 0
    lists: tuple[int, ...] = ()
    tokens: int = 0
    words: tuple[int, ...] = ()
    image: tuple[int, int, int] = (0, 0, 0)
    classes: int = 0
    open_classes: int = 0
    costs: tuple[tuple[float, ...], ...] = ()
    balanced: bool = False
    sampled: tuple[int, float] | None = None
    weighted: bool = False
    horizon: int = 0
    waiting: int = 0
    loads: bool = False
    label_lags: int = 1
    traces: tuple[float, ...] = ()
    numeric_lags: int = 0
    entities: int = 0
    network: str = "mlp"
    hidden: tuple[int, ...] = (32, 32)
    activation: Activation = "relu"
    chunk: int = 1
    loss: Loss | None = None
    rates: tuple[float, ...] = (1e-3, 5e-3)
    optimizer: OptimizerName = "adam"
    beta1: float = 0.0
    beta2: float = 0.999
    clip: float = 0.0
    schedule: Schedule = Schedule()
    neighbours: int = 0
    members: tuple[str, ...] = ()
    embedding: int = 8
    table_bits: int = 16
    coverage: float = 0.9
    detectors: tuple[str, ...] = ("adwin",)
    adwin_delta: float = 0.002
    page_hinkley_threshold: float = 50.0
    ladder: tuple[Rung, ...] = RUNGS
    metrics: tuple[str, ...] = ()
    window: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what does not go together.

        Raises:
            ValueError: rows wait for their labels, and chunks or a horizon say when these come.
        """
        if self.waiting and (self.horizon or self.chunk > 1):
            raise ValueError("waiting: expected horizon 0 and chunk 1 beside it")

    @property
    def late(self) -> bool:
        """Return whether a label belongs to an earlier row."""
        return self.horizon > 0 or self.waiting > 0

    @property
    def outputs(self) -> int:
        """Count what the network puts out: a logit per class, one value, or three quantiles."""
        return self.classes or (3 if self.objective == "pinball" else 1)

    @property
    def objective(self) -> Loss:
        """Name the loss."""
        return self.loss or (CLASS_LOSSES if self.classes else NUMBER_LOSSES)[0]

    @property
    def quantiles(self) -> tuple[float, float, float]:
        """Return what the pinball loss aims at: both ends of the interval, and the median."""
        tail = (1.0 - self.coverage) / 2.0
        return tail, 0.5, 1.0 - tail

    @property
    def published(self) -> int:
        """Count the numbers of one prediction: class probabilities, or value, low, high.

        Where the class is not simply the likeliest its index comes after the probabilities.
        """
        return self.classes + self.decides if self.classes else 3

    @property
    def decides(self) -> bool:
        """Return whether another class than the likeliest may be predicted."""
        return self.balanced or bool(self.costs)

    @property
    def ids(self) -> int:
        """Count the hashed ids of a row: `single_ids`, lists, tokens, words in their order."""
        return self.single_ids + sum(self.bags) + sum(self.words)

    @property
    def single_ids(self) -> int:
        """Count the ids with a place of their own: categories, then crosses."""
        return self.categories + self.crosses

    @property
    def bags(self) -> tuple[int, ...]:
        """Count the ids that are added up together: those of each list, then all tokens."""
        return (*self.lists, *([self.tokens] if self.tokens else []))

    @property
    def pixels(self) -> int:
        """Count the numbers of a row's image."""
        return prod(self.image)

    @property
    def columns(self) -> int:
        """Count the numbers of a row, which are its first inputs: pixels, then values."""
        return self.pixels + self.numeric

    @property
    def label_inputs(self) -> int:
        """Count inputs per lagged label: one-hot class, or standardised value and a known flag."""
        return self.classes or 2

    @property
    def past_labels(self) -> int:
        """Count the last known labels that members other than networks go by."""
        return 1 if self.classes else ORDER + 1

    @property
    def inputs(self) -> int:
        """Count the dense inputs: those of the row, then those of what came before it."""
        return self.row_inputs + self.past_inputs

    @property
    def row_inputs(self) -> int:
        """Count the inputs of the row itself: pixels, values and missing flags."""
        return self.columns + self.numeric

    @property
    def past_inputs(self) -> int:
        """Count the inputs of earlier rows, of distances from fading means, and of label lags."""
        rows = 2 * self.numeric_lags + len(self.traces)
        return rows * self.numeric + self.label_lags * self.label_inputs

    @property
    def flags(self) -> list[int]:
        """Return the inputs that are 0 or 1: whether a number is missing, a label known or which.

        The order is that of `inputs.load_row`.
        """
        rows = self.numeric_lags * self.numeric
        labels = self.label_lags * self.label_inputs
        known = self.label_lags * (self.classes or 1)  # the last ones
        return [
            *range(self.columns, self.row_inputs),
            *range(self.row_inputs + rows, self.row_inputs + 2 * rows),
            *range(self.inputs - labels + (labels - known), self.inputs),
        ]

    @property
    def plain(self) -> list[int]:
        """Return the numeric columns that no frozen encoder makes."""
        first, count = self.frozen
        return [*range(first), *range(first + count, self.numeric)]

    @property
    def aggregated(self) -> list[tuple[Aggregate, int]]:
        """Return the aggregates, and the numeric column of each."""
        first = self.numeric - len(self.aggregates)
        return [(each, first + at) for at, each in enumerate(self.aggregates)]

    @property
    def views(self) -> tuple[str, ...]:
        """Name what networks see: the row alone, if there is anything in it, and with its past.

        Those that read a window see it always, those that see an image all that there is, and those
        that a file brings whatever their own inputs are.

        What frozen encoders make of a row is many columns, and may be nothing but noise: it is seen
        in a view of its own, beside the row, and in no other.
        """
        whole, encoded = "row and past" if self.past_inputs else "row", self.frozen[1] > 0
        if self.network.startswith(LOADED):
            return (f"encoded {whole}" if encoded else whole,)
        together = self.network in WINDOWED or self.pixels or not self.past_inputs
        found = (whole,) if together or not (self.plain or self.ids) else ("row", whole)
        return (*found, f"encoded {found[0]}") if encoded else found

    @property
    def networks(self) -> int:
        """Count the networks of the pool: one for each rate and view."""
        return len(self.views) * len(self.rates)
