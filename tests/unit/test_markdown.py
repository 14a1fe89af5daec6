"""Markdown in a reply is laid out, but never becomes any other markup of the page."""

from __future__ import annotations

import pytest

from demo.page.updates import markdown_html


def test_lists_code_and_tables_are_laid_out():
    html = markdown_html(
        "Hi **you**\n\n1. one\n2. two\n\n```python\nprint(1 < 2)\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )
    for part in ("<strong>you</strong>", "<ol>", "print(1 &lt; 2)", "<td>1</td>"):
        assert part in html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![x](http://example.org/x.png)",
        "[x](javascript:alert(1))",
        "[x](  JaVaScRiPt:alert(1))",
        "[x](data:text/html,<script>)",
        '<http://example.org/"onclick=alert(1)>',
    ],
)
def test_nothing_in_a_reply_runs_or_is_fetched(text):
    html = markdown_html(text).lower()
    assert "<script" not in html and "<img" not in html
    assert 'href="javascript' not in html and 'href="data' not in html and 'onclick="' not in html


def test_links_open_in_a_new_tab():
    assert 'target="_blank" rel="noopener noreferrer"' in markdown_html("[x](https://example.org)")
