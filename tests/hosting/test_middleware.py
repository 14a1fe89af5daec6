"""What stands before the page: headers, closed doors, bodies of a size, and no file but the page's own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from demo.page.middleware import MOST_BODY
from demo.utils.paths import ROOT
from tests.helpers.hosted import hosted
from tests.trust import held

pytestmark = pytest.mark.slow
GROUP = "hosting"


def test_every_answer_has_the_security_headers(patient):
    with hosted(patient) as address, httpx.Client(base_url=address) as http:
        answers = [
            http.get(path)
            for path in ("", "config", "theme.css", "no-such-page", "gradio_api/file=/etc/passwd")
        ] + [http.post("gradio_api/queue/join", content=b"not json"), http.post("gradio_api/upload")]
        for answer in answers:
            policy = answer.headers["content-security-policy"]
            assert "default-src 'self'" in policy and "frame-ancestors 'self'" in policy
            assert "http" not in policy, "no other server"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
    held("security headers", len(answers), "on every answer, refusals and errors too", GROUP)


def test_on_a_space_the_site_may_frame_the_page_and_nobody_else(patient, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/something")
    with hosted(patient) as address:
        policy = httpx.get(address).headers["content-security-policy"]
        assert policy.endswith(
            "frame-ancestors 'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"
        )


def test_an_oversized_body_is_refused_announced_or_not(patient):
    def endless() -> Iterator[bytes]:
        for _ in range(MOST_BODY // 2**20 + 2):
            yield b"a" * 2**20

    with hosted(patient) as address, httpx.Client(base_url=address, timeout=60) as http:
        answer = http.post("gradio_api/queue/join", content=b"a" * (MOST_BODY + 1))
        assert answer.status_code == 413
        try:
            status = http.post("gradio_api/queue/join", content=endless()).status_code
        except httpx.HTTPError:
            status = 0  # hung up
        assert status == 0 or status >= 400
        assert http.get("config").status_code == 200
    held("a body over the limit, with its length said or not", 2, "refused; the page went on", GROUP)


_CLOSED = [
    "upload",
    "upload_progress?upload_id=a",
    "proxy=http://127.0.0.1:1/",
    "stream/a",
    "stream/a/b/1/playlist.m3u8",
    "component_server",
    "deep_link",
    "dev/reload",
    "runs",
    "run-history/records",
    "monitoring",
    "monitoring/summary",
    "profiling/traces",
    "vibe-code",
    "vibe-edit",
    "process_recording",
    "custom_component/a/client/component/index.js",
    "queue/status",
    "mcp",
    "mcp/sse",
]


def test_doors_that_the_page_does_not_use_are_closed(patient, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with hosted(patient) as address, httpx.Client(base_url=address) as http:
        for door in _CLOSED:
            for path in (door, f"gradio_api/{door}", f"gradio_api/{door}/", f"gradio_api//{door}"):
                for method in ("GET", "POST"):
                    files = {"files": ("a.txt", b"text")} if method == "POST" else None
                    assert http.request(method, path, files=files).status_code in (404, 405), (method, path)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()], "no file of a visitor's is kept"
    held("Gradio's other doors: uploads, proxy, recordings, profiles …", 8 * len(_CLOSED), "closed", GROUP)


def test_no_file_is_served_but_the_page_s_own(patient):
    inside = [
        ROOT / "pyproject.toml",
        ROOT / "app.py",
        ROOT / "axes",
        Path("/etc/passwd"),
        Path("/proc/self/environ"),
    ]
    forms = [
        form
        for path in inside
        for form in (
            f"gradio_api/file={path}",
            f"gradio_api/file={ROOT}/demo/../{os.path.relpath(path, ROOT)}",
            f"gradio_api/file=..%2f..%2f{path}",
            f"gradio_api/file=%2e%2e/{path}",
            f"gradio_api/file=file://{path}",
            f"static/..%2f..%2f..{path}",
            f"static/%2e%2e/%2e%2e{path}",
            f"assets/..%2f..%2f..{path}",
            f"svelte/..%2f..{path}",
        )
    ]
    with hosted(patient) as address, httpx.Client(base_url=address) as http:
        for form in forms:
            answer = http.get(form)
            assert answer.status_code in (400, 403, 404, 500), form
            assert "root:" not in answer.text and "[project]" not in answer.text
        (served,) = set(re.findall(r"gradio_api/file=[^\\\"]+", http.get("").text))
        script = http.get(served)
        assert script.status_code == 200 and "plotly" in script.text[:500]
    held(
        "files of the machine, asked for in many spellings",
        len(forms),
        "none served; Plotly's script is",
        GROUP,
    )
