"""Formulas as MathML, made while the site is built: every browser of today shows it, without a script or the internet."""

from html import escape

from docutils import nodes
from latex2mathml.converter import convert


def setup(app):
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _markup(node, display):
    text = node.astext()
    return convert(text, display=display).replace(
        "<math ", f'<math aria-label="{escape(text, quote=True)}" ', 1
    )


def _inline(self, node):
    self.body.append(_markup(node, "inline"))
    raise nodes.SkipNode


def _block(self, node):
    self.body.append(f'<div class="formula">{_markup(node, "block")}</div>\n')
    raise nodes.SkipNode
