"""The apps that real servers serve to `bench_servers.py`, with structlog configured as in production."""

from __future__ import annotations

from benchmarks import requests_made
from benchmarks.logs_made import configure

configure()
bare = requests_made.bare()
guarded = requests_made.guarded(by_secret=True)
