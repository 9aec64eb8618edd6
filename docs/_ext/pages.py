"""Pages that are made from other files of the project: notebooks, kernel pages, the reference, the commands' help.

They are written to ``docs/notebooks``, ``docs/kernels`` and ``docs/reference``, which git leaves out.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import kernel_pages
import reference

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
MADE = ("notebooks", "kernels", "reference")
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def make() -> None:
    """Write all pages anew. A file that would not change is not touched, and one that is no longer made goes."""
    wanted = {}
    for path, content in [*_notebooks(), *_kernels(), *reference.pages()]:
        wanted[DOCS / path] = content
    for folder in MADE:
        for old in list((DOCS / folder).rglob("*")):
            if old.is_file() and old not in wanted:
                old.unlink()
    for path, content in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = content.encode("utf-8") if isinstance(content, str) else content
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)


def at(target: Path) -> Path:
    """Where the site has what a file of the project says; the file itself if the site has no page of it."""
    if not target.is_relative_to(ROOT):
        return target
    name = target.relative_to(ROOT).as_posix()
    fixed = {
        "README.md": "index.md",
        "CONTRIBUTING.md": "contributing.md",
        "CHANGELOG.md": "changelog.md",
        "notebooks": "notebooks/index.md",
        "notebooks/README.md": "notebooks/index.md",
        "notebooks/runs": "notebooks/runs.md",
        "notebooks/runs/README.md": "notebooks/runs.md",
        "numnet/kernels": "kernels/index.md",
        "numnet/kernels/__init__.py": "kernels/index.md",
    }
    if name in fixed:
        return DOCS / fixed[name]
    if re.fullmatch(r"notebooks/[\w-]+\.(ipynb|md)", name):
        return DOCS / name
    if re.fullmatch(r"notebooks/runs/[\w-]+/table\.md", name):
        return DOCS / "notebooks/runs.md"
    if match := re.fullmatch(r"numnet/kernels/(\w+)\.py", name):
        return DOCS / "kernels" / f"{match[1]}.md"
    return target


def moved(text: str, source: Path, page: Path) -> str:
    """Markdown of ``source`` with its relative links as they are from ``page``."""

    def link(match):
        target = match[2]
        if re.match(r"\w+:", target) or target.startswith("/"):
            return match[0]
        found = (source.parent / target).resolve()
        if not found.exists() and not at(found).exists():
            return match[0]
        return "](" + os.path.relpath(at(found), page.parent) + (match[3] or "") + ")"

    return LINK.sub(link, text)


def source_read(app, docname, content) -> None:
    """Sphinx's event: links of hand-written pages to files outside of ``docs`` lead to their pages."""
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".md" and path.parent.name not in MADE:
        content[0] = moved(content[0], path, path)
    if docname == "index":  # its tables of contents name pages that need not be there, like teaching*
        lines = content[0].splitlines()
        content[0] = "\n".join(line for line in lines if not line.endswith("*") or [*DOCS.glob(f"{line}.md")])


def _notebooks():
    folder = ROOT / "notebooks"
    names = sorted(folder.glob("*.ipynb"))
    for path in names:
        notebook = json.loads(path.read_text("utf-8"))
        page = DOCS / "notebooks" / path.name
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                text = moved("".join(cell["source"]), path, page)
                cell["source"] = re.sub(r"\A# # ", "# ", text)
        yield f"notebooks/{path.name}", json.dumps(notebook, ensure_ascii=False, indent=1)
    for path, name in [
        (folder / "README.md", "index.md"),
        (folder / "runs" / "README.md", "runs.md"),
        *((path, path.name) for path in sorted(folder.glob("*.md")) if path.name != "README.md"),
    ]:
        text = moved(path.read_text("utf-8"), path, DOCS / "notebooks" / name)
        if name == "index.md":
            listed = re.findall(r"\[([^\]]+)\]\((\w+)\.ipynb\)", text)
            titles = {stem: title for title, stem in listed}
            entries = [f"{titles[path.stem]} <{path.stem}>" for path in names]
            entries += ["Five articles, claim by claim <five_articles>", "runs"]
            text += "\n```{toctree}\n:hidden:\n\n" + "\n".join(entries) + "\n```\n"
        yield f"notebooks/{name}", text


def _kernels():
    folder = ROOT / "numnet" / "kernels"
    sources = {path.stem: path.read_text("utf-8") for path in sorted(folder.glob("*.py"))}
    for name, source in sources.items():
        if name != "__init__":
            yield f"kernels/{name}.md", kernel_pages.page(name, source)
    yield "kernels/index.md", kernel_pages.index(sources)


def copy_explainer(app, exception) -> None:
    """Sphinx's event ``build-finished``: the pages of docs/explainer and their data are part of the site."""
    if exception is None and app.builder.format == "html":
        sys.path.append(str(DOCS))
        import build_explainer

        target = Path(app.outdir) / "explainer"
        shutil.rmtree(target, ignore_errors=True)
        why = build_explainer.build(target, home="../index.html")
        if why:
            print(f"explainer: without the photograph page: {why}")
