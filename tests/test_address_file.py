"""Files of networks: read strictly, read again when they change, and never worse than what was read last."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403 import (
    AddressFile,
    AddressSet,
    ConfigurationError,
    Gate,
    Network,
    Requirement,
    Rule,
    anyone,
    authenticated,
    networks,
)
from authz403 import address_file as module
from authz403.request import AccessRequest
from tests.gates_made import ALICE, Callers, fulfilled

HERE: Final = "192.0.2.1"
THERE: Final = "198.51.100.1"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Return seconds."""
        return self.now


class Told:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.changes: list[tuple[object, object]] = []
        self.errors: list[str] = []
        self.facts: list[dict[str, object]] = []

    def warn(self, cause: str, hint: str, **facts: object) -> None:
        """Keep a change."""
        assert cause == "list_changed"
        assert str(facts["path"]) in hint
        self.changes.append((facts["added"], facts["removed"]))
        self.facts.append(facts)

    def error(self, reason: str, hint: str, error: BaseException | None = None, **facts: object) -> None:
        """Keep an error."""
        assert (reason, error) == ("misconfigured", None)
        self.errors.append(hint)
        self.facts.append(facts)


class Made:
    """A list in a file, with the time and what was told in the test's hands."""

    def __init__(self, path: Path, **options: Any) -> None:  # noqa: ANN401 - options of several types
        self.path = path
        self.clock = Clock()
        self.told = Told()
        self.list = AddressFile(path, clock=self.clock, **options)
        self.list.report_to(self.told)
        self.look()  # a young file is read twice

    def look(self) -> dict[str, object]:
        """Look at the file when it is due, and return the state once nobody reads it any more."""
        self.clock.now += 1
        self.list.health()
        wait_for_readers()
        return self.list.health()

    @property
    def error(self) -> str:
        """What health says is wrong."""
        return str(self.list.health()["error"])


def wait_for_readers() -> None:
    """Wait until no thread reads a list."""
    for thread in threading.enumerate():
        if thread.name == "authz403-list":
            while thread.ident is None:  # another thread is about to start it
                time.sleep(0.001)
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take files that are left alone for a moment, so that tests need not wait; and leave no reader behind."""
    monkeypatch.setattr(module, "SETTLES", 0.02)
    yield
    wait_for_readers()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Return a list of one network."""
    path = tmp_path / "list"
    path.write_text("192.0.2.0/24\n")
    return Made(path)


def mistakes_of(path: Any, **options: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - configuration of wrong types too
    """Return what is wrong with a file."""
    with pytest.raises(ConfigurationError) as caught:
        AddressFile(path, **options)
    assert caught.value.part == f"AddressFile({path!r})"
    return [(mistake.field, mistake.why) for mistake in caught.value.mistakes]


# ---- what a file may hold


@pytest.mark.parametrize(
    "content",
    [
        b"192.0.2.0/24\n2001:db8::/32\n",
        b"\xef\xbb\xbf192.0.2.0/24\r\n\r\n2001:db8::/32",
        b"# offices\n\n  192.0.2.0/24\t# B\xc3\xbcro\n#10.0.0.0/8\n2001:db8::/32 #\xff\n   \n",
    ],
    ids=["plain", "windows", "comments"],
)
def test_a_file_holds_a_network_a_line(tmp_path: Path, content: bytes) -> None:
    """Comments, empty lines, white space at both ends and either kind of line end are read over."""
    path = tmp_path / "list"
    path.write_bytes(content)
    found = AddressFile(path)

    assert [text in found for text in (HERE, "2001:db8::1", "10.0.0.1", THERE)] == [True, True, False, False]
    assert found.health()["entries"] == 2
    assert repr(found) == f"AddressFile({str(path)!r})"


def test_the_version_is_the_digest_of_the_file(made: Made) -> None:
    """An operator can compare it with that of the file on any machine."""
    assert made.list.health() == {
        "path": str(made.path),
        "entries": 1,
        "version": hashlib.sha256(made.path.read_bytes()).hexdigest()[:12],
        "loaded_at": made.list.health()["loaded_at"],
        "error": None,
    }
    assert str(made.list.health()["loaded_at"]).endswith("+00:00")


def test_lines_that_end_otherwise_are_told(tmp_path: Path) -> None:
    """A comment would swallow all that follows a lone carriage return, and nobody would know."""
    path = tmp_path / "list"
    path.write_bytes(b"192.0.2.0/24 # office\r203.0.113.0/24\r198.51.100.0/24 # them\r\n")
    with pytest.raises(ConfigurationError, match="line 1"):
        AddressFile(path)


def test_every_wrong_line_is_told_at_the_start(tmp_path: Path) -> None:
    """With its number and why; of many, the first fifty and how many more."""
    path = tmp_path / "list"
    path.write_text("# list\n10.0.0.0/8\n10.0.0.1/8\n\nlocalhost  # here\n010.0.0.1\n")
    assert [field for field, _ in mistakes_of(path)] == ["line 3", "line 5", "line 6"]
    assert mistakes_of(path)[0][1] == "has host bits set; write 10.0.0.0/8 or one address"

    path.write_text("x\n" * 1_234)
    told = mistakes_of(path)
    assert [field for field, _ in told] == [*(f"line {number}" for number in range(1, 51)), "and"]
    assert told[-1][1] == "1,184 more that are wrong"


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"# nothing\n\n", b"\xef\xbb\xbf"], ids=["empty", "line", "comment", "bom"]
)
def test_an_empty_file_is_a_mistake_unless_it_may_be_empty(tmp_path: Path, content: bytes) -> None:
    """An allowlist without networks shuts everybody out, and a deny list that lost its networks lets everybody in."""
    path = tmp_path / "list"
    path.write_bytes(content)

    assert [field for field, _ in mistakes_of(path)] == ["networks"]
    assert HERE not in AddressFile(path, may_be_empty=True)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (str, "No such file"),
        (lambda path: path.mkdir(), "is no file"),
        (os.mkfifo, "is no file"),
        (lambda path: path.symlink_to(path), "symbolic link"),
    ],
    ids=["missing", "folder", "pipe", "loop"],
)
def test_what_cannot_be_read_is_a_mistake(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    """And nothing waits for a pipe that nobody writes to."""
    path = tmp_path / "list"
    make(path)

    ((field, told),) = mistakes_of(path)
    assert field == "path"
    assert why in told


def test_a_file_that_is_too_large_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong path does not fill the memory."""
    monkeypatch.setattr(module, "LARGEST", 13)
    path = tmp_path / "list"
    path.write_text("192.0.2.0/24\n")
    assert HERE in AddressFile(path)

    path.write_text("192.0.2.0/24\n\n")
    assert mistakes_of(path) == [("path", "it has 14 bytes, and 13 are the most")]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"path": ""}, "path"),
        ({"path": b"/list"}, "path"),
        ({"path": None}, "path"),
        ({"path": "/a\0b"}, "path"),
        ({"every": 0}, "every"),
        ({"every": float("nan")}, "every"),
        ({"every": float("inf")}, "every"),
        ({"every": "1"}, "every"),
        ({"every": True}, "every"),
        ({"may_be_empty": "no"}, "may_be_empty"),
        ({"clock": 7}, "clock"),
    ],
    ids=repr,
)
def test_a_wrong_option_is_told(options: dict[str, Any], field: str) -> None:
    """Before anything is read."""
    assert [told for told, _ in mistakes_of(**{"path": "/nowhere/list", **options})] == [field]


@pytest.mark.parametrize("listed", [True, False])
def test_a_file_that_may_be_empty_is_for_deny_alone(tmp_path: Path, listed: bool) -> None:  # noqa: FBT001 - a case
    """In `networks` and `allow` it is a mistake, whatever it holds now; beside other networks it is none."""
    path = tmp_path / "list"
    path.write_text(f"{HERE}\n" if listed else "")
    found = AddressFile(path, may_be_empty=True)

    for make in (lambda: networks(found), lambda: Network(allow=found), lambda: Network(allow=[found])):
        with pytest.raises(ConfigurationError):
            make()
    assert repr(networks(found, "10.0.0.0/8")) == f"networks('10.0.0.0/8', {found!r})"
    assert (HERE in Network(deny=found).denied) is listed


# ---- changes


def rewritten(path: Path, content: str) -> None:
    """Write into the very file."""
    path.write_text(content)


def renamed(path: Path, content: str) -> None:
    """Put another file in its place."""
    other = path.with_suffix(".new")
    other.write_text(content)
    other.rename(path)


def renamed_with_its_time(path: Path, content: str) -> None:
    """Put another file in its place, of the same size if the content is, with the time of the one before."""
    other, before = path.with_suffix(".new"), path.stat()
    other.write_text(content)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


def rewritten_with_its_time(path: Path, content: str) -> None:
    """Write into the very file, and set its time back."""
    before = path.stat()
    path.write_text(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: Final = [rewritten, renamed, renamed_with_its_time, rewritten_with_its_time]
each_change = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)


@each_change
def test_a_change_is_taken(made: Made, change: Callable[[Path, str], None]) -> None:
    """However the file is replaced, by content of the same length too."""
    change(made.path, "192.0.3.0/24\n")
    made.look()

    assert [HERE in made.list, "192.0.3.1" in made.list] == [False, True]
    assert (made.told.changes, made.told.errors) == ([(1, 1)], [])
    assert made.told.facts[0]["version"] == made.list.health()["version"]


def test_a_swapped_link_is_seen(tmp_path: Path) -> None:
    """Kubernetes swaps the link to the folder that the mounted files are in."""
    for name, content in (("one", "192.0.2.0/24\n"), ("two", "198.51.100.0/24\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "list").write_text(content)
    data = tmp_path / "..data"
    data.symlink_to("one")
    (tmp_path / "list").symlink_to("..data/list")
    made = Made(tmp_path / "list")
    assert HERE in made.list

    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(data)
    made.look()

    assert [HERE in made.list, THERE in made.list] == [False, True]


def test_a_file_is_looked_at_when_it_is_due(made: Made) -> None:
    """Not before, and by a look-up alone; until it is read, what was read before answers."""
    made.path.write_text("198.51.100.0/24\n")
    made.clock.now += 0.9
    for _ in range(3):
        assert HERE in made.list
    wait_for_readers()
    assert HERE in made.list

    made.clock.now += 0.2
    assert HERE in made.list
    wait_for_readers()
    assert [HERE in made.list, THERE in made.list] == [False, True]


def test_a_file_that_did_not_change_is_not_read_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking costs one question for its state."""
    started: list[str] = []
    monkeypatch.setattr(module, "Thread", lambda **options: started.append(options["name"]))
    for _ in range(5):
        made.look()

    assert started == []


def test_nobody_waits_while_a_file_is_read(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ups go on with the list before, and start no second reader."""
    may_go_on = threading.Event()
    monkeypatch.setattr(time, "sleep", lambda _seconds: may_go_on.wait(30))
    made.path.write_text("198.51.100.0/24\n")
    for _ in range(3):
        made.clock.now += 1
        assert [HERE in made.list, THERE in made.list] == [True, False]
    readers = [thread for thread in threading.enumerate() if thread.name == "authz403-list"]
    may_go_on.set()
    wait_for_readers()

    assert len(readers) == 1
    assert [HERE in made.list, THERE in made.list] == [False, True]


def test_a_file_that_is_being_written_is_waited_for(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in it half-way, which may be a good list, is never taken."""
    parts = iter(["198.51.100.0/25\n", "203.0.113.0/24\n"])

    def written(_seconds: float) -> None:
        with made.path.open("a") as file:
            file.write(next(parts, ""))

    monkeypatch.setattr(time, "sleep", written)
    made.path.write_text("198.51.100.128/25\n")
    made.look()

    assert made.told.changes == [(3, 1)]


def test_a_file_that_changes_while_it_is_read_is_read_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mixture of two files is never taken."""
    right, parts = AddressSet.of_lines, iter(["198.51.100.0/25\n", "203.0.113.0/24\n"])

    def read(*arguments: Any) -> AddressSet:  # noqa: ANN401 - passed on
        found = right(*arguments)
        with made.path.open("a") as file:
            file.write(next(parts, ""))
        return found

    monkeypatch.setattr(AddressSet, "of_lines", read)
    made.path.write_text("198.51.100.128/25\n")
    made.look()

    assert made.told.changes == [(3, 1)]


def test_a_file_that_is_written_to_all_the_time_is_told(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list before stays, and the next look tries again."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: made.path.write_text(f"10.0.0.0/8 #{time.time_ns()}\n"))
    made.path.write_text("198.51.100.0/24\n")
    made.look()
    made.look()
    assert HERE in made.list
    assert len(made.told.errors) == 1
    assert "is written to all the time" in made.error

    monkeypatch.undo()
    monkeypatch.setattr(module, "SETTLES", 0.02)
    made.look()
    assert "10.0.0.1" in made.list
    assert made.error == "None"


# ---- files that are not taken


def missing(path: Path) -> None:
    """Take the file away."""
    path.unlink()


def a_folder(path: Path) -> None:
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()


BROKEN: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "missing": (missing, "No such file or directory"),
    "folder": (a_folder, "is no file"),
    "empty": (lambda path: path.write_text(""), "there is none in the file"),
    "comments": (lambda path: path.write_text("# 10.0.0.0/8\n"), "there is none in the file"),
    "a bad line": (
        lambda path: path.write_text("10.0.0.0/8\n10.0.0.1/8\n"),
        "line 2 = '10.0.0.1/8': has host bits set; write 10.0.0.0/8 or one address",
    ),
    "bad lines": (lambda path: path.write_text("x\n" * 60), "line 3 = 'x': not an address or a network"),
    "bytes": (lambda path: path.write_bytes(bytes(range(256))), "line 1 = "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_keeps_the_last_good_list(made: Made, name: str) -> None:
    """It is told once with line and reason, shows in health, and is over when the file is good again."""
    make, why = BROKEN[name]
    good = made.list.health()
    make(made.path)
    for _ in range(3):
        assert {**made.look(), "error": None} == good
    assert why in made.error
    assert made.told.changes == []
    (told,) = made.told.errors
    assert why in told
    assert str(made.path) in told
    assert HERE in made.list
    assert "10.0.0.1" not in made.list

    if made.path.is_dir():
        made.path.rmdir()
    renamed(made.path, "198.51.100.0/24\n")
    made.look()
    assert made.error == "None"
    assert made.told.changes == [(1, 1)]
    assert THERE in made.list


def test_a_broken_file_is_told_once_a_content(made: Made) -> None:
    """Not again where it is touched, but where it is broken otherwise, and again after it was good."""
    for content in ("x\n", "x\n", "y\n", "192.0.2.0/24\n", "y\n"):
        made.path.write_text(content)
        made.look()

    assert len(made.told.errors) == 3
    assert made.told.changes == [(0, 0)]


def test_of_many_bad_lines_the_first_are_logged(made: Made) -> None:
    """An event holds three, and says how many more there are."""
    made.path.write_text("x\n" * 40)
    made.look()

    assert made.error.endswith("; and 37 more")
    assert made.error.count("line ") == 3


def test_a_file_that_becomes_readable_is_read(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reading failed for a reason that is not the file's, its state does not tell when to try again."""
    right = Path.open

    def fails(*_arguments: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "open", fails)
    renamed_content = made.path.with_suffix(".new")
    with right(renamed_content, "w") as file:
        file.write("198.51.100.0/24\n")
    renamed_content.rename(made.path)
    made.look()
    assert made.error == "Too many open files"

    monkeypatch.setattr(Path, "open", right)
    made.look()
    assert THERE in made.list
    assert len(made.told.errors) == 1


def test_where_no_thread_can_start_the_list_stays(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is answered, the error is told, and the next look tries again."""

    class Never(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "Thread", Never)
    made.path.write_text("198.51.100.0/24\n")
    made.look()
    assert HERE in made.list
    assert made.error == "can't start new thread"

    monkeypatch.setattr(module, "Thread", threading.Thread)
    made.look()
    assert THERE in made.list


def test_a_crash_while_reading_keeps_the_list(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as no memory; the next look tries again."""
    right = AddressSet.of_lines

    def crashes(*_arguments: object) -> AddressSet:
        raise MemoryError

    monkeypatch.setattr(AddressSet, "of_lines", crashes)
    made.path.write_text("198.51.100.0/24\n")
    made.look()
    assert HERE in made.list
    assert made.error == "MemoryError()"

    monkeypatch.setattr(AddressSet, "of_lines", right)
    made.look()
    assert THERE in made.list


def test_a_deny_list_may_become_empty(tmp_path: Path) -> None:
    """Where that was said."""
    path = tmp_path / "list"
    path.write_text("192.0.2.0/24\n")
    made = Made(path, may_be_empty=True)
    path.write_text("")
    made.look()

    assert HERE not in made.list
    assert made.told.changes == [(0, 1)]


# ---- threads and processes


def test_threads_see_one_list_or_the_other(tmp_path: Path) -> None:
    """While the file is replaced again and again, an address of every list is always inside."""
    path = tmp_path / "list"
    lists = [f"192.0.2.0/24\n{network}\n" for network in ("198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")]
    path.write_text(lists[0])
    made = Made(path)
    stop, wrong = threading.Event(), list[str]()

    def ask() -> None:
        while not stop.is_set():
            if HERE not in made.list or "10.0.0.1" in made.list:
                wrong.append("a list that never was")

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for number in range(1, 10):
        renamed(path, lists[number % 3])
        version = hashlib.sha256(lists[number % 3].encode()).hexdigest()[:12]
        gives_up = time.monotonic() + 30
        while made.look()["version"] != version:  # whoever asks may have begun to read a moment before
            assert time.monotonic() < gives_up
    stop.set()
    for thread in asking:
        thread.join()
    wait_for_readers()

    assert wrong == []
    assert made.told.changes == [(1, 1)] * 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_forked_process_goes_on_reading(tmp_path: Path, moment: str) -> None:
    """Parent and child notice changes, also where the fork came while the parent was reading."""
    program = textwrap.dedent(
        f"""
        import os, sys, threading, time
        from pathlib import Path
        from authz403 import AddressFile
        from authz403 import address_file
        path = Path(sys.argv[1])
        path.write_text("192.0.2.0/24\\n")
        found = AddressFile(path, every=0.01)
        go_on = threading.Event()
        if {moment == "while"}:
            address_file.time.sleep, sleep = lambda _: go_on.wait(), time.sleep
            while not any(thread.name == "authz403-list" for thread in threading.enumerate()):
                "192.0.2.1" in found  # which has the young file read once more
        child = os.fork()
        if {moment == "while"}:
            address_file.time.sleep = sleep
            go_on.set()
        if child == 0:
            path.write_text("198.51.100.0/24\\n")
        until = time.monotonic() + 30
        while "198.51.100.1" not in found and time.monotonic() < until:
            time.sleep(0.005)
        if child == 0:
            os._exit(0 if "198.51.100.1" in found else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert "198.51.100.1" in found
        """
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, str(tmp_path / "list")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)

    assert (done.returncode, done.stderr) == (0, "")


# ---- gates


def reason(gate: Gate, peer: str | None, path: str = "/") -> str | None:
    """Return why a request is refused, if it is."""
    decision = fulfilled(gate.decide(AccessRequest("GET", path, peer))).decision
    return None if decision.allowed else str(decision.reason)


def test_a_rule_follows_its_file(made: Made) -> None:
    """The same gate decides by the new list; its policy has the same version, and names the file."""
    gate = Gate(rules=[Rule("*", "/in/**", networks(made.list, "10.0.0.0/8")), Rule("*", "/**", anyone)])
    before = gate.policy_version
    asked = [reason(gate, peer, "/in") for peer in (HERE, THERE, "10.0.0.1", None)]
    made.path.write_text("198.51.100.0/24\n")
    made.look()

    assert asked == [None, "ip_not_allowed", None, "ip_not_allowed"]
    assert [reason(gate, peer, "/in") for peer in (HERE, THERE, "10.0.0.1", None)] == [
        "ip_not_allowed",
        None,
        None,
        "ip_not_allowed",
    ]
    assert gate.policy_version == before
    outcome = fulfilled(gate.decide(AccessRequest("GET", "/in", HERE)))
    assert f"networks('10.0.0.0/8', AddressFile({str(made.path)!r}))" in outcome.decision.policy


def test_what_is_not_in_a_file_follows_it_too(made: Made) -> None:
    """A negation keeps those out who are in the list, and a list that breaks opens nothing."""
    gate = Gate(rules=[Rule("*", "/**", ~networks(made.list))])
    assert [reason(gate, peer) for peer in (HERE, THERE, None)] == ["access_denied", None, "ip_not_allowed"]

    made.path.write_text("")
    made.look()
    assert reason(gate, HERE) == "access_denied"
    made.path.write_text("198.51.100.0/24\n")
    made.look()
    assert [reason(gate, peer) for peer in (HERE, THERE)] == [None, "access_denied"]
    assert gate.health()["lists"] == [made.list.health()]


SMALL: Final = st.sets(st.integers(0, 15), max_size=6)


@given(allow=SMALL, deny=SMALL, wanted=st.sampled_from([anyone, authenticated, networks("192.0.2.0/24")]))
def test_deny_wins_with_both_lists_from_files(
    tmp_path_factory: pytest.TempPathFactory, allow: set[int], deny: set[int], wanted: Requirement
) -> None:
    """A gate by files lets in who is allowed and not denied, exactly as one by lists in code, whatever else it asks."""
    folder = tmp_path_factory.mktemp("lists")
    allow = allow or {0}
    allowed, denied = ([f"192.0.2.{number << 4}/28" for number in sorted(found)] for found in (allow, deny))
    (folder / "allow").write_text("\n".join(allowed))
    (folder / "deny").write_text("\n".join(denied))
    by_files = Network(
        allow=AddressFile(folder / "allow"), deny=[AddressFile(folder / "deny", may_be_empty=True), "192.0.2.255"]
    )
    by_code = Network(allow=allowed, deny=[*denied, "192.0.2.255"])
    gates = [
        Gate(network=network, rules=[Rule("*", "/**", wanted)], tokens=Callers(ALICE))
        for network in (by_files, by_code)
    ]

    for number in range(16):
        let_in = number in allow and number not in deny and number != 15
        peer = f"192.0.2.{(number << 4) + 15}"
        assert [reason(gate, peer) is None for gate in gates] == [let_in, let_in]
    assert [reason(gate, None) for gate in gates] == ["ip_not_allowed", "ip_not_allowed"]


def test_an_empty_deny_file_denies_nobody_and_an_empty_allow_is_none(tmp_path: Path) -> None:
    """A gate whose deny list is empty today follows it tomorrow."""
    path = tmp_path / "list"
    path.write_text("")
    made = Made(path, may_be_empty=True)
    gate = Gate(network=Network(deny=made.list), rules=[Rule("*", "/**", anyone)])
    assert [reason(gate, peer) for peer in (HERE, None)] == [None, None]

    path.write_text(f"{HERE}\n")
    made.look()
    assert [reason(gate, peer) for peer in (HERE, THERE, None)] == ["ip_not_allowed", None, None]


def test_the_log_tells_of_changes_and_errors(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    """One event each, with path, counts, version, and for a broken file its line and why."""
    gates = [Gate(network=Network(allow=made.list)), Gate(rules=[Rule("*", "/**", networks(made.list))])]
    made.path.write_text("192.0.2.0/24\n10.0.0.0/8\n")
    made.look()
    made.path.write_text("192.0.2.0/24\n10.0.0.1/8\n")
    made.look()
    told = [json.loads(record.getMessage()) for record in caplog.records]
    events = [event for event in told if event.get("path") == str(made.path)]  # a list of another test may still change

    version = made.list.health()["version"]
    assert [event["event"] for event in events] == ["authz.warning"] * 2 + ["authz.error"] * 2
    assert [event["policy_version"] for event in events] == [gate.policy_version for gate in gates] * 2
    assert {name: events[0][name] for name in ("cause", "path", "added", "removed", "version")} == {
        "cause": "list_changed",
        "path": str(made.path),
        "added": 1,
        "removed": 0,
        "version": version,
    }
    assert events[2]["reason"] == "misconfigured"
    assert "line 2 = '10.0.0.1/8': has host bits set; write 10.0.0.0/8 or one address" in events[2]["hint"]
    assert f"in force stays {version}" in events[2]["hint"]


def test_a_gate_that_is_gone_is_told_nothing(made: Made) -> None:
    """A file that outlives many gates keeps none of them."""
    made.told.changes.clear()
    other = Told()
    made.list.report_to(other)
    del other
    made.path.write_text("198.51.100.0/24\n")
    made.look()

    assert made.told.changes == [(1, 1)]
    assert len(made.list._listeners) == 2
    made.list.report_to(made.told)
    assert len(made.list._listeners) == 2
