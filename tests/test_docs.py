"""What the documents say is what the code does: their commands, modules and links; and they build into a site without other hosts."""

import ast
import builtins
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.main import get_command

from matinee.cli.main import app
from tests.waiting import HANG_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

ROOT = Path(__file__).parents[1]
MOST_README_LINES = 120
# A log: its commands are those of their day.
LOG = ROOT / "docs" / "experiments.md"
PAGES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path != LOG)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MOST_README_LINES


@pytest.mark.parametrize("command", sorted(set(re.findall(r"(?:^|`)matinee ([a-z]+)", PAGES, re.MULTILINE))))
def test_the_pages_name_only_commands_that_exist(command: str) -> None:
    assert command in get_command(app).commands  # type: ignore[attr-defined]


DOCSTRINGS = "\n".join(path.read_text(encoding="utf-8").split('"""')[1] for path in sorted((ROOT / "train").glob("[a-z]*.py")))


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^ *python -m (train\.[^>\n]*)", f"{PAGES}\n{DOCSTRINGS}", re.MULTILINE))))
def test_the_jobs_take_what_the_pages_and_their_docstrings_give_them(line: str) -> None:
    # A set has its labels, and no machine's folder is named.
    assert "shared/" not in line
    name, *words = shlex.split(line, comments=True)
    command: Any = get_command(import_module(name).app)
    if hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(name, words)


TEXTS = sorted(path for pattern in ("*.md", "docs/*.md", "k8s/**/*.md", "helm/matinee/*.md") for path in ROOT.glob(pattern))
CODE = sorted(
    path for folder in ("matinee", "serve", "train", "bench", "observability", "helm", "k8s") for path in (ROOT / folder).rglob("*.py")
)
_ROOTS = "matinee|serve|train|bench|observability|helm|tests"
# `matinee.models.convert`, a function or a class of it, with or without `python -m` in front.
_MODULE = re.compile(rf"`(?:python -m )?((?:{_ROOTS})(?:\.[A-Za-z]\w*)+)(?<!\.jsonl)(?![\w:])[^`\n]{{0,200}}`")
# `serve/graph/wire.py`, `matinee/settings`, `matinee/settings/profiles/*.yaml`.
_PATH = re.compile(rf"`((?:{_ROOTS}|docs|k8s|examples)/[\w./*-]*)(?: [^`\n]*)?`")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def resolves(dotted: str) -> bool:
    """Whether it names a module, or a name that stands in one (or in a class of it). Read, not imported: some modules take seconds."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        file = next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
        if file is not None:
            return defines(ast.parse(file.read_text(encoding="utf-8")), parts[length:])
    return False


def defines(scope: ast.Module | ast.ClassDef, names: list[str]) -> bool:
    if not names:
        return True
    for node in scope.body:
        if isinstance(node, ast.ClassDef) and node.name == names[0]:
            return defines(node, names[1:])
        bound = [getattr(node, "name", None), *(target.id for target in ast.walk(node) if isinstance(target, ast.Name))]
        if names[0] in bound:
            return not names[1:]
    return False


@pytest.mark.parametrize("path", [*CODE, *TEXTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_that_a_text_names_exists(path: Path) -> None:
    named = set(_MODULE.findall(path.read_text(encoding="utf-8")))
    assert not sorted(dotted for dotted in named if not resolves(dotted))


FILES = {name for path in CODE for name in (path.stem, path.parent.name)} | {path.stem for path in (ROOT / "matinee").rglob("*.yaml")}
CLASSES = {name for path in CODE for name in re.findall(r"^(?:class )?([A-Z]\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)}
# `enhancer`, `read_set`, `ItemReader`; neither `MASH` nor `releaseDate`, which are data.
_BARE = re.compile(r"`([a-z][a-z0-9_]*|(?:[A-Z][a-z0-9]+)+)`")


def names_in(tree: ast.Module) -> set[str]:
    """What a module names anywhere, and the words of its texts that are no docstrings: options, columns and routes are named so."""
    nodes = list(ast.walk(tree))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings]
    named = {getattr(node, field, None) for node in nodes for field in ("name", "id", "attr", "arg", "module", "asname")}
    return {name for name in named if name} | {word for text in texts for word in re.findall(r"\w+", text)}


def test_every_bare_name_in_a_docstring_of_a_module_exists() -> None:
    trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in CODE}
    bare = {path: set(_BARE.findall(ast.get_docstring(tree) or "")) - FILES - CLASSES for path, tree in trees.items()}
    unknown = {path: sorted(names - names_in(trees[path]) - vars(builtins).keys()) for path, names in bare.items() if names}
    assert {path: names for path, names in unknown.items() if names} == {}


@pytest.mark.parametrize("path", [*CODE, *TEXTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_that_a_text_names_exists(path: Path) -> None:
    named = set(_PATH.findall(path.read_text(encoding="utf-8")))
    assert not sorted(pattern for pattern in named if not any(ROOT.glob(pattern.rstrip("/"))))


def test_the_search_finds_classes_functions_and_paths() -> None:
    text = "`matinee.items.Item`, `python -m train.soup work`, `helm.generate.files`, `serve/graph/*.py`, `serve.app:build`, `train.jsonl`"
    assert _MODULE.findall(text) == ["matinee.items.Item", "train.soup", "helm.generate.files"]
    assert _PATH.findall(text) == ["serve/graph/*.py"]
    assert resolves("matinee.items.Item")
    assert not resolves("matinee.index.build.CurrentApiWrites")


@pytest.mark.parametrize(
    "path", [path for path in TEXTS if path.name != "index.md" and path != ROOT / "README.md"], ids=lambda path: path.name
)
def test_a_page_begins_with_who_needs_it(path: Path) -> None:
    _, second = path.read_text(encoding="utf-8").split("\n\n", 2)[:2]
    assert second.startswith("For ")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    targets = {
        target for target in _LINK.findall(path.read_text(encoding="utf-8")) if "://" not in target and not target.startswith("mailto:")
    }
    assert not sorted(target for target in targets if not (path.parent / target).exists())


def named_in_the_menu() -> set[str]:
    """The pages of `nav` in mkdocs.yml, as their addresses in the site."""

    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for one in (entry if isinstance(entry, list) else entry.values()) for page in pages(one)]

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    return {
        page.removesuffix("README.md") + "index.html" if page.endswith("README.md") else page.removesuffix(".md") + ".html"
        for page in pages(nav)
    }


class Resources(HTMLParser):
    """What a browser loads by itself with a page: scripts, styles, pictures, frames, connections that are opened ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") != "canonical":
            self.urls.append(values.get("href") or "")
        if tag in ("script", "img", "iframe", "source"):
            self.urls.append(values.get("src") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_loads_nothing_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    # MkDocs is content with a page that no menu leads to.
    assert {path.relative_to(site).as_posix() for path in pages} - {"404.html"} == named_in_the_menu()
    assert {"index.html", "k8s/runbooks/upgrade.html", "CHANGELOG.html"} <= {path.relative_to(site).as_posix() for path in pages}
    for path in pages:
        resources = Resources()
        resources.feed(path.read_text(encoding="utf-8"))
        assert not [url for url in resources.urls if "//" in url], path.name
        # The theme fetches Mermaid from another host for a page that has such a diagram.
        assert 'class="mermaid"' not in path.read_text(encoding="utf-8")
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")), path.name


def test_each_page_has_a_file_of_its_own_on_a_disk_that_ignores_case(site: Path) -> None:
    names = [path.relative_to(site).as_posix().casefold() for path in site.rglob("*.html")]
    assert len(names) == len(set(names))


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is for its failures."""


@pytest.fixture
def site_url(site: Path) -> Iterator[str]:
    """The address of a server of the built site, on a free port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_search_of_the_site_finds_a_page_without_another_host(browser: "Browser", site_url: str) -> None:
    refused: list[str] = []

    def only_the_site(route: "Route") -> None:
        if route.request.url.startswith((f"{site_url}/", "data:", "blob:")):
            route.continue_()
        else:
            refused.append(route.request.url)
            route.abort()

    with browser.new_context() as context:
        context.set_default_timeout(1000 * HANG_S)
        context.route("**/*", only_the_site)
        page = context.new_page()
        page.goto(f"{site_url}/index.html")
        page.get_by_role("textbox", name="Search").first.click()
        page.keyboard.type("rollback")
        hit = page.locator(".md-search-result__link", has_text=re.compile("roll", re.IGNORECASE)).first
        hit.wait_for()
        hit.click()
        page.wait_for_url(re.compile(rf"^{re.escape(site_url)}/.+\.html"))
    assert not refused
