"""What an operator's health endpoint may say of a gate: its lists of networks, and its keys."""

from __future__ import annotations

from collections.abc import Iterable

from authz403.address_file import AddressFile, Listener
from authz403.addresses import Addresses
from authz403.leaves import Networks
from authz403.network import Network
from authz403.policy import Requirement
from authz403.tokens import BearerTokens


class Health:
    """Knows the files of networks that a gate rests on, and lets `log` know what becomes of them."""

    def __init__(self, network: Network, sources: Iterable[BearerTokens], log: Listener) -> None:
        self._sources = tuple(sources)
        self._log = log
        self._lists: dict[int, AddressFile] = {}  # which keeps their ids theirs
        for addresses in (network.allowed, network.denied):
            self._add(addresses)

    def watch(self, requirements: Iterable[Requirement]) -> None:
        """Learn which files the policies ask."""
        for requirement in requirements:
            for leaf in requirement.leaves():
                if isinstance(leaf, Networks):
                    self._add(leaf.addresses)

    def _add(self, addresses: Addresses) -> None:
        for part in addresses.parts():
            if isinstance(part, AddressFile) and id(part) not in self._lists:
                self._lists[id(part)] = part
                part.report_to(self._log)

    def told(self) -> dict[str, object]:
        """Return it as plain values for JSON."""
        lists = [one.health() for one in self._lists.values()]
        keys = [{"issuer": source.issuer, **source.keys.health()} for source in self._sources]
        return {"ok": all(one["error"] is None for one in (*lists, *keys)), "lists": lists, "keys": keys}
