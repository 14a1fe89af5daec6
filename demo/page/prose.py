"""A reply as it reads with its markdown: paragraphs, lists, tables, code. HTML in the text stays text."""

from __future__ import annotations

from markdown_it import MarkdownIt

# No images: they would be fetched from wherever a model says.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def prose(text: str) -> str:
    """HTML for the page. Links open elsewhere and tell nothing about this page."""
    tokens = _MARKDOWN.parse(text)
    for token in (child for block in tokens for child in block.children or []):
        if token.type == "link_open":
            token.attrSet("target", "_blank")
            token.attrSet("rel", "noopener noreferrer")
    return str(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))
