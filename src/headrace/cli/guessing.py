"""The options by which people say what their data are: one definition for all commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, Literal

import typer

from headrace.stream.evaluation.options import Options

Target = Annotated[str | None, typer.Option(help="The column to predict.", metavar="COLUMN")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Fail if anything is left out, refused or not sure.")
]

_DECLARED: dict[str, Any] = {
    "kind": Annotated[
        Literal["classify", "regress"] | None,
        typer.Option(help="Default: from the target's values."),
    ],
    "drop": Annotated[str, typer.Option(help="Columns to leave out.", metavar="A,B")],
    "time": Annotated[
        str | None, typer.Option(help="The column with event time.", metavar="COLUMN")
    ],
    "entity": Annotated[
        str | None,
        typer.Option(help="The column with the entity that lags belong to.", metavar="COLUMN"),
    ],
    "max_classes": Annotated[
        int | None,
        typer.Option(help="Most classes that the target may have; default: 50.", min=2, max=1000),
    ],
    "decimal": Annotated[
        Literal[".", ","] | None,
        typer.Option(help="The decimal mark, where texts do not show which it is."),
    ],
    "dayfirst": Annotated[
        bool | None,
        typer.Option(
            "--dayfirst/--no-dayfirst",
            help="How dates such as 03/04/2026 are read; default: as they show it themselves.",
            show_default=False,
        ),
    ],
}
_DEFAULTS = {"drop": ""}


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command have, in place of its parameter `options`, an option for each of `Options`."""
    inner = signature(command, eval_str=True)
    ours = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name), annotation=declared)
        for name, declared in _DECLARED.items()
    ]
    parameters: list[Parameter] = []
    for each in inner.parameters.values():
        own = each.replace(kind=Parameter.KEYWORD_ONLY)
        parameters += ours if each.name == "options" else [own]

    @wraps(command)
    def called(**given: Any) -> None:
        said = {name: given.pop(name) for name in _DECLARED}
        drop = [name.strip() for name in said.pop("drop").split(",") if name.strip()]
        command(**given, options=Options(drop=drop, **said))

    called.__signature__ = inner.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {}
    return called
