"""The bundled script of the stage is up to date, and the plotly.js that it was written for is installed.

Node rebuilds the bundle in CI (`make script`). These tests need no node.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import plotly
import pytest

from demo.page.recordings import PLOTLY, offline_page, open_shipped, shipped
from demo.page.stage.component import stage_script
from demo.utils.paths import ROOT

STAGE = ROOT / "demo" / "page" / "stage"
# src/axes.js reads one field that plotly.js does not document. When the version changes, check there what a
# drag does, run the browser tests, and adapt the range of plotly in pyproject.toml.
PLOTLY_JS = "4.1.1"


def sources() -> list[Path]:
    """What build.js reads, in its order."""
    others = [STAGE / name for name in ("build.js", "package-lock.json", "protocol.json")]
    folders = ("src", "making", "classroom")
    return [*others, *(path for folder in folders for path in sorted((STAGE / folder).glob("*.js")))]


def sha256(*texts: str) -> str:
    return hashlib.sha256("".join(texts).encode()).hexdigest()


@pytest.mark.parametrize("bundle", sorted(path.name for path in STAGE.glob("*.bundle.js")))
def test_bundle_was_made_from_the_present_sources_and_not_edited(bundle: str):
    script = (STAGE / bundle).read_text(encoding="utf-8")
    header = re.match(r"// .*\n// Sources: (\w+)\n// Bundle: (\w+)\n", script)
    assert header, "the bundle has no header; run make script"
    found = sha256(*(path.read_text(encoding="utf-8") for path in sources()))
    assert header[1] == found, "the sources have changed since the bundle was made; run make script"
    assert header[2] == sha256(script[header.end() :]), "the bundle was edited; run make script"


def test_bundle_holds_every_module():
    modules = re.findall(r"^  // src/(\w+\.js)$", stage_script(), re.MULTILINE)
    assert sorted(modules) == sorted(path.name for path in (STAGE / "src").glob("*.js"))


def test_offline_page_holds_the_bundle_and_a_place_for_plotly():
    page = offline_page(open_shipped(shipped()[0]))
    assert stage_script() in page
    assert page.count(f"<script>{PLOTLY}</script>") == 1
    # The first of these would end the script early in the page.
    assert "</script" not in stage_script()


@pytest.mark.parametrize("private", ["_fullLayout", "_fullData", "_length", "_offset", "d2p", "c2p"])
def test_private_fields_of_plotly_are_read_in_one_place_at_most(private: str):
    users = [
        path.name for path in (STAGE / "src").glob("*.js") if private in path.read_text(encoding="utf-8")
    ]
    assert users == (["axes.js"] if private == "_fullLayout" else [])


def test_texts_of_the_page_hold_only_characters_that_common_fonts_have():
    """A character that the reader's fonts lack is drawn as an empty box."""
    files = [
        path for ending in ("py", "js", "html", "md") for path in (ROOT / "demo/page").glob(f"**/*.{ending}")
    ]
    files += [*(ROOT / "demo/plots").glob("*.py"), *(ROOT / "assets/presets").glob("*.json")]
    files = [path for path in files if "node_modules" not in path.parts]
    assert len(files) > 50
    found = {(char, path.name) for path in files for char in path.read_text(encoding="utf-8")}
    known = {chr(code) for code in range(0x100)} | set("α–—‘’“”‹›…←→↑↓↗↘−▲▼")
    assert {(char, name) for char, name in found if char not in known} == set()


def test_installed_plotly_js_is_the_one_that_the_script_was_written_for():
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    with script.open(encoding="utf-8") as file:
        head = file.read(200)
    assert f"plotly.js v{PLOTLY_JS}\n" in head


def test_lock_file_names_no_address_to_install_from():
    packages = json.loads((STAGE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert [name for name, package in packages.items() if "resolved" in package] == []
    wanted = json.loads((STAGE / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
