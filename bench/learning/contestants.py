"""Who takes part: headrace, two baselines, and the peers with their authors' settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.learning.streams import Group, Stream

SEED = 42
OURS = "headrace"
_TABLES: tuple[Group, ...] = ("classes", "numbers")
_ALL: tuple[Group, ...] = ("classes", "text", "numbers")


@dataclass(frozen=True)
class Contestant:
    """Say which model of which package runs on which streams; `module` is in bench/peers."""

    name: str
    package: str
    module: str
    groups: tuple[Group, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    series: bool = False  # only for streams that are one series
    image: bool = False  # only for streams of images, and given them as such
    slow: int = 0  # those with more go last

    @property
    def extra(self) -> str:
        """Name the environment that it runs in."""
        return {"vowpalwabbit": "vowpal-wabbit"}.get(self.package, self.package)

    def takes(self, stream: Stream) -> bool:
        """Say if it can learn such a stream."""
        fits = stream.series or not self.series, stream.image or not self.image
        return stream.group in self.groups and all(fits)

    def waits(self, stream: Stream) -> bool:
        """Say if its labels may come late: those of a series come with a later row anyway."""
        late = self.package == OURS or (self.package == "river" and not self.series)
        return late and not stream.horizon


def _river(
    name: str, groups: tuple[Group, ...], *, slow: int = 1, series: bool = False, **settings: Any
) -> Contestant:
    if series:
        settings["series"] = True
    return Contestant(
        f"river-{name}", "river", "river_models", groups, settings, series=series, slow=slow
    )


def _capymoa(name: str, slow: int, *, scale: bool = False, **settings: Any) -> Contestant:
    keys: dict[Group, str] = {"classes": "classify", "numbers": "regress"}
    groups = tuple(group for group, key in keys.items() if key in settings)
    settings["scale"] = scale
    return Contestant(f"capymoa-{name}", "capymoa", "capymoa_models", groups, settings, slow=slow)


def _vowpal(name: str, arguments: str, table: str) -> Contestant:
    settings = {
        "arguments": f"--quiet -b 22 --random_seed {SEED} {arguments}".strip(),
        "classify_two": "--loss_function logistic",
        "classify_many": "--loss_function logistic --oaa {classes}",
        "regress": "--loss_function squared",
        "scale": "inputs and labels",
        "table": table,
        "text": "--ngram t2",
    }
    return Contestant(f"vw-{name}", "vowpalwabbit", "vowpal", _ALL, settings)


def _ten(**more: Any) -> dict[str, Any]:
    return {"n_models": 10, "seed": SEED} | more


def _hundred(size: int, **more: Any) -> dict[str, Any]:
    return {"ensemble_size": size, "random_seed": SEED} | more


_RIVER = (
    _river(
        "lr",
        _ALL,
        classify="linear_model.LogisticRegression",
        classify_many="linear_model.SoftmaxRegression",
        regress="linear_model.LinearRegression",
        regress_params={"clip_gradient": 1.0},  # without it spikes make it diverge
        scale=True,
        categories="one-hot",
        target_scale=True,
    ),
    _river(
        "tfidf-lr",
        ("text",),
        classify="linear_model.LogisticRegression",
        classify_many="linear_model.SoftmaxRegression",
        text="feature_extraction.TFIDF",
        scale=True,
        categories="one-hot",
    ),
    _river(
        "nb", ("text",), classify="naive_bayes.MultinomialNB", categories="one-hot", counts=True
    ),
    _river(
        "alma",
        ("classes",),
        classify="linear_model.ALMAClassifier",
        binary=True,
        scale=True,
        categories="one-hot",
    ),
    _river(
        "hat",
        _TABLES,
        classify="tree.HoeffdingAdaptiveTreeClassifier",
        regress="tree.HoeffdingAdaptiveTreeRegressor",
        regress_categories="dense",
        regress_scale=True,
        target_scale=True,
        params={"seed": SEED},
        slow=2,
    ),
    _river(
        "knn",
        _TABLES,
        classify="neighbors.KNNClassifier",
        regress="neighbors.KNNRegressor",
        scale=True,
        categories="one-hot",
        slow=4,
    ),
    _river(
        "snarimax",
        ("numbers",),
        regress="time_series.SNARIMAX",
        params={"p": 3, "d": 1, "q": 1},
        regressor={"clip_gradient": 1.0},
        series=True,
    ),
    _river(
        "amf10",
        _TABLES,
        classify="forest.AMFClassifier",
        regress="forest.AMFRegressor",
        params={"n_estimators": 10, "seed": SEED},
        scale=True,  # .88 instead of .70 on Bananas
        categories="ordinal",
        slow=5,
    ),
    _river(
        "arf10",
        _TABLES,
        classify="forest.ARFClassifier",
        regress="forest.ARFRegressor",
        regress_categories="dense",
        regress_scale=True,
        target_scale=True,
        params=_ten(),
        slow=6,
    ),
    _river(
        "lb10",
        ("classes",),
        classify="ensemble.LeveragingBaggingClassifier",
        base="tree.HoeffdingTreeClassifier",
        params=_ten(),
        slow=6,
    ),
    _river("srp10", ("classes",), classify="ensemble.SRPClassifier", params=_ten(), slow=7),
)

_CAPYMOA = (
    _capymoa("knn", 2, classify="KNN", regress="KNNRegressor", scale=True),
    _capymoa("samknn", 3, classify="SAMkNN", scale=True),
    _capymoa("hat", 1, classify="HoeffdingAdaptiveTree"),
    _capymoa("fimtdd", 1, regress="FIMTDD"),
    _capymoa("lb10", 2, classify="LeveragingBagging", params=_hundred(10)),
    _capymoa(
        "arf10",
        3,
        classify="AdaptiveRandomForestClassifier",
        regress="AdaptiveRandomForestRegressor",
        params=_hundred(10),
    ),
    _capymoa("srp10", 4, classify="StreamingRandomPatches", params=_hundred(10)),
    _capymoa(
        "sgbt",
        4,
        classify="StreamingGradientBoostedTrees",
        regress="StreamingGradientBoostedRegression",
        params={"random_seed": SEED},
    ),
    _capymoa("soknl", 6, regress="SOKNL", params=_hundred(100)),
    _capymoa(
        "arf100",
        6,
        classify="AdaptiveRandomForestClassifier",
        regress="AdaptiveRandomForestRegressor",
        params=_hundred(100),
    ),
)

_OTHERS = (
    _vowpal("linear", "", "-q ff"),
    _vowpal("nn", "--nn 10", ""),
    Contestant(
        "deep-river-mlp",
        "deep-river",
        "deep",
        _TABLES,
        {
            "classify": "classification.zoo.MultiLayerPerceptron",
            "regress": "regression.zoo.MultiLayerPerceptron",
            "params": {
                "n_width": 32,
                "n_layers": 2,
                "optimizer_fn": "adam",
                "lr": 0.003,
                "seed": SEED,
            },
        },
        slow=3,
    ),
    Contestant(
        "deep-river-lstm",
        "deep-river",
        "deep",
        _TABLES,
        {
            "classify": "classification.zoo.LSTMClassifier",
            "regress": "regression.zoo.LSTMRegressor",
            "params": {"hidden_size": 32, "optimizer_fn": "adam", "lr": 0.003, "seed": SEED},
        },
        slow=4,
    ),
)

BASELINES = ("no-change", "majority")
CONTESTANTS = {
    each.name: each
    for each in (
        Contestant(OURS, OURS, "", _ALL),
        Contestant("headrace-cnn2d", OURS, "", ("classes",), image=True),
        *(Contestant(name, "headrace-peers", "baselines", _ALL) for name in BASELINES),
        *_RIVER,
        *_CAPYMOA,
        *_OTHERS,
    )
}


def choose(names: str, known: dict[str, Any], what: str) -> list[str]:
    """Read `a,b`, where a name without more chooses all that begin with it: `river`, `vw`.

    Raises:
        UsageError: nothing begins so.
    """
    from headrace.stream.errors import UsageError

    chosen: list[str] = []
    for name in filter(None, map(str.strip, names.split(","))):
        found = [name] if name in known else [each for each in known if each.startswith(f"{name}-")]
        if not found:
            raise UsageError(f"--{what} {name}: unknown; there are {', '.join(known)}")
        chosen += found
    return list(dict.fromkeys(chosen))
