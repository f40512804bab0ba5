"""The report opens in a real browser: no console errors, nothing cut off, all pictures there.

Runs where Chromium is on PATH. A harness page loads the report in frames of both widths and
writes down what it measures.
"""

import json
import re
import shutil
import subprocess
import threading
from html import unescape
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from run_builder import Story, Suite, build_run

from budgetrl.report.write import write_report

BROWSER = next(
    (b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), ""
)
WIDTHS = (1280, 390)
HARNESS = """<!doctype html><meta charset="utf-8"><body><script>
const widths = %s, found = [];
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.onload = () => {
    const page = frame.contentDocument;
    const figures = [...page.querySelectorAll("figure svg")];
    found.push({
      width,
      scroll: page.documentElement.scrollWidth,
      broken: [...page.images].filter(i => !i.complete || !i.naturalWidth).length,
      flat: figures.filter(svg => svg.getBoundingClientRect().height < 50).length,
      drawn: page.querySelectorAll("figure svg path").length,
      sections: page.querySelectorAll("section").length,
    });
    if (found.length === widths.length) {
      const out = document.createElement("pre");
      out.id = "measured";
      out.textContent = JSON.stringify(found);
      document.body.append(out);
    }
  };
  frame.src = "report.html";
  document.body.append(frame);
}
</script>"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium on PATH")
def test_report_opens_without_errors_at_both_widths(tmp_path: Path) -> None:
    hostile = "<think>" + "x" * 400 + "</think> \\boxed{{{answer}}} <img src=x onerror=alert(1)>"
    story = Story(
        suites={"heldout": Suite(every=10), "a_suite_with_a_rather_long_name": Suite(ks=(1, 2, 4))},
        completion=hostile,
    )
    run = build_run(tmp_path, story)
    write_report([run])
    folder = run.path / "report"
    (folder / "harness.html").write_text(HARNESS % json.dumps(WIDTHS))
    done = opened(folder / "harness.html", tmp_path / "profile")
    assert not re.search(r"CONSOLE.*(error|refused|uncaught)", done.stderr, re.IGNORECASE)
    match = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout)
    assert match, done.stderr[-2000:]
    measured = json.loads(unescape(match[1]))
    assert sorted(page["width"] for page in measured) == sorted(WIDTHS)
    for page in measured:
        assert page["scroll"] <= page["width"]
        assert page["broken"] == page["flat"] == 0
        assert page["drawn"] > 100
        assert page["sections"] >= 7


CALLS = (
    "<script>fetch('{to}/script')</script>",
    "</pre></details></section><img src={to}/image onerror=\"fetch('{to}/error')\">",
    "<svg onload=\"fetch('{to}/svg')\"><image href={to}/inner /></svg>",
    "<link rel=stylesheet href={to}/sheet><style>body {{background: url({to}/css)}}</style>",
    "<iframe src={to}/frame></iframe><object data={to}/object></object><video src={to}/video>",
    "<meta http-equiv=refresh content='0; url={to}/refresh'><base href={to}/base>",
    "![picture]({to}/markdown) \" onmouseover=fetch('{to}/quote') x=\" &lt;img src={to}/entity&gt;",
)


@pytest.mark.skipif(not BROWSER, reason="no Chromium on PATH")
def test_hostile_text_runs_nothing_and_asks_for_nothing(tmp_path: Path) -> None:
    """Completions, problems and names that would call a server: the server hears the page only."""
    asked: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal."""

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        to = f"http://127.0.0.1:{server.server_port}"
        shown = " ".join(CALLS).replace("{to}", to)  # braces stay doubled: a story's are formats
        run = build_run(tmp_path, Story(model=shown.format(), completion=shown, problem=shown))
        write_report([run])
        report = run.path / "report" / "report.html"
        page = report.read_text()
        assert to in page
        opened(report, tmp_path / "profile")
        assert asked == []
        unguarded = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
        assert unguarded != page
        report.write_text(unguarded)  # the text itself is harmless, not only forbidden to act
        opened(report, tmp_path / "profile")
        assert asked == []
        report.write_text(unguarded + f"<img src={to}/heard>")
        opened(report, tmp_path / "profile")
        assert asked == ["/heard"]  # so it would have heard the others
        server.shutdown()


def opened(page: Path, profile: Path) -> "subprocess.CompletedProcess[str]":
    """The page in a headless Chromium, with what its console said."""
    return subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--allow-file-access-from-files", "--enable-logging=stderr",
            f"--user-data-dir={profile}", "--virtual-time-budget=10000",
            "--dump-dom", f"file://{page}",
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
