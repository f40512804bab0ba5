"""The report opens in a real browser: no console errors, nothing cut off, all pictures there.

Runs where Chromium is on PATH. A harness page loads the report in frames of both widths and
writes down what it measures.
"""

import json
import re
import shutil
import subprocess
from html import unescape
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
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--allow-file-access-from-files", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000",
            "--dump-dom", f"file://{folder}/harness.html",
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
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
