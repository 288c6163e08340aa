"""Draw what `benchmarks/bench_peers.py --json` measured, as a chart for the docs.

Run: PYTHONPATH=. .bench/bin/python benchmarks/bench_peers.py --json > cost.json
     .venv/bin/python tools/cost_chart.py < cost.json > docs/explanation/cost.svg
"""

from __future__ import annotations

import json
import sys
from html import escape
from typing import Any, Final

ROW: Final = 22  # pixels
NAMES: Final = 300
BARS: Final = 420
LONGEST: Final = 200.0  # microseconds; longer bars are cut and say how long they are


def chart(measured: dict[str, Any]) -> str:
    """Return the chart: one bar a row, of the microseconds that it adds to its bare app."""
    # A preflight is no request of the app's, so that there is nothing to add to.
    rows = [row for row in measured["rows"] if row["row"] != row["over"] and not row["row"].startswith("A/A")]
    rows = [row for row in rows if not row["row"].endswith("preflight")]
    height = ROW * len(rows) + 58
    width = NAMES + BARS + 90
    title = f"Added to a bare request, in microseconds of CPU time (CPython {measured['python']})"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"',
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="10" y="22" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for number, row in enumerate(rows):
        top = 40 + number * ROW
        added = max(row["added"], 0.0)
        length = min(added, LONGEST) / LONGEST * BARS
        color = "#2563eb" if row["row"].startswith("authz403") else "#9ca3af"
        shown = f"{added:.1f}" if added <= LONGEST else f"{added:,.0f} (cut)"
        parts += [
            f'<text x="{NAMES - 8}" y="{top + 14}" text-anchor="end">{escape(row["row"])}</text>',
            f'<rect x="{NAMES}" y="{top + 3}" width="{length:.1f}" height="{ROW - 8}" fill="{color}"/>',
            f'<text x="{NAMES + length + 6:.1f}" y="{top + 14}">{shown}</text>',
        ]
    return "\n".join([*parts, "</svg>"])


if __name__ == "__main__":
    print(chart(json.load(sys.stdin)))
