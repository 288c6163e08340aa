"""Networks in a file that may change while the service runs: it is read again, and a bad file changes nothing.

No thread stands by, as servers fork: whoever looks up an address when the time has come looks at the file's state, and
where that is another, one thread reads the file while requests go on with what was read before.
"""

from __future__ import annotations

import os
import stat
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import Lock, Thread
from typing import BinaryIO, Final, NamedTuple, Protocol

from authz403.addresses import Address, Addresses, AddressSet
from authz403.errors import Mistakes

LARGEST: Final = 128 * 1024 * 1024
"""Bytes: a larger file is not read."""

SETTLES: Final = 0.1
"""Seconds that a file has to be left alone before it is read again."""

_MOST_TRIES: Final = 100  # until a file is left alone
_OFTENEST, _RAREST = 0.01, 86_400  # seconds between two looks
_FIRST_TOLD: Final = 3  # mistakes in one event
_BLOCK: Final = 1 << 16  # bytes that are read at a time: other threads wait while they are taken to pieces

State = tuple[int, ...] | None
"""What tells a file from its successor: device, inode, size and times; `None` where there is none."""


class Listener(Protocol):
    """Who is told of what becomes of a list: the log of a gate."""

    def warn(self, cause: str, hint: str, **facts: object) -> None:
        """Tell of a change."""

    def error(self, reason: str, hint: str, error: BaseException | None = None, **facts: object) -> None:
        """Tell of a file that is not taken."""


class _Loaded(NamedTuple):
    addresses: AddressSet
    version: str
    at: float  # seconds since the epoch


class _Unread:
    """The state of a file that has to be read again, whatever its own."""


_UNREAD: Final = _Unread()


class AddressFile(Addresses):
    """The networks in a file, for `networks(...)` and `Network(allow=, deny=)`; read again where the file changes.

    The file holds one CIDR string a line, in UTF-8; `#` begins a comment, and empty lines are left out. At most `every`
    seconds pass (0.01 to 86400) between two looks at its state, if there are look-ups. Replacing it by renaming, and
    swapping a symbolic link on the way to it, are seen. A file that is missing, too large, has a line that is no
    network, or has no network at all unless it `may_be_empty`, is not taken: what was read last stays in force. When
    this is made, it raises `ConfigurationError` instead, listing the mistakes with their lines, of more than fifty the
    first. `clock` gives seconds that never go back. Threads may share it, and processes may be forked.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every: float = 1.0,
        may_be_empty: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        mistakes = Mistakes(f"AddressFile({path!r})")
        given = os.fspath(path) if isinstance(path, os.PathLike) else path
        if not isinstance(given, str) or not given or "\0" in given:
            mistakes.add("path", path, "the path of a file is needed")
        mistakes.number("every", every, lambda given: _OFTENEST <= given <= _RAREST, "0.01 to 86400 seconds")
        mistakes.flag("may_be_empty", may_be_empty)
        if not callable(clock):
            mistakes.add("clock", clock, "a function that returns seconds is needed")
        mistakes.raise_if_any()
        self._file = Path(path).absolute()  # not resolved: links on the way may be swapped
        self.path = str(self._file)
        self.cidrs = ()
        self.may_be_empty = may_be_empty
        self._every = every
        self._clock = clock
        self._process = os.getpid()
        self._reading = Lock()  # held while a thread reads
        self._listeners: list[weakref.ref[Listener]] = []
        self._error: str | None = None
        self._told: str | None = None
        self._due = clock() + every
        before = _state(self._file)
        try:
            self._loaded = self._read(mistakes)
        except OSError as error:
            mistakes.add("path", self.path, _why(error))
        mistakes.raise_if_any()
        self._addresses = self._loaded.addresses
        # A write at this very moment may leave no other state behind, so that a young file is read twice.
        self._seen: State | _Unread = _UNREAD if _is_young(before) or _state(self._file) != before else before

    def __contains__(self, address: Address | str) -> bool:
        if self._clock() >= self._due:
            self._look()
        return address in self._addresses

    def __repr__(self) -> str:
        return f"AddressFile({self.path!r})"

    def shown_path(self) -> str:
        """Return the path, from the current folder on if the file is in there."""
        here = Path.cwd()
        return self._file.relative_to(here).as_posix() if self._file.is_relative_to(here) else self._file.as_posix()

    def report_to(self, listener: Listener) -> None:
        """Tell of changes, and of files that are not taken, for as long as somebody else holds the listener."""
        self._listeners = [*(one for one in self._listeners if one() is not None), weakref.ref(listener)]

    def health(self) -> dict[str, object]:
        """Return what is in force and, where the file as it is now is not taken, why: plain values for JSON.

        Looks at the file where that is due, as a look-up does.
        """
        if self._clock() >= self._due:
            self._look()
        loaded = self._loaded
        return {
            "path": self.path,
            "entries": loaded.addresses.entries,
            "version": loaded.version,
            "loaded_at": _utc(loaded.at),
            "error": self._error,
        }

    def _look(self) -> None:
        """See whether the file is another, and have it read then."""
        self._due = self._clock() + self._every
        if _state(self._file) == self._seen:
            return
        if self._process != os.getpid():
            # A fork while the file was read: the thread stayed in the parent.
            self._process, self._reading = os.getpid(), Lock()
        reading = self._reading
        if not reading.acquire(blocking=False):
            return
        try:
            Thread(target=self._read_again, args=(reading,), name="authz403-list", daemon=True).start()
        except RuntimeError as error:
            reading.release()
            self._refuse(str(error), str(error))

    def _read_again(self, reading: Lock) -> None:
        try:
            for _ in range(_MOST_TRIES):
                before = _state(self._file)
                time.sleep(SETTLES)
                if _state(self._file) == before and self._has_read(before):
                    return
            self._seen = _UNREAD
            self._refuse("changing", "it is written to all the time; replace it by renaming another")
        except Exception as error:  # noqa: BLE001 - out of memory, say: the next look tries again
            self._seen = _UNREAD
            self._refuse(repr(error), repr(error))
        finally:
            reading.release()

    def _has_read(self, state: State) -> bool:
        """Read the file once; tell whether its state was the same before and after."""
        mistakes = Mistakes("")
        try:
            loaded = self._read(mistakes)
        except OSError as error:
            if _state(self._file) != state:
                return False
            # That something can be read may change without the file's state.
            self._seen = state if state is None else _UNREAD
            self._refuse(_why(error), _why(error))
            return True
        if _state(self._file) != state:
            return False
        if mistakes:
            found = list(mistakes)
            more = f"; and {len(found) - _FIRST_TOLD} more" if len(found) > _FIRST_TOLD else ""
            self._refuse(loaded.version, "; ".join(map(str, found[:_FIRST_TOLD])) + more)
        else:
            self._take(loaded)
        self._seen = state  # last, as a process that is forked before this has to read again
        return True

    def _read(self, mistakes: Mistakes) -> _Loaded:
        """Read the file; raise an `OSError` where it cannot be read."""
        found = self._file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{self.path} is no file")
        if found.st_size > LARGEST:
            raise OSError(f"it has {found.st_size:,} bytes, and {LARGEST:,} are the most")
        digest = sha256()
        with self._file.open("rb") as file:
            addresses = AddressSet.of_lines(mistakes, _lines(file, digest.update))
        if not addresses and not self.may_be_empty and not mistakes:
            mistakes.add_secret("networks", "there is none in the file; say may_be_empty=True for a deny list without")
        return _Loaded(addresses, digest.hexdigest()[:12], time.time())

    def _take(self, loaded: _Loaded) -> None:
        old, failed = self._loaded, self._error
        self._error = self._told = None
        if loaded.version == old.version:
            if failed is not None:
                self._tell_change("is sound again, and as it was", 0, 0)
            return
        added, removed = loaded.addresses.changes_since(old.addresses)
        self._addresses = loaded.addresses
        self._loaded = loaded  # after that, so that a process forked in between takes it again
        self._tell_change(f"has changed: {added:,} networks more and {removed:,} less", added, removed)

    def _tell_change(self, what: str, added: int, removed: int) -> None:
        for listener in self._listening():
            listener.warn(
                "list_changed",
                f"{self.path} {what}",
                path=self.path,
                added=added,
                removed=removed,
                version=self._loaded.version,
            )

    def _refuse(self, content: str, why: str) -> None:
        """Keep what is in force, and tell so once for this content."""
        self._error = why
        if self._told == content:
            return
        self._told = content
        loaded = self._loaded
        hint = f"{self.path} is not taken: {why}; in force stays {loaded.version}, read at {_utc(loaded.at)}"
        for listener in self._listening():
            listener.error("misconfigured", hint, path=self.path, version=loaded.version)

    def _listening(self) -> list[Listener]:
        return [found for found in (one() for one in self._listeners) if found is not None]


def _lines(file: BinaryIO, digest: Callable[[bytes], object]) -> Iterator[tuple[int, str]]:
    """Yield the lines that hold something, with their numbers."""
    number = 0
    while block := b"".join(file.readlines(_BLOCK)):
        digest(block)
        text = block.decode("utf-8", "replace")
        for line in (text if number else text.removeprefix("\ufeff")).removesuffix("\n").split("\n"):
            number += 1
            if "\r" in line.rstrip("\r"):  # lines of another kind: a comment would swallow all that follow
                yield number, line
                continue
            cidr = (line.partition("#")[0] if "#" in line else line).strip(" \t\r")
            if cidr:
                yield number, cidr


def _state(file: Path) -> State:
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    # The times alone do not do: mtime can be set back, and what is renamed into place brings its own.
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)


def _is_young(state: State) -> bool:
    return state is None or abs(time.time() - max(state[:2]) / 1e9) < 1


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
