"""A session as one HTML file: the stage with its data, for a browser with no server and no network."""

from __future__ import annotations

import html
import json

from demo.page.stage import SCRIPTS, STATIC_DIR, STYLES

# The browser that saves the file puts the plotting script here: it has it already, and it is large.
PLOTLY = "/*plotly*/"
_NOWHERE = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
body {{ margin: 0; padding: 12px; background: #f6f8fb; }}
body.dark {{ background: #0c1119; }}
{styles}
</style>
</head>
<body>
<main id="element">{stage}</main>
<script>{plotly}</script>
<script>
if (matchMedia("(prefers-color-scheme: dark)").matches) document.body.classList.add("dark");
(function () {{
const element = document.getElementById("element");
const props = {{ value: {value} }};
const watch = () => {{}};
const trigger = null;
{scripts}
}})();
</script>
</body>
</html>
"""


def standalone(title: str, value: str) -> str:
    """value: the stage's value, as `Updates.take` gives it. The plotting script is left to the browser (PLOTLY)."""
    read = [(STATIC_DIR / name).read_text(encoding="utf-8") for name in (*SCRIPTS, *STYLES, "stage.html")]
    return _PAGE.format(
        policy=_NOWHERE,
        title=html.escape(title),
        styles="\n".join(read[len(SCRIPTS) : -1]),
        stage=read[-1],
        plotly=PLOTLY,
        # As a string in a script: nothing in a chat may end the script.
        value=json.dumps(value).replace("<", "\\u003c"),
        scripts="\n".join(read[: len(SCRIPTS)]),
    )
