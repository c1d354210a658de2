"""How soon a built site shows something on a slow machine: `python -m scripts.benchmarks.paint [PAGE ...] [--slower 4] [--runs 5]`.

Serves build/site on this machine and opens each page in Chromium, its processor slowed down and nothing cached: milliseconds
to the first paint with content (the median of the runs), layout shift, and bytes of the HTML.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import shutil
import statistics
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from scripts.website.site import HOSTED

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["", "pruning/", "pruning/network_slimming/", "comparisons/measured/", "guides/run/"]
WATCH = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shifted += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


class Quiet(SimpleHTTPRequestHandler):
    """A folder, served without a word."""

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", default=PAGES, help='as in an address, "pruning/" for instance; default: one of each kind')
    parser.add_argument("--slower", type=float, default=4.0, help="how many times slower the processor is made")
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    site = ROOT / HOSTED
    browser = os.environ.get("SMALLPRINT_CHROMIUM") or shutil.which("chromium")
    if not browser or importlib.util.find_spec("playwright") is None:
        parser.error("needs Chromium (SMALLPRINT_CHROMIUM=path where it is not on the path) and `pip install -e '.[dev]'`")
    if missing := [page for page in asked.pages if not (site / page / "index.html").is_file()]:
        parser.error(f"{HOSTED} has no page {missing[0]!r}; build it with `smallprint site`")
    from playwright.sync_api import sync_playwright

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server, sync_playwright() as player:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium = player.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for path in asked.pages:
            times, shifts = [], []
            for _ in range(asked.runs):
                page = chromium.new_context().new_page()  # nothing cached
                page.add_init_script(WATCH)
                page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": asked.slower})
                page.goto(f"http://127.0.0.1:{server.server_port}/{path}", wait_until="networkidle")
                page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
                times.append(page.evaluate(PAINT))
                shifts.append(page.evaluate("shifted"))
                page.context.close()
            size = (site / path / "index.html").stat().st_size
            print(f"{path or 'home':40} {statistics.median(times):6.0f} ms, shift {max(shifts):.3f}, {size / 1000:5.0f} kB", flush=True)
        chromium.close()
        server.shutdown()


if __name__ == "__main__":
    main()
