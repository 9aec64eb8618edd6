"""Docstrings as MyST Markdown: equations and indented examples become blocks, everything else stays as it is."""

import ast
import inspect
import re

EQUATION = re.compile(r"\(\d+[a-z]?\)\s{2,}\S")


def markdown(docstring: str, columns=False, module=False) -> str:
    """A docstring as MyST. A paragraph whose first line is ``(1)  …`` is a block of equations.

    columns: lines of a name and its meaning, which line up, become a list of definitions. module: the docstring of a
    file, whose lines begin at the margin; elsewhere the indentation of the function goes.
    """
    text = (docstring or "").strip() if module else inspect.cleandoc(docstring or "")
    out = []
    for block in _blocks(text):
        lines = block.splitlines()
        if columns and (pairs := _pairs(inspect.cleandoc(block).splitlines())):
            out.append("\n\n".join(f"{_names(name)}\n: {escaped(meaning)}" for name, meaning in pairs))
        elif lines[0].startswith("    "):
            code = inspect.cleandoc(block)
            out.append(fence(code, "python" if _is_python(code) else "text"))
        elif EQUATION.match(lines[0]) and not any(line.startswith("|") for line in lines):
            out.append(fence(block, "text", "equations"))
        elif _is_columns(lines):
            out.append(fence(block, "text"))
        else:
            out.append(escaped(block))
    return "\n\n".join(out)


def escaped(block: str) -> str:
    """Text in which ``$`` and ``<`` are themselves, outside of code."""
    parts = re.split(r"(``.+?``|`[^`]+`)", block, flags=re.DOTALL)
    for i in range(0, len(parts), 2):
        parts[i] = parts[i].replace("$", "\\$").replace("<", "&lt;")
    return "".join(parts)


def fence(code: str, language: str, name: str | None = None) -> str:
    """A block of code; ``name`` is a class for the style sheet."""
    option = f":class: {name}\n" if name else ""
    return f"````{{code-block}} {language}\n{option}{code}\n````"


def _blocks(text):
    """Paragraphs; neighbouring indented ones are one block."""
    blocks = [block for block in re.split(r"\n\s*\n", text) if block.strip()]
    joined = []
    for block in blocks:
        if joined and block.startswith("    ") and joined[-1].startswith("    "):
            joined[-1] += "\n\n" + block
        else:
            joined.append(block)
    return joined


def _is_columns(lines):
    """Lines that line up by runs of spaces: a table of names and meanings."""
    if any(line.startswith(("|", "* ", "- ")) for line in lines):
        return False
    wide = sum(bool(re.search(r"\S\s{3,}\S", line)) or line.startswith("   ") for line in lines)
    return wide >= 2 or (len(lines) == 1 and wide == 1)


def _pairs(lines):
    """[(name, meaning)] of lines that line up in two columns; [] if they do not."""
    found = re.match(r"\S.*?\s{2,}(?=\S)", lines[0])
    if not found or lines[0].startswith(("|", "* ", "- ", "(", ">>>", "#")):
        return []
    at, pairs = found.end(), []
    for line in lines:
        name, meaning = line[:at].rstrip(), line[at:].strip()
        if not line.strip() or not meaning or line[at - 1] != " " or "  " in name.strip():
            return []
        if name.startswith(" ") or (name and "=" in name):
            return []
        if name:
            pairs.append([name, meaning])
        elif pairs:
            pairs[-1][1] += " " + meaning
    return pairs


def _names(name):
    """The names before a meaning, as code."""
    return f"`{name.replace('`', '')}`"


def _is_python(code):
    try:
        return bool(ast.parse(code).body)
    except SyntaxError:
        return False
