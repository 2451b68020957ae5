"""`python -m benchmarks.picture`: draw results.svg from results.json, in colours that read on white and on black."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("results.svg")
WIDTH, HEIGHT = 760, 26  # of the picture, and of one bar with what is around it
LEFT, RIGHT = 190, 230  # for the words on either side
TEXT, BAR, OURS = "#768390", "#9aa5b1", "#2f81f7"
NAMES: Final = {
    "vendor": "the vendor's way",
    "threads": "requests, 20 threads",
    "httpx_tasks": "httpx, 20 tasks",
    "aiohttp_docs": "aiohttp as documented",
    "aiohttp_bare": "aiohttp, bare and tuned",
    "ours": "bulkusers",
}


def draw(results: Mapping[str, Any]) -> str:
    """Return the picture of how fast new users are sent."""
    figures = results["scenes"]["speed-new"]["figures"]
    bars = "\n".join(draw_bars({name: figures[name] for name in NAMES}))
    machine = results["machine"]
    height = HEIGHT * (len(NAMES) + 2)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img"
 font-family="-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif" font-size="13" fill="{TEXT}">
<title>New users per second, by client</title>
<text x="0" y="16" font-weight="600">New users per second (20 workers, no latency)</text>
{bars}
<text x="0" y="{height - 8}" font-size="11">Whole commands: medians, and a line from the least to the most. \
{machine["cores"]} cores, Python {machine["python"]}, aiohttp {machine["libraries"]["aiohttp"]}.</text>
</svg>
"""


def draw_bars(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield a bar for each client, the slowest first; its name stands before it, what it reached behind."""
    scale = (WIDTH - LEFT - RIGHT) / max(each["rows_per_second"]["max"] for each in figures.values())
    slowest_first = sorted(figures, key=lambda name: float(figures[name]["rows_per_second"]["median"]))
    for number, name in enumerate(slowest_first, start=1):
        speed, ratio = figures[name]["rows_per_second"], figures[name]["ours_is_faster"]["median"]
        middle = HEIGHT * number + HEIGHT / 2
        base = middle + 4.5  # of letters in the middle
        end, low, high = (LEFT + speed[each] * scale for each in ("median", "min", "max"))
        fill, weight = (OURS, "600") if name == "ours" else (BAR, "400")
        said = f"{speed['median']:,.0f}" + ("" if name == "ours" else f" &#183; {compare(ratio)}")
        yield (
            f'<text x="{LEFT - 10}" y="{base:g}" text-anchor="end" font-weight="{weight}">{NAMES[name]}</text>\n'
            f'<rect x="{LEFT}" y="{middle - 8:g}" width="{end - LEFT:.1f}" height="16" rx="2" fill="{fill}"/>\n'
            f'<path d="M{low:.1f} {middle:g}H{high:.1f}" stroke="{TEXT}" stroke-width="1.5"/>\n'
            f'<text x="{high + 8:.1f}" y="{base:g}" font-weight="{weight}">{said}</text>'
        )


def compare(ratio: float) -> str:
    """Say how fast we are beside another."""
    return f"bulkusers is {ratio:.1f} times as fast" if ratio > 1 else f"bulkusers reaches {ratio:.0%}"


def main() -> None:
    """Draw."""
    FILE.write_text(draw(json.loads(FILE.with_suffix(".json").read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
