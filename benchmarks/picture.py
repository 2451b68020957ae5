"""`python -m benchmarks.picture`: draw results.svg from results.json, in colours that are legible on white and black."""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

from benchmarks.speed import NAMES, ROWS

FILE: Final = Path(__file__).with_name("results.svg")
WIDTH, HEIGHT = 760, 26  # of the picture, and of one bar with what is around it
LEFT, RIGHT = 250, 210  # for the words on either side
TEXT, FAINT, BAR, OURS = "#768390", "#8b949e", "#9aa5b1", "#2f81f7"
FONT = "font-family='ui-sans-serif, system-ui, sans-serif' font-size='13'"
SHORT: Final = {
    "vendor": "the vendor's way",
    "threads": "requests, 20 threads",
    "httpx_tasks": "httpx, 20 tasks",
    "aiohttp_docs": "aiohttp as documented",
    "aiohttp_bare": "aiohttp bare and tuned",
    "ours": "bulkusers",
}


def draw(results: dict[str, Any]) -> str:
    """Return the picture of how fast new users are sent."""
    clients = results["scenes"]["speed-new"]["figures"]
    speeds = {
        name: clients[name]["rows_per_second"]["median"]
        for name in sorted(ROWS, key=lambda name: rate_of(clients, name))
    }
    lines = list(draw_bars(clients, speeds))
    height = HEIGHT * (len(speeds) + 2) + 14
    return (
        "\n".join(
            [
                f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' viewBox='0 0 {WIDTH} {height}' "
                f"{FONT} fill='{TEXT}' role='img'>",
                "<title>Rows per second by client</title>",
                f"<text x='0' y='18' font-weight='600'>New users per second, no latency, 20 workers</text>",
                *lines,
                f"<text x='0' y='{height - 12}' font-size='11'>{escape(describe(results['machine']))}</text>",
                "</svg>",
            ]
        )
        + "\n"
    )


def rate_of(clients: dict[str, Any], name: str) -> float:
    """Return the rows a second of a client."""
    return float(clients[name]["rows_per_second"]["median"])


def draw_bars(clients: dict[str, Any], speeds: dict[str, float]) -> Iterator[str]:
    """Yield a bar for each client, its name before and its figures behind it; a hair shows the least and the most."""
    scale = (WIDTH - LEFT - RIGHT) / max(clients[name]["rows_per_second"]["max"] for name in speeds)
    for number, (name, speed) in enumerate(speeds.items(), start=1):
        middle = HEIGHT * number + HEIGHT / 2 + 4
        spread = clients[name]["rows_per_second"]
        mine = name == "ours"
        weight = " font-weight='600'" if mine else ""
        ratio = "" if mine else f", {times(clients[name]['ours_is_faster']['median'])}"
        yield f"<text x='{LEFT - 10}' y='{middle + 4.5:g}' text-anchor='end'{weight}>{escape(SHORT[name])}</text>"
        yield (
            f"<rect x='{LEFT}' y='{middle - 8:g}' width='{speed * scale:.1f}' height='16' rx='2' "
            f"fill='{OURS if mine else BAR}'/>"
        )
        yield (
            f"<path d='M{LEFT + spread['min'] * scale:.1f} {middle:g}H{LEFT + spread['max'] * scale:.1f}' "
            f"stroke='{TEXT}' stroke-width='1.5'/>"
        )
        edge = LEFT + spread["max"] * scale + 8
        yield f"<text x='{edge:.1f}' y='{middle + 4.5:g}'{weight}>{speed:,.0f}/s{ratio}</text>"


def times(ratio: float) -> str:
    """Say how much faster or slower we are."""
    return f"{ratio:.1f} times ours is faster" if ratio >= 1 else f"ours has {ratio:.0%} of it"


def describe(machine: dict[str, Any]) -> str:
    """Say what was measured on."""
    return f"medians of whole commands; {machine['cores']} cores, Python {machine['python']}, aiohttp {machine['libraries']['aiohttp']}"


def main() -> None:
    """Draw."""
    results = json.loads(FILE.with_suffix(".json").read_text(encoding="utf-8"))
    FILE.write_text(draw(results), encoding="utf-8")


if __name__ == "__main__":
    main()
