"""MkDocs' hooks: the pages outside `docs/` become part of the site, and relative links work there as they do in the repository.

A page's address is its place in the repository, with two exceptions: pages of `docs/` are at the root, and `ADDRESSES` moves others. A
link to a file that is no page of the site, such as a manifest, becomes its plain text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "helm/matinee/README.md", "k8s/**/*.md")
# Beside `security.html`, `SECURITY.html` would be the same file on a disk that ignores case.
ADDRESSES = {"SECURITY.md": "policy/SECURITY.md"}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]*)((?:#[^)\s]*)?)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path in (path for pattern in OUTSIDE for path in sorted(ROOT.glob(pattern))):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, ADDRESSES.get(name, name), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    sources = {_source(file): file.src_uri for file in files}
    here = posixpath.dirname(_source(page.file))

    def rewrite(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        source = posixpath.normpath(posixpath.join(here, target))
        if source in sources:
            return f"[{text}]({posixpath.relpath(sources[source], posixpath.dirname(page.file.src_uri))}{anchor})"
        return text if (ROOT / source).exists() else match[0]

    return _LINK.sub(rewrite, markdown)


def _source(file: File) -> str:
    """Where it lies in the repository. The theme's own files may lie elsewhere."""
    path = Path(file.abs_src_path or file.src_uri)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else file.src_uri
