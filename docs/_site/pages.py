"""Hooks of mkdocs: files of the repository that lie outside of docs/ and belong to the site.

Pages link to files as they lie in the repository, so that links work where it is hosted. What
such a link leads to has its place in the site, and the link is rewritten for it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority, get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Where files of the repository are in the site.
PLACES = {
    "README.md": "index.md",
    "README.md#data-conventions": "conventions.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE-MIT": "LICENSE-MIT.txt",
    "LICENSE-APACHE": "LICENSE-APACHE.txt",
}
# Pages that need the room of a column: broad tables, and the first page, which has no neighbours.
HIDDEN = {"index.md": "navigation", "migration.md": "toc", "replacing-utilities.md": "toc"}
FOLDERS = {"examples/notebooks": "*.ipynb", "examples": "*.py"}
_log = get_plugin_logger("pages")
# Whatever a browser fetches by itself; the links that a reader follows are something else.
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video)\b[^>]*\ssrc=["']?(https?:[^"'\s>]+)"""
    r"""|<link\b[^>]*rel=["']?(?:stylesheet|preconnect|preload|icon)\b[^>]*href=["']?(https?:[^"'\s>]+)"""
    r"""|(?:import\(|@import |url\()["']?(https?:[^"')]+)"""
)
_LINK = re.compile(r"(\]\()(?![a-z]+:)([^)#\s]+)(#[^)\s]*)?")


def places() -> dict[str, str]:
    """Files of the repository, and what they are called in the site."""
    listed = {
        name: place for name, place in PLACES.items() if (ROOT / name.partition("#")[0]).exists()
    }
    for folder, pattern in FOLDERS.items():
        for path in sorted((ROOT / folder).glob(pattern)):
            listed[f"{folder}/{path.name}"] = f"{folder}/{path.name}"
    return listed


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the notebooks in the navigation."""
    notebooks = [place for place in places() if place.endswith(".ipynb")]
    for section in config.nav or []:
        if "Notebooks" in section:
            section["Notebooks"] = notebooks
    return config


@event_priority(100)  # before mkdocs-jupyter looks which files are notebooks
def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the files that lie elsewhere."""
    for source, place in places().items():
        if files.get_file_from_path(place) is not None:
            continue
        if place == source:
            file = File(place, str(ROOT), config.site_dir, config.use_directory_urls)
        else:
            file = File.generated(config, place, abs_src_path=str(ROOT / source))
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links lead to where files are in the site; give broad pages more room."""
    elsewhere = places()
    here = page.file.src_uri
    if here in HIDDEN:
        page.meta["hide"] = [HIDDEN[here]]
    source = {place: name for name, place in elsewhere.items() if not name.startswith("README.md")}
    folder = posixpath.dirname(source.get(here, f"docs/{here}"))

    def rewrite(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        anchor = link[3] or ""
        place = elsewhere.get(target + anchor)
        if place is None:
            place = elsewhere.get(target, target.removeprefix("docs/")) + anchor
        return link[1] + posixpath.relpath(place, posixpath.dirname(here) or ".")

    return _LINK.sub(rewrite, markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Leave out what notebooks would load from elsewhere, and warn of what is still loaded."""
    if page.file.src_uri.endswith(".ipynb"):  # the script for Mermaid's charts, of which none is
        output = re.sub(r"<script type=\"module\">.*?</script>", "", output, flags=re.DOTALL)
    for found in _LOADED.finditer(output):
        resource = found[1] or found[2] or found[3]
        _log.warning(f"{page.file.src_uri}: loads {resource}, and the site is to need no network")
    return output
