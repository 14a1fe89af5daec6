"""The middleware: security headers, closed endpoints, limited bodies, and no files but the page's own."""

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

# Paths of Gradio's endpoints that the page does not use.
_CLOSED = (
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
)


def test_every_response_has_the_security_headers(patient):
    paths = ("", "config", "theme.css", "no-such-page", "gradio_api/file=/etc/passwd")
    with hosted(patient) as address, httpx.Client(base_url=address) as http:
        responses = [http.get(path) for path in paths]
        responses.append(http.post("gradio_api/queue/join", content=b"not json"))
        responses.append(http.post("gradio_api/upload"))
        for response in responses:
            policy = response.headers["content-security-policy"]
            assert "default-src 'self'" in policy and "frame-ancestors 'self'" in policy
            assert "http" not in policy, "no other server"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"
    held("security headers", len(responses), "on every response, errors included", GROUP)


def test_on_a_space_only_the_site_may_frame_the_page(patient, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/something")
    with hosted(patient) as address:
        policy = httpx.get(address).headers["content-security-policy"]
        assert policy.endswith(
            "frame-ancestors 'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"
        )


def test_oversized_bodies_are_refused_with_and_without_a_declared_length(patient):
    def chunks() -> Iterator[bytes]:
        for _ in range(MOST_BODY // 2**20 + 2):
            yield b"a" * 2**20

    with hosted(patient) as address, httpx.Client(base_url=address, timeout=60) as http:
        response = http.post("gradio_api/queue/join", content=b"a" * (MOST_BODY + 1))
        assert response.status_code == 413
        try:
            status = http.post("gradio_api/queue/join", content=chunks()).status_code
        except httpx.HTTPError:
            status = 0  # the server closed the connection
        assert status == 0 or status >= 400
        assert http.get("config").status_code == 200
    held(
        "bodies over the size limit, with and without a declared length",
        2,
        "refused; the page keeps working",
        GROUP,
    )


def test_unused_gradio_endpoints_are_closed(patient, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with hosted(patient) as address, httpx.Client(base_url=address) as http:
        for name in _CLOSED:
            for path in (name, f"gradio_api/{name}", f"gradio_api/{name}/", f"gradio_api//{name}"):
                for method in ("GET", "POST"):
                    files = {"files": ("a.txt", b"text")} if method == "POST" else None
                    assert http.request(method, path, files=files).status_code in (404, 405), (method, path)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()], "no uploaded file is kept"
    held(
        "Gradio's other endpoints: uploads, proxy, recordings, profiles …", 8 * len(_CLOSED), "closed", GROUP
    )


def test_only_the_page_s_own_file_is_served(patient):
    targets = (
        ROOT / "pyproject.toml",
        ROOT / "app.py",
        ROOT / "axes",
        Path("/etc/passwd"),
        Path("/proc/self/environ"),
    )
    spellings = [
        spelling
        for path in targets
        for spelling in (
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
        for spelling in spellings:
            response = http.get(spelling)
            assert response.status_code in (400, 403, 404, 500), spelling
            assert "root:" not in response.text and "[project]" not in response.text
        (served,) = set(re.findall(r"gradio_api/file=[^\\\"]+", http.get("").text))
        script = http.get(served)
        assert script.status_code == 200 and "plotly" in script.text[:500]
    held(
        "files of the machine, requested in many spellings",
        len(spellings),
        "none served; the page's own Plotly script is",
        GROUP,
    )
