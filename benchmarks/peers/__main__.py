"""statsapi beside its peers, in turn: `python -m benchmarks.peers [--quick] [--only MEASURE …] [--peers NAME …]`.

The measures are singles, batches, questions, meanwhile, workers and correctness. Each writes its section into
benchmarks/results/peers.json as soon as it is done, beside those of earlier runs of the same size, with a table and a
chart of all of them: so a run may be done in pieces. --report makes these again from what is stored; --publish also
draws the chart as docs/peers.svg. --quick (peers-quick.*) takes under three minutes and shows that
everything runs: believe a full run on a quiet machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.peers.correctness import correctness
from benchmarks.peers.measures import ACKED, FULL, MEASURES, QUICK
from benchmarks.peers.programs import Missing
from benchmarks.peers.report import Panel, Section, draw, page_of, table_of, table_of_cells
from benchmarks.peers.servers import PEERS, Peer, Statsapi
from tests.servers import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PUBLISHED = ROOT / "docs" / "peers.svg"
ALL = MEASURES | {"correctness": correctness}


def panels(sections: dict[str, Section]) -> list[Panel]:
    """Of the chart: the most events that were stored are those of the questions."""
    sizes = (
        [each.subject.rpartition(" ")[2] for each in sections["questions"].figures] if "questions" in sections else []
    )
    most = max(sizes, key=lambda of: int(of[:-1]) * (1000 if of[-1] == "M" else 1), default="10M")
    batches = [each.subject for each in sections["batches"].figures] if "batches" in sections else []
    visible = tuple(subject for subject in batches if not subject.endswith(ACKED))
    return [
        Panel("one event a request, requests/s", "singles", ("POST of one event",), True),
        Panel("batches until visible, events/s", "batches", visible, True),
        Panel(f"count, min, max, mean of {most} events, ms", "questions", (f"count, min, max, mean, {most}",), False),
        Panel(f"p99 of {most} events, ms", "questions", (f"p99, {most}",), False),
    ]


def chart_note(sections: dict[str, Section]) -> str:
    """What a reader of the chart must know: its axes, and which run it shows."""
    runs = {f"{each.taken.get('size')} run of {each.taken.get('date')}" for each in sections.values()}
    return f"logarithmic axes; {os.cpu_count()} cores shared with the clients, medians; {', '.join(sorted(runs))}"


def available(names: list[str] | None) -> tuple[list[type[Peer]], dict[str, str]]:
    """The peers that can run here, statsapi first, and why the others cannot."""
    found: list[type[Peer]] = []
    skipped: dict[str, str] = {}
    for each in PEERS:
        if names and each is not Statsapi and not any(name.lower() in each.name.lower() for name in names):
            continue
        try:
            each.require()
        except Missing as reason:
            skipped[each.name] = str(reason)
        else:
            found.append(each)
    return found, skipped


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def load_results(path: Path, size: str) -> dict[str, Section]:
    """The sections of earlier runs of this size, in the order of the measures."""
    if not path.exists():
        return {}
    stored = {name: Section.from_json(each) for name, each in json.loads(path.read_text())["sections"].items()}
    return {name: stored[name] for name in ALL if name in stored and stored[name].taken.get("size") == size}


def store(sections: dict[str, Section], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    made = {"sections": {name: section.to_json() for name, section in sections.items()}}
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(page_of(sections))
    if draw(panels(sections), sections, path.with_suffix(".svg"), chart_note(sections)):
        print(f"{path}, .md and .svg", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: under three minutes")
    parser.add_argument("--only", nargs="+", choices=list(ALL), metavar="MEASURE", help=f"of {', '.join(ALL)}")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="only those whose name contains one of these")
    parser.add_argument("--report", action="store_true", help="measure nothing; tables and chart from what is stored")
    parser.add_argument("--publish", action="store_true", help=f"also write the chart to {PUBLISHED.relative_to(ROOT)}")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    size = QUICK if args.quick else FULL
    path = RESULTS / ("peers-quick.json" if args.quick else "peers.json")
    sections = load_results(path, size.name)
    if not args.report:
        found, skipped = available(args.peers)
        for name, why in skipped.items():
            print(f"skipped: {name}: {why}", flush=True)
        for name in args.only or ALL:
            begun, load = time.perf_counter(), os.getloadavg()[0]
            section = ALL[name](found, size, say)
            section.skipped = skipped | section.skipped
            section.taken |= {
                "size": size.name,
                "date": time.strftime("%Y-%m-%d"),
                "commit": commit(),
                "machine": f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}",
                "load before": f"{load:.1f}",
                "seconds": round(time.perf_counter() - begun),
            }
            sections[name] = section
            sections = {each: sections[each] for each in ALL if each in sections}
            print(f"\n## {section.title}\n\n{section.how}\n")
            print(table_of_cells(section) if section.cells else table_of(section), flush=True)
            store(sections, path)
    store(sections, path)
    if args.publish:
        draw(panels(sections), sections, PUBLISHED, chart_note(sections))


if __name__ == "__main__":
    main()
