"""The command: ``scripts/bench [--only P1,P2] [--quick] [--rounds N] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks import disc, latency, proxies, resources, retrieve, store
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.report import as_json, as_table, surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scripts.benchmarks.measure import Line

#: Which targets of docs/performance.md a measurement is for, and how it is made.
MEASUREMENTS: dict[str, Callable[[Bench], Iterator[Line]]] = {
    "P1": retrieve.measure,
    "P2": store.receive,
    "P3": store.send,
    "P4": disc.measure,
    "P5 P6": resources.measure,
    "P7 P8": proxies.measure,
    "P9": latency.measure,
}
_ROUNDS = 3


def main() -> int:
    """Measure, print the table, write the JSON."""
    options = _options()
    before = surroundings()
    began = time.monotonic()
    lines: list[Line] = []
    with (
        tempfile.TemporaryDirectory(prefix="pacsbridge-bench-", dir=options.work) as work,
        Bench(Path(work), 1 if options.quick else options.rounds, options.quick) as bench,
    ):
        for rows, measure in MEASUREMENTS.items():
            if options.only and not set(rows.split()) & options.only:
                continue
            print(f"{rows} ...", file=sys.stderr, flush=True)
            lines += measure(bench)
    about = before | {"seconds": round(time.monotonic() - began), "quick": options.quick}
    if options.json:
        result = {"about": about, "lines": as_json(lines)}
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    print()
    print(as_table(lines))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure pacsbridge beside the tools that it replaces."
    )
    parser.add_argument("--only", type=_rows, default=set(), metavar="P1,P2", help="only these targets")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="how often each side is measured")
    parser.add_argument("--quick", action="store_true", help="see whether it runs, with little data")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every reading there")
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="a folder with 15 GB of room; else TMPDIR"
    )
    return parser.parse_args()


def _rows(text: str) -> set[str]:
    rows = {row.strip().upper() for row in text.split(",")}
    known = {row for rows in MEASUREMENTS for row in rows.split()}
    if not rows <= known:
        raise argparse.ArgumentTypeError(f"there are {', '.join(sorted(known))}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
