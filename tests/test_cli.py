"""The command line as a user runs it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from click.testing import CliRunner

from authz403 import __version__
from authz403.cli import demo as demo_module
from authz403.cli.commands import authz403
from authz403.cli.demo import Call
from authz403.cli.demo_service import Issuer
from authz403.reasons import Reason


def test_the_demo_gets_every_answer_that_it_expects() -> None:
    """`authz403 demo` calls a real service, shows each answer with its reason, and exits with 0."""
    result = CliRunner().invoke(authz403, ["demo"])
    assert result.exit_code == 0, result.output
    assert re.search(r"(\d+) of \1 answers as expected", result.output)
    for reason in (
        "missing_token", "token_expired", "wrong_audience", "insufficient_scope", "role_required", "ip_not_allowed",
        "not_owner", "preflight_refused",
    ):  # fmt: skip
        assert reason in result.output
    assert '"event": "authz.denied"' in result.output
    assert "Bearer ey" not in result.output


def test_the_demo_fails_when_an_answer_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One wrong expectation is named, and the exit status is 1."""
    wrong = Call(title="wrong", method="GET", path="/orders/1", who="nobody", expected=403, reason=Reason.NOT_OWNER)
    monkeypatch.setattr(demo_module, "_calls", lambda _issuer: [wrong])
    result = CliRunner().invoke(authz403, ["demo"])
    assert result.exit_code == 1
    assert "EXPECTED   403 not_owner" in result.output
    assert "0 of 1 answers as expected" in result.output


def test_a_websocket_that_opens_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo tells an opened WebSocket from a refused one."""

    def calls(issuer: Issuer) -> list[Call]:
        bearer = {"Authorization": f"Bearer {issuer.token('alice', scope='orders:read')}"}
        return [Call(title="open", method="WEBSOCKET", path="/live", who="alice", expected=101, headers=bearer)]

    monkeypatch.setattr(demo_module, "_calls", calls)
    result = CliRunner().invoke(authz403, ["demo"])
    assert result.exit_code == 0, result.output


def test_help_and_version_are_told() -> None:
    """`--help` lists the commands and `--version` the version."""
    assert "demo" in CliRunner().invoke(authz403, ["--help"]).output
    assert __version__ in CliRunner().invoke(authz403, ["--version"]).output


@pytest.mark.parametrize(
    ("missing", "told"),
    [("click", "authz403[cli]"), ("fastapi", "authz403[demo]"), ("uvicorn", "authz403[demo]")],
    ids=["no click", "no FastAPI", "no uvicorn"],
)
def test_a_missing_extra_is_named(missing: str, told: str) -> None:
    """Without what the command line or the demo needs, one line says what to install, without a traceback."""
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['authz403', 'demo']; import authz403.__main__"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_stays_up_and_prints_calls_that_work() -> None:
    """`authz403 demo --serve` prints curl lines whose tokens are good, and stops at Ctrl-C."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "authz403", "demo", "--serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - it only sets a signal
    ) as served:
        try:
            assert served.stdout is not None
            lines: list[str] = []
            for line in served.stdout:
                lines.append(line)
                if "Ctrl-C" in line:
                    break
            allowed = next(line for line in lines if line.startswith("curl") and "/orders/1 -H" in line)
            url, token = re.findall(r"(http://\S+) -H 'Authorization: Bearer (\S+)'", allowed)[0]
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - loopback
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
                assert response.status == 200
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(url, timeout=10)  # noqa: S310
            assert refused.value.code == 401
            assert refused.value.headers["Authz-Reason"] == "missing_token"
            refused.value.close()
        finally:
            served.send_signal(signal.SIGINT)
            rest = served.stdout.read() if served.stdout is not None else ""
            assert served.wait(timeout=20) == 0
    assert "stopped" in rest
    assert '"reason": "missing_token"' in rest


def test_nothing_is_left_running_after_the_demo() -> None:
    """The servers of the demo are gone when it ends."""
    output = CliRunner().invoke(authz403, ["demo"]).output
    ports = [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)\n", output)]
    assert len(ports) == 2
    deadline = time.monotonic() + 5
    for port in ports:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) != 0:
                    break
            assert time.monotonic() < deadline, f"port {port} still answers"
