"""When the site is built, every link inside it is followed, and nothing of it may need the internet to be shown."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

OUTSIDE = ("http", "https", "mailto", "data", "javascript", "blob")


class Broken(Exception):
    """Links that lead nowhere, a line each."""


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self):
        super().__init__()
        self.links, self.anchors, self.loads = [], set(), []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        for name in ("id", "name"):
            if found.get(name):
                self.anchors.add(found[name])
        link = found.get("href") or found.get("src")
        if link is not None and not (tag == "link" and found.get("rel") == "canonical"):
            self.links.append(link)
            if (
                tag in ("script", "img", "iframe", "source", "video", "link")
                and urlsplit(link).scheme in OUTSIDE[:2]
            ):
                self.loads.append(link)


def read(folder: Path) -> dict:
    """{file: Page} of every HTML file below a folder."""
    pages = {}
    for file in sorted(folder.rglob("*.html")):
        page = pages[file.resolve()] = Page()
        page.feed(file.read_text("utf-8"))
    return pages


def broken(folder: Path) -> list[str]:
    """One line for each link that leads nowhere, and for each thing that a page would load from elsewhere."""
    pages, wrong = read(folder), []
    root = folder.resolve()
    for file, page in pages.items():
        where = file.relative_to(root)
        wrong += [f"{where}: loads {link}" for link in page.loads]
        for link in page.links:
            url = urlsplit(link)
            if url.scheme in OUTSIDE or url.netloc:
                continue
            target = (file.parent / unquote(url.path)).resolve() if url.path else file
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                wrong.append(f"{where}: {link} is no file of the site")
            elif url.fragment and target in pages and unquote(url.fragment) not in pages[target].anchors:
                wrong.append(f"{where}: {link} has no such place")
    return wrong


def check(app, exception):
    """Sphinx's event ``build-finished``."""
    if exception is None and app.builder.format == "html":
        wrong = broken(Path(app.outdir))
        if wrong:
            raise Broken("\n".join(wrong))
