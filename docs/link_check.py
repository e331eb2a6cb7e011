"""Follow every link of the built site that stays on it, without the network."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what a tag links to, loads, and is called."""
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        loads = {"img": "src", "script": "src", "source": "src", "video": "src", "link": "href"}
        if tag in loads and found.get(loads[tag]):
            self.loaded.add(found[loads[tag]])


def broken_links(site: Path) -> list[str]:
    """Links and pictures of a site that lead nowhere, and what a page would load from elsewhere.

    Args:
        site: folder of HTML files.
    """
    files = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in files}
    faults = []
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for target in sorted(page.links | page.loaded):
            parts = urlsplit(target)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                if target in page.loaded:
                    faults.append(f"{name}: loads {target} from the network")
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not place.is_file():
                faults.append(f"{name}: {target} is not on the site")
            elif anchor and place in pages and anchor not in pages[place].anchors:
                faults.append(f"{name}: {target} has no such anchor")
    return faults
