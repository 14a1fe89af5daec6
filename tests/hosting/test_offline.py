"""With the model on the machine, the page needs no network and uses none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from demo.bench.app_process import server
from demo.bench.browser_client import BrowserClient, last, refusals
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import load_model
from demo.utils.paths import ROOT
from tests.trust import held

pytestmark = pytest.mark.slow
GROUP = "hosting"

# Runs first in the server's Python, before any import: records every name that is resolved and
# every address that is contacted.
_AUDIT_HOOK = """
import os, sys
OF_SOCKET = ("socket.connect", "socket.sendto")
OF_NAME = ("socket.getaddrinfo", "socket.gethostbyname")
def hook(event, args, log=os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
    if event in OF_SOCKET + OF_NAME:
        os.write(log, (event + " " + repr(args[1 if event in OF_SOCKET else 0]) + "\\n").encode())
sys.addaudithook(hook)
"""
# Runs as root of a network namespace, which has no interface but the loopback.
_VISIT_WITHOUT_NETWORK = """
import fcntl, socket, struct, sys
with socket.socket() as lo:
    fcntl.ioctl(lo, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up and running
try:
    socket.create_connection(("1.1.1.1", 53), timeout=2)
except OSError:
    pass
else:
    sys.exit("there is a network here")
from demo.bench.app_process import server
from tests.hosting.test_offline import visit
with server(()) as (address, _):
    visit(address)
print("everything worked")
"""


def visit(address: str) -> None:
    """Chat, read all layers, save in every format, and load the page's files."""
    with BrowserClient(address) as tab:
        tab.load()
        assert not refusals(last(tab.send("Which day comes after Monday?", **{"Max new tokens": 12})))
        assert any(op["op"] == "layers" for op in last(tab.slow(do="layers", turn=0, branch="capped")))
        for kind in ("json", "csv", "html"):
            assert any(op["op"] == "download" for op in tab.quick(do="save", kind=kind))
        for path in ("", "config", "theme.css", "gradio_api/info"):
            assert tab.http.get(path).status_code == 200


@pytest.fixture(autouse=True)
def downloaded_model() -> None:
    """Have the default model on this machine before a test runs."""
    load_model(DEFAULT_MODEL)


def test_the_server_resolves_no_name_and_contacts_no_other_machine(tmp_path):
    log = tmp_path / "contacted.txt"
    (tmp_path / "sitecustomize.py").write_text(_AUDIT_HOOK.format(log=str(log)))
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    with server((), {"PYTHONPATH": path}) as (address, _):
        visit(address)
    contacted = log.read_text().splitlines()
    assert contacted, "the hook ran: the page checks its own port"
    own = ("'127.0.0.1'", "'localhost'", "'::1'", f"'{address[7:-1].partition(':')[0]}'", "b'127.0.0.1'")
    assert [line for line in contacted if not any(name in line for name in own)] == []
    held(
        "host names resolved and connections opened by a running server",
        len(contacted),
        "all to this machine itself",
        GROUP,
    )


def test_everything_works_without_a_network():
    unshare = shutil.which("unshare")
    isolated = [str(unshare), "--user", "--map-root-user", "--net", "--"]
    if unshare is None or subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow network namespaces")
    command = [*isolated, sys.executable, "-c", _VISIT_WITHOUT_NETWORK]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "everything worked" in ended.stdout
    held("a server and a visitor without a network", 1, "everything works", GROUP)
