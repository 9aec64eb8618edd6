"""One page of the site for each kernel page, made from its source: what it says left, the code right.

Every line of the source stands on its page: ``tests/test_docs.py`` holds that.
"""

import ast
import re

from prose import escaped, fence, markdown

RULE = re.compile(r"# -{20,}\s*(.*)")


def page(name: str, source: str) -> str:
    """The MyST page of a kernel file."""
    tree = ast.parse(source)
    doc = ast.get_docstring(tree, clean=False)
    title, _, rest = doc.partition("\n")
    begin = max([0, *(node.end_lineno for node in tree.body[:1] + [n for n in tree.body if _is_import(n)])])
    out = [
        "---\nhide-toc: true\n---",
        f"# {name}",
        f"{{.lead}}\n{escaped(title)}",
        f"Made from the docstring and the code of `numnet/kernels/{name}.py`.",
        *_imports(tree, source),
        "## What it computes" if rest.strip() else "",
        "::::{container} what",
        markdown(rest),
        "::::",
    ]
    lines = source.splitlines()
    equations = dict(re.findall(r"^ *\((\d+[a-z]?)\)\s{2,}(\S.*)$", doc, re.MULTILINE))
    for heading, first, last in sections(lines, begin):
        out.append(f"## {heading}")
        for prose, code in rows(tree, lines, first, last):
            prose = "\n\n".join(part for part in (prose, _cited(code, equations)) if part)
            out += [
                ":::::{container} row",
                "::::{container} says",
                prose or " ",
                "::::",
                "::::{container} code",
                fence(code, "python") if code else " ",
                "::::",
                ":::::",
            ]
    return "\n\n".join(out) + "\n"


REMARK = re.compile(r"\s{3,}(?![=·])")  # what stands behind an equation, as "forward"
NUMBER = re.compile(r"\((\d+[a-z]?)\)")


def _cited(code, equations):
    """The equations whose numbers stand in comments at the end of the code's lines."""
    comments = " ".join(re.findall(r"\S.*# (.*)$", code, re.MULTILINE))
    numbers = [n for n in dict.fromkeys(NUMBER.findall(comments)) if "=" in equations.get(n, "")]
    if not numbers:
        return ""
    found = [f"({n})  " + re.sub(r"\s+=", " =", REMARK.split(equations[n])[0]).rstrip(",") for n in numbers]
    return fence("\n".join(found), "text", "cited")


def _is_import(node):
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _imports(tree, source):
    """The imports, folded up."""
    lines = source.splitlines()
    first = tree.body[0].end_lineno
    last = max([first, *(node.end_lineno for node in tree.body if _is_import(node))])
    code = "\n".join(lines[first:last]).strip("\n")
    return (
        ["<details><summary>What it imports</summary>", fence(code, "python"), "</details>"] if code else []
    )


def sections(lines, begin):
    """(heading, first line, line after the last), counted from 0: what lies before the first rule, what the rules part."""
    marks = [
        (i, RULE.match(line)[1])
        for i, line in enumerate(lines)
        if i >= begin and RULE.match(line) and RULE.match(line)[1]
    ]
    ends = [i for i, _ in marks[1:]] + [len(lines)]
    first = marks[0][0] if marks else len(lines)
    found = []
    if any(line.strip() for line in lines[begin:first]):
        found.append(("Names and constants" if marks else "The code", begin, first))
    found += [(text[0].upper() + text[1:], i + 1, end) for (i, text), end in zip(marks, ends)]
    return found


def rows(tree, lines, first, last):
    """(prose, code) for each definition of the section, and for what stands between definitions."""
    inside = [node for node in tree.body if first <= node.lineno - 1 < last]
    at, loose = first, []  # loose: the end of what waits for its row
    for node in inside:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        begin = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
        while begin > at and lines[begin - 1].startswith("#"):
            begin -= 1
        loose = lines[at:begin]
        if any(line.strip() for line in loose):
            yield _split(loose)
        yield _definition(node, lines[begin : node.end_lineno], begin)
        at = node.end_lineno
    if any(line.strip() for line in lines[at:last]):
        yield _split(lines[at:last])


def _split(lines):
    """Leading comment lines are prose; the rest is code."""
    while lines and not lines[0].strip():
        lines = lines[1:]
    count = 0
    while count < len(lines) and (lines[count].startswith("# ") or lines[count] == "#"):
        count += 1
    said = "\n".join(line[2:] for line in lines[:count])
    return escaped(said), "\n".join(lines[count:]).strip("\n")


def _definition(node, lines, begin):
    """The docstring as prose, and the function or class without it."""
    first = node.body[0]
    doc = ast.get_docstring(node)
    if doc and isinstance(first, ast.Expr):
        inner = lines[first.lineno - 1 - begin : first.end_lineno - begin]
        if len(node.body) > 1 or isinstance(node, ast.ClassDef):
            assert inner
            lines = lines[: first.lineno - 1 - begin] + lines[first.end_lineno - begin :]
    prose, code = _split(lines)
    said = markdown(doc) if doc else ""
    return "\n\n".join(part for part in (f"**{node.name}**", prose, said) if part), code


def index(sources: dict[str, str]) -> str:
    """The first page: words and letters of all kernel pages, and a table of them in reading order."""
    doc = ast.get_docstring(ast.parse(sources["__init__"]))
    title, _, rest = doc.partition("\n")
    order = reading_order(doc)
    order += [name for name in sources if name != "__init__" and name not in order]
    table = ["| page | what it is about |", "|---|---|"]
    for name in order:
        line = ast.get_docstring(ast.parse(sources[name])).partition("\n")[0]
        table.append(f"| [{name}]({name}.md) | {escaped(line)} |")
    entries = "\n".join(order)
    return "\n\n".join(
        [
            "# The kernels, page by page",
            f"{{.lead}}\n{escaped(title)}",
            "## In reading order",
            "\n".join(table),
            "## Letters, words, and how a page is built",
            markdown(rest),
            f"```{{toctree}}\n:hidden:\n\n{entries}\n```\n",
        ]
    )


def reading_order(doc: str) -> list[str]:
    """The pages in the order in which the docstring of the kernels says they can be read."""
    listed = re.findall(r"^    (.*)$", doc[doc.index("**Reading order**") :], re.MULTILINE)
    return [word for line in listed for word in re.split(r"\s{2,}", line)[0].replace("→", " ").split()]
