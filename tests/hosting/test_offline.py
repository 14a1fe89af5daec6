"""With the model on the machine, the page needs no network and asks for none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from demo.bench.browser_client import BrowserClient, last, refusals
from demo.bench.page_load import server
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import load_model
from demo.utils.paths import ROOT
from tests.trust import held

pytestmark = pytest.mark.slow
GROUP = "hosting"

# Runs first in the server's Python, whatever it imports: writes down every name looked up and every address connected to.
_LISTENER = """
import os, sys
def hook(event, args, log=os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname"):
        os.write(log, (event + " " + repr(args[1 if event in ("socket.connect", "socket.sendto") else 0]) + "\\n").encode())
sys.addaudithook(hook)
"""
# As root of a namespace of its own, in which there is no network but the loopback.
_IN_A_CUT_OFF_PLACE = """
import fcntl, socket, struct, sys
with socket.socket() as lo:
    fcntl.ioctl(lo, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up and running
try:
    socket.create_connection(("1.1.1.1", 53), timeout=2)
except OSError:
    pass
else:
    sys.exit("there is a network here")
from tests.test_cut_off import visit
from demo.bench.room import server
with server(()) as (address, _):
    visit(address)
print("all of it worked")
"""


def visit(address: str) -> None:
    """What a visitor does in a while."""
    with BrowserClient(address) as tab:
        tab.load()
        assert not refusals(last(tab.send("Which day comes after Monday?", **{"Max new tokens": 12})))
        assert any(op["op"] == "layers" for op in last(tab.slow(do="layers", turn=0, branch="capped")))
        for kind in ("json", "csv", "html"):
            assert any(op["op"] == "download" for op in tab.quick(do="save", kind=kind))
        for path in ("", "config", "theme.css", "gradio_api/info"):
            assert tab.http.get(path).status_code == 200


@pytest.fixture(autouse=True)
def on_the_machine() -> None:
    load_model(DEFAULT_MODEL)


def test_the_server_looks_up_no_name_and_connects_to_nobody(tmp_path):
    log = tmp_path / "asked.txt"
    (tmp_path / "sitecustomize.py").write_text(_LISTENER.format(log=str(log)))
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    with server((), {"PYTHONPATH": path}) as (address, _):
        visit(address)
    asked = log.read_text().splitlines()
    assert asked, "the hook was there: the page looks at its own port"
    here = ("'127.0.0.1'", "'localhost'", "'::1'", f"'{address[7:-1].partition(':')[0]}'", "b'127.0.0.1'")
    assert [line for line in asked if not any(name in line for name in here)] == []
    held(
        "names looked up and connections made by a server at work",
        len(asked),
        "all to this machine itself",
        GROUP,
    )


def test_all_of_it_works_with_the_network_cut_off():
    unshare = shutil.which("unshare")
    cut = [str(unshare), "--user", "--map-root-user", "--net", "--"]
    if unshare is None or subprocess.run([*cut, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a program have a network of its own")
    command = [*cut, sys.executable, "-c", _IN_A_CUT_OFF_PLACE]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "all of it worked" in ended.stdout
    held("a server and a visitor with the network cut off", 1, "all of it worked", GROUP)
