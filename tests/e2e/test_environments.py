"""Machines as they are: proxies, IPv6, folders that can't be written, no HOME, unknown users, other locales. Real commands in each.

A machine can be blamed for a failure, but never by a traceback.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from matinee.cli.main import app
from tests.network import has_ipv6
from tests.programs_environment import clean
from tests.waiting import HANG_S, until

ROOT = Path(__file__).parents[2]
# No file can be made there, not even by root.
READ_ONLY = "/proc"
DEAD_PROXY = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9")
C_LOCALE = {"LC_ALL": "C"}
LATIN_1 = {"PYTHONIOENCODING": "latin-1"}
NO_HOME = {"HOME": None, "MATINEE_HOME": None}
FILMS = """title,year,overview
Heat,1995,A detective hunts a crew of thieves.
मेला,1980,Two friends meet at a fair.
,1990,A film without a title.
"""


@dataclass(frozen=True)
class Environment:
    """What is odd about a machine: variables (None removes one), the working directory, a user whom the machine does not know."""

    variables: dict[str, str | None] = field(default_factory=dict)
    directory: str | None = None
    unknown_user: bool = False


BROKEN = {
    "no HOME": Environment(dict(NO_HOME)),
    "a HOME that does not exist": Environment({"HOME": "/nonexistent", "MATINEE_HOME": None}),
    "a home that can't be written": Environment({"MATINEE_HOME": f"{READ_ONLY}/matinee"}),
    "a home of nobody": Environment({"MATINEE_HOME": "~nobody-of-that-name/matinee"}),
    "a home that is a file": Environment({"MATINEE_HOME": str(ROOT / "README.md")}),
    "an unknown user without HOME": Environment(dict(NO_HOME), unknown_user=True),
    "a settings file that is a folder": Environment({"MATINEE_CONFIG": "/"}),
    "a read-only working directory": Environment(directory=READ_ONLY),
    "the C locale": Environment(dict(C_LOCALE)),
    "a latin-1 terminal": Environment(dict(LATIN_1)),
    "python -O": Environment({"PYTHONOPTIMIZE": "1"}),
    "a proxy that is down": Environment(dict(DEAD_PROXY)),
    "a SOCKS proxy": Environment({"ALL_PROXY": "socks5://127.0.0.1:9"}),
    "a proxy that is none": Environment({"HTTP_PROXY": "nonsense://x"}),
}

COMMANDS = [
    ["matinee", "info"],
    ["matinee", "info", "--url", "http://server.invalid:1"],
    ["matinee", "search", "मेला", "--mode", "sparse"],
    ["matinee", "recommend", "मेला"],
    ["matinee", "describe", "मेला"],
    ["matinee", "index", "list"],
    ["matinee", "index", "rollback"],
    ["matinee", "models", "list"],
    ["matinee", "ingest", "~nobody.csv"],
    ["matinee", "evalset", "make", "prepared", "--field", "genres"],
    ["matinee", "--help"],
    ["serve", "check"],
    ["serve", "key", "shop"],
    ["serve.probe", "--once"],
    ["train.prepare", "--smoke"],
    *([f"train.{job}", "no such folder"] for job in ("describe", "embedder", "enhancer", "evaluate", "instructions", "soup", "triplets")),
    ["train.pipeline", "no such file"],
    ["train.preference", "no such sheet"],
    ["train.ratings", "report", "no such folder"],
]


def run(arguments: list[str], environment: Environment, home: Path, **more: str) -> subprocess.CompletedProcess[bytes]:
    """A command of ours to its end, in an environment that is otherwise as it should be."""
    # From any directory, this tree's code.
    variables = clean() | {"PYTHONPATH": str(ROOT), "MATINEE_HOME": str(home), "COLUMNS": "200"}
    variables |= more | {name: value for name, value in environment.variables.items() if value is not None}
    for name, value in environment.variables.items():
        if value is None:
            variables.pop(name, None)
    program, *rest = arguments
    # The entry point without its script, which an unknown user might not reach.
    start = ["-c", "from matinee.cli.main import app; app()"] if program == "matinee" else ["-m", program]
    # In a namespace of its own this process has an id that no user has, and may read what it may read here.
    unknown = ["unshare", "--user", "--map-user=54321"] if environment.unknown_user else []
    command = [*unknown, sys.executable, *start, *rest]
    directory = environment.directory or str(home)
    return subprocess.run(command, cwd=directory, env=variables, capture_output=True, timeout=HANG_S, check=False)


def check(done: subprocess.CompletedProcess[bytes], name: str) -> None:
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert "Traceback" not in said, f"{name}:\n{said[-3000:]}"
    assert done.returncode in range(8), f"{name}: {done.returncode}\n{said[-3000:]}"
    assert said.strip(), f"{name}: it says nothing"


# What ends no command early can be odd at once.
TOGETHER = (
    ("a read-only working directory", "the C locale", "a proxy that is down"),
    ("a latin-1 terminal", "python -O", "a SOCKS proxy"),
)
NAMES = list(BROKEN)
HALF = len(NAMES) // 2


def combined(*names: str) -> Environment:
    """A machine that is odd in all of these ways."""
    parts = [BROKEN[name] for name in names]
    variables = {name: value for part in parts for name, value in part.variables.items()}
    directory = next((part.directory for part in parts if part.directory), None)
    return Environment(variables, directory, any(part.unknown_user for part in parts))


@pytest.mark.parametrize(("first", "second"), [*zip(NAMES[:HALF], NAMES[HALF:], strict=True)])
def test_a_command_in_each_environment(first: str, second: str, tmp_path: Path) -> None:
    """Two at a time: one about the home folder, and one that is not."""
    check(run(["matinee", "search", "मेला", "--mode", "sparse"], combined(first, second), tmp_path), f"{first}, {second}")


@pytest.mark.full
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_in_every_environment(command: list[str], tmp_path: Path) -> None:
    """`test_a_command_in_each_environment` is its short form."""
    alone = [(name,) for name in BROKEN if not any(name in names for names in TOGETHER)]
    for names in (*alone, *TOGETHER):
        check(run(command, combined(*names), tmp_path), f"{names}: {command}")


def everywhere() -> str:
    """The host that means every interface: of both kinds, where this machine has IPv6."""
    return "::" if has_ipv6() else "0.0.0.0"


@dataclass
class World:
    """A home with an odd name, films in it, and a server of them behind proxies that are down."""

    home: Path
    url: str
    ingest: subprocess.CompletedProcess[bytes]


@pytest.fixture(scope="module")
def world(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("odd") / "my ~films (1) é"
    home = folder / "home"
    home.mkdir(parents=True)
    tools.new_home(home)
    films = folder / "my films.csv"
    films.write_text(FILMS, encoding="utf-8")
    # Not with python -O, for which no compiled files are kept: all of PyTorch would be compiled anew.
    odd = Environment({**DEAD_PROXY, **C_LOCALE, "HOME": None}, READ_ONLY)
    done = run(["matinee", "ingest", str(films)], odd, home)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    variables = tools.environment(home, PYTHONPATH=str(ROOT), MATINEE_ENHANCER__ENABLED="false")
    variables |= DEAD_PROXY | C_LOCALE
    variables.pop("HOME", None)
    log = folder / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "serve", "--host", everywhere(), "--port", "0"]
        process = subprocess.Popen(command, cwd=READ_ONLY, env=variables, stdout=out, stderr=out)
    try:
        named = home / "server.json"
        until(lambda: named.exists() or process.poll() is not None, f"the server starts ({log})")
        assert process.poll() is None, log.read_text(errors="replace")
        yield World(home, json.loads(named.read_text())["url"], done)
    finally:
        process.terminate()
        assert process.wait(HANG_S) == 0, log.read_text(errors="replace")


def test_an_ingest_from_a_folder_that_can_not_be_written_says_what_it_could_not_keep(world: World) -> None:
    said = world.ingest.stderr.decode("utf-8", "replace")
    assert "could not be written to /proc" in said
    assert "--rejects" in said
    assert "title is missing" in said


def test_calls_to_the_own_server_use_no_proxy_and_ipv6_has_its_brackets(world: World) -> None:
    assert world.url.startswith("http://[::1]:" if everywhere() == "::" else "http://127.0.0.1:")
    for proxies in (DEAD_PROXY, {"ALL_PROXY": "socks5://127.0.0.1:9", "HTTP_PROXY": "socks5://127.0.0.1:9"}):
        for named in ([], ["--url", world.url]):
            # In this process: all but the imports of another one is the same.
            done = CliRunner().invoke(app, ["info", "--json", *named], env={"MATINEE_HOME": str(world.home), **proxies})
            assert json.loads(done.stdout)["server"] == world.url, done.stderr
    probed = run(["serve.probe", "--once"], Environment(dict(DEAD_PROXY)), world.home)
    check(probed, "probe")
    # It reached the server, which has other films than its set is about.
    assert b"are not in the index" in probed.stderr


@pytest.mark.parametrize("variables", [C_LOCALE, LATIN_1], ids=["C locale", "latin-1"])
def test_a_title_that_a_terminal_can_not_write_is_written_as_an_escape(world: World, variables: dict[str, str]) -> None:
    done = run(["matinee", "search", "fair", "--mode", "sparse"], Environment(dict(variables)), world.home)
    assert done.returncode == 0, done.stderr
    assert ("\\u092e" if variables == LATIN_1 else "मेला") in done.stdout.decode("utf-8")
    asked = run(["matinee", "recommend", "मेला", "--json"], Environment(dict(variables)), world.home)
    assert json.loads(asked.stdout)["likes"][0]["title"] == "मेला"
