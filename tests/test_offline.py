"""Tests cannot reach the network, and nothing that they start can; this machine they reach."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from urllib.request import urlopen

import pytest

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.download import fetch

ELSEWHERE = "192.0.2.1"
"""An address that is kept for documentation: nobody has it."""

CONNECT = f"import socket; socket.create_connection(('{ELSEWHERE}', 80), timeout=5)"
GRANDCHILD = (
    f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {CONNECT!r}]))"
)


@pytest.mark.parametrize(
    "reach",
    [
        lambda: socket.create_connection((ELSEWHERE, 80), timeout=5),
        lambda: socket.socket().connect((ELSEWHERE, 80)),
        lambda: socket.socket().connect_ex((ELSEWHERE, 80)),
        lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
        lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", (ELSEWHERE, 53)),
        lambda: socket.socket(type=socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, (ELSEWHERE, 53)),
        lambda: socket.getaddrinfo("example.org", 443),
        lambda: socket.gethostbyname("example.org"),
    ],
    ids=["create", "connect", "connect_ex", "IPv6", "sendto", "sendmsg", "addresses", "name"],
)
def test_what_leaves_this_machine_is_refused(reach):
    with pytest.raises(ConnectionRefusedError, match="tests use no network"):
        reach()


def test_a_download_fails_as_without_a_network():
    with pytest.raises(SourceError, match=r"cannot be downloaded .*Check the network"):
        fetch("https://example.org/weights.pth")


@pytest.mark.parametrize("code", [CONNECT, GRANDCHILD], ids=["child", "grandchild"])
def test_processes_that_tests_start_are_refused(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "NetworkError: tests use no network: socket.connect" in done.stderr


@pytest.mark.parametrize("environment", [{}, {"PYTHONPATH": ""}], ids=["none", "own"])
def test_no_process_starts_with_an_environment_that_could_reach_out(environment):
    with pytest.raises(RuntimeError, match="PYTHONPATH"):
        subprocess.run([sys.executable, "-c", CONNECT], env=environment)


def test_forks_and_spawned_processes_find_the_same_refusal():
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", CONNECT], dict(os.environ))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    pid = os.fork()
    if pid == 0:
        try:
            socket.create_connection((ELSEWHERE, 80), timeout=5)
        except ConnectionRefusedError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs a program that is not Python")
def test_other_programs_are_sent_to_a_proxy_that_is_not_there():
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "5", "http://example.org"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 7  # cannot connect
    assert "127.0.0.1 port 9" in done.stderr


def test_servers_on_this_machine_are_reached(tmp_path):
    with socket.socket() as server, socket.socket(socket.AF_UNIX) as local:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]

        def answer():
            for _ in range(2):
                with server.accept()[0] as connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        for host in ("127.0.0.1", "localhost"):
            with urlopen(f"http://{host}:{port}/", timeout=5) as reply:
                assert reply.read() == b"hi"
        thread.join(5)
        local.bind(str(tmp_path / "socket"))
        local.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))
