"""Slides of a notebook's figures: one HTML file that needs no other, to show in a browser or to print.

A slide holds a figure, the heading of its section and the first sentences of the text before it. The rest of that text is
the notes. Arrow keys, Page Up and Page Down turn the slides, N shows the notes; printing gives a page for each slide.
"""

import html
import re
from pathlib import Path

from numnet.course.exercises import FOLDED, HEADING, notebooks, read, source
from numnet.errors import NumnetError

WORDS = 45  # of the text on a slide, about

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
html {{ scroll-snap-type: y mandatory; font: 1.35rem/1.45 system-ui, sans-serif; color: #1b2733; background: #fff; }}
body {{ margin: 0; }}
section {{ box-sizing: border-box; min-height: 100vh; padding: 4vh 7vw; scroll-snap-align: start; display: flex;
  flex-direction: column; justify-content: center; gap: 2vh; position: relative; }}
h1, h2 {{ margin: 0; color: #1b3a5c; line-height: 1.2; }}
h1 {{ font-size: 2.4rem; }} h2 {{ font-size: 1.7rem; }}
p, ul {{ margin: 0; max-width: 60ch; }}
img {{ max-width: 100%; max-height: 62vh; object-fit: contain; align-self: flex-start; }}
aside {{ display: none; font-size: 1rem; border-top: 1px solid #7fa9c9; padding-top: 1vh; }}
.notes aside {{ display: block; }}
.number {{ position: absolute; right: 2vw; bottom: 2vh; font-size: .9rem; color: #5a6672; }}
code {{ font-size: .9em; }}
@media print {{ section {{ break-after: page; min-height: auto; height: 96vh; }} }}
</style>
</head>
<body>
{slides}
<script>
const slides = [...document.querySelectorAll("section")];
const here = () => slides.findIndex(s => s.getBoundingClientRect().bottom > innerHeight / 2);
const steps = {{ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1}};
addEventListener("keydown", event => {{
  if (event.key in steps) {{
    const to = Math.min(Math.max(here() + steps[event.key], 0), slides.length - 1);
    slides[to].scrollIntoView();
    event.preventDefault();
  }} else if (event.key.toLowerCase() === "n") {{
    document.body.classList.toggle("notes");
  }}
}});
</script>
</body>
</html>
"""

TEX = {
    r"\cdot": "·",
    r"\times": "×",
    r"\alpha": "α",
    r"\beta": "β",
    r"\gamma": "γ",
    r"\mu": "μ",
    r"\sigma": "σ",
    r"\rho": "ρ",
    r"\varepsilon": "ε",
    r"\langle": "⟨",
    r"\rangle": "⟩",
    r"\lVert": "‖",
    r"\rVert": "‖",
    r"\sum": "∑",
    r"\tilde X": "X̃",
    r"\hat x": "x̂",
    r"\le": "≤",
    r"\ge": "≥",
    r"^2": "²",
    r"^{\mathsf T}": "ᵀ",
    r"\,": " ",
    r"\;": " ",
    r"\ ": " ",
}


def write(target, place, only=()) -> dict[Path, int]:
    """Write the slides of the notebooks in ``place`` to the folder ``target``: file → how many slides.

    The notebooks must hold their outputs. Raises NumnetError if a file is there already, or if a notebook has no figure.
    """
    target, made = Path(target), {}
    for path in notebooks(place, only):
        notebook = read(path)
        title, parts = sections(notebook)
        if not any("<img" in part for part in parts):
            raise NumnetError(f"{path}: no figure in its outputs; run the notebook and save it first")
        made[target / f"{path.stem}.html"] = title, parts
    for file in made:
        if file.exists():
            raise NumnetError(f"{file} is there already; choose a new folder, or remove it")
    target.mkdir(parents=True, exist_ok=True)
    for file, (title, parts) in made.items():
        file.write_text(PAGE.format(title=html.escape(title), slides="\n".join(parts)), "utf-8")
    return {file: len(parts) for file, (_, parts) in made.items()}


def sections(notebook) -> tuple[str, list[str]]:
    """A notebook's title, and its slides as HTML."""
    title, heading, text, slides = "", "", "", []
    for cell in notebook["cells"]:
        words = FOLDED.sub("", source(cell))
        if cell["cell_type"] == "markdown":
            for block in re.split(r"\n(?=#+ )", words):
                name = re.match(r"#+ +(.*)", block)
                rest = block[name.end() :].strip() if name else block.strip()
                if block.startswith("# "):
                    title = _bare(name[1])
                    about = rest.split("**Time:**")[0]
                    slides.append(_slide("h1", title, f"<p>{_inline(_first(about))}</p>"))
                elif name and name[1] in ("What you will know", "What you now know"):
                    slides.append(_slide("h2", name[1], _list(rest)))
                elif name and not HEADING.match(block):
                    heading = _bare(name[1])
                # The text of another section, or of an exercise, is not about the next figure.
                text = "" if HEADING.match(block) else rest if name else rest or text
        elif cell["cell_type"] == "code":
            for picture in _pictures(cell):
                slides.append(_figure(heading or title, text, picture))
                text = ""
    count = len(slides)
    return title, [
        slide.replace("slide-#", f"slide-{number}", 1).replace("§", f"{number} / {count}", 1)
        for number, slide in enumerate(slides, 1)
    ]


def _pictures(cell):
    for output in cell.get("outputs", []):
        data = output.get("data", {}).get("image/png")
        if data:
            yield "".join(data).replace("\n", "")


def _slide(level, heading, inside):
    return f'<section id="slide-#"><{level}>{html.escape(heading)}</{level}>{inside}<div class="number">§</div></section>'


def _figure(heading, text, picture):
    prose = _prose(text)
    shown = _first(prose)
    said = f"<p>{_inline(shown)}</p>" if shown else ""
    alt = html.escape(_bare(f"Figure: {heading}. {shown}").strip(), quote=True)
    image = f'<img alt="{alt}" src="data:image/png;base64,{picture}">'
    rest = prose[len(shown) :].strip() if shown else ""
    notes = f"<aside>{_inline(rest)}</aside>" if rest else ""
    return _slide("h2", heading, said + image + notes)


def _prose(text):
    """The text without formulas on lines of their own, tables, lists and code blocks; one line."""
    text = re.sub(r"\$\$.*?\$\$|```.*?```", "", text, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\||#|    )", line)]
    return " ".join(re.sub(r"^\s*[*-] ", "", line).strip() for line in lines).strip()


def _first(text):
    """The first sentences, at least one, of about WORDS words together."""
    taken, used = "", 0
    for sentence in re.findall(r".+?(?:[.:?!](?=\s|$)|$)\s*", _prose(text)):
        used += len(sentence.split())
        if taken and used > WORDS:
            break
        taken += sentence
    return taken.rstrip()


def _list(text):
    items = re.split(r"^\* ", text, flags=re.MULTILINE)[1:]
    # What follows an empty line is no list.
    items = [" ".join(item.split("\n\n")[0].split()) for item in items]
    return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"


def _math(match):
    """A formula of a line as text; what has no such form stays as TeX."""
    words = match[1]
    for command, sign in TEX.items():
        words = words.replace(command, sign)
    return words if "\\" in words else re.sub(r"[{}]", "", words)


def _bare(text):
    """Text without the marks of Markdown."""
    text = re.sub(r"\$([^$]+)\$", _math, text)
    return re.sub(
        r"\[([^\]]+)\]\([^)]+\)", r"\1", re.sub(r"\*\*|(?<!\w)\*(?=\w)|(?<=\w)\*(?!\w)|`", "", text)
    )


def _inline(text):
    """Markdown of a line as HTML: bold, italics, code, links as their text, formulas as text in italics."""
    formulas = []

    def keep(match):
        formulas.append(f"<i>{html.escape(_math(match))}</i>")
        return f"\x00{len(formulas) - 1}\x00"

    text = html.escape(re.sub(r"\$([^$]+)\$", keep, text), quote=False)
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    text = re.sub(r"\*(.+?)\*", r"<i>\1</i>", text)
    return re.sub("\x00(\\d+)\x00", lambda match: formulas[int(match[1])], text)
