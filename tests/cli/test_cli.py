from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMANDS = [
    "demo",
    "learn",
    "normalize",
    "produce",
    "infer",
    "evaluate",
    "check",
    "schema",
    "up",
    "topics",
    "tail",
    "dead-letters",
]


def headrace(
    *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    surroundings = {k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP"} | (env or {})
    return subprocess.run(
        [sys.executable, "-m", "headrace", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=surroundings,
    )


def test_a_closed_standard_input_is_an_empty_one() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -m headrace infer - --target y <&-', sys.executable],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "standard input: no rows" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = headrace(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout) > 200


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check", "none.toml"], 2, "none.toml: cannot be read"),
        (["evaluate", "--input", "none.csv", "--target", "y"], 2, "none.csv: no such file"),
        (["evaluate", "--target", "y"], 2, "--input: missing"),
        (["infer", "none.csv", "--target", "y"], 2, "no such file"),
        (["infer", "-", "--kind", "clas"], 2, "'--kind': 'clas' is not one of 'classify'"),
        (["produce", "nonsense"], 2, "nonsense: no such source"),
        (["produce", "sensor", "--speed", "fast", "--bootstrap", "127.0.0.1:1"], 2, "fast"),
        (["tail", "x", "--bootstrap", "127.0.0.1:1"], 3, "no Kafka answers at 127.0.0.1:1"),
        (["topics", "list", "--bootstrap", "127.0.0.1:1"], 3, "127.0.0.1:1"),
        (["topics", "list", "--bootstrap", "localhost:99999"], 2, "expected host:port"),
        (["topics", "list", "--bootstrap", "a:1,,b:2"], 2, "'' is no address of a Kafka"),
        (["topics", "list", "--bootstrap", "a b"], 2, "expected host:port"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    arguments: list[str], code: int, words: str
) -> None:
    done = headrace(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""


def test_check_says_in_words_what_will_happen() -> None:
    done = headrace("check", str(EXAMPLES / "pm25.toml"))
    assert done.returncode == 0
    for words in ("events.sensor", "pm25.predictions", "32 x 32", "MB", "station"):
        assert words in done.stdout


def test_schema_is_json() -> None:
    assert json.loads(headrace("schema").stdout)["title"] == "Task"


def test_help_imports_no_library_that_takes_long() -> None:
    """What `--help` needs is typer and rich: all else waits until a command runs."""
    slow = "jax faust kafka confluent_kafka numpy pyarrow pydantic msgspec fsspec"
    code = f"import sys, headrace.cli.commands; print({{*{slow.split()}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_commands_that_do_not_learn_import_no_jax(tmp_path: Path) -> None:
    """They would start a second later. None reaches a Kafka, all read their task or their file."""
    (tmp_path / "power.csv").write_text("load,price\n1,2.5\n2,3.5\n3,5.5\n4,7.0\n")
    task, away = str(EXAMPLES / "spam.toml"), ["-b", "127.0.0.1:1"]
    commands = {
        "schema": ["schema"],
        "infer": ["infer", str(tmp_path / "power.csv"), "--target", "price"],
        "topics": ["topics", "create", task, *away],
        "tail": ["tail", "x", *away],
        "dead-letters": ["dead-letters", task, *away],
        "archive": ["archive", "x", "--to", str(tmp_path), *away],
        "normalize": ["normalize", task, *away],
        "produce": ["produce", "text", *away],
    }
    code = (
        "import json, os, sys\n"
        "from headrace.cli.commands import run\n"
        "children = []\n"
        "for name, arguments in json.loads(sys.stdin.read()).items():\n"
        "    if child := os.fork():  # so that all wait for their Kafka at the same time\n"
        "        children.append(child)\n"
        "        continue\n"
        "    sys.argv = ['headrace', *arguments]\n"
        "    code = run()\n"
        "    os.write(2, f'{name} {code} {\"jax\" in sys.modules}\\n'.encode())\n"
        "    os._exit(0)\n"
        "for child in children:\n"
        "    os.waitpid(child, 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(commands), capture_output=True, text=True
    )
    told = [line.split() for line in done.stderr.splitlines()]
    found = {line[0]: line[1:] for line in told if line[-1] in ("True", "False")}
    codes = {"schema": "0", "infer": "0"}
    assert found == {name: [codes.get(name, "3"), "False"] for name in commands}, done.stderr
