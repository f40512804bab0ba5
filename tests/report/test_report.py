"""A report says what the files of a run say, for whole, crashed and damaged runs, and no more."""

import json
import re
from pathlib import Path

import pytest
from run_builder import Story, Suite, build_run

from budgetrl.cli import main
from budgetrl.errors import UsageError
from budgetrl.report.figures import Drawing, draw_all
from budgetrl.report.plots import Line, Panel, draw
from budgetrl.report.write import write_report
from budgetrl.rundir import RunDir


def pages(run: RunDir) -> tuple[str, str]:
    """HTML and Markdown of a run."""
    write_report([run])
    folder = run.path / "report"
    return (folder / "report.html").read_text(), (folder / "report.md").read_text()


def test_report_of_a_finished_run_states_outcome_bill_and_sources(tmp_path: Path) -> None:
    run = build_run(tmp_path, Story())
    html, markdown = pages(run)
    numbers = json.loads((run.path / "report" / "report.json").read_text())["runs"][0]
    found = numbers["suites"]["heldout"]["difference"]["1"]
    gain = f"{100 * found['difference']:+.1f} points pass@1 on heldout"
    assert gain in html
    assert "better than before" in html
    assert "The budget is used: one more update did not fit" in html
    for title in ("Outcome", "What the money bought", "Learning", "The bill", "Completions"):
        assert f"<h2>{title}</h2>" in html
        assert f"## {title}" in markdown
    assert sum(row["paid_s"] or 0 for row in numbers["bill"] if not row["part"]) == pytest.approx(
        numbers["spent"]["wall_s"]
    )
    for picture in re.findall(r"\]\((figures/.*?)\)", markdown):
        assert (run.path / "report" / picture).read_text().startswith("<svg")


@pytest.mark.parametrize("count", range(1, 9))
def test_rows_of_figures_have_no_holes(count: int) -> None:
    panel = Panel("One", "update", [Line("", [0.0, 1.0], [0.2, 0.4])])
    wide = [figure.wide for figure in draw_all([Drawing("one", panel, "")] * count)]
    assert wide == sorted(wide, reverse=True)
    assert sum(wide) % 2 == 0 or count == 1
    assert (count - sum(wide)) % 3 == 0


def test_nothing_is_drawn_twice_and_a_phase_has_the_colour_of_its_kind(tmp_path: Path) -> None:
    html, _ = pages(build_run(tmp_path, Story()))
    assert html.count("Held-out pass@1") == html.count("Groups with signal</text>") == 1
    bars = re.findall(r'<i style="background:var\(--(\w+)\);[^"]*" title="([^":]+)', html)
    inks = {name: ink for ink, name in bars}
    assert inks["Baseline evaluation"] == inks["Final evaluation"] != inks["Updates"]
    assert inks["rollout"] == inks["update"] == inks["Updates"]


def test_intervals_are_drawn_to_one_scale_over_all_the_width(tmp_path: Path) -> None:
    html, _ = pages(build_run(tmp_path, Story()))
    drawn = r'class="zero" d="M([\d.]+) 0V14"/><path d="M([\d.]+) 7H([\d.]+)M'
    ends = [float(end) for found in re.findall(drawn, html) for end in found]
    assert (min(ends), max(ends)) == (6, 114)


def test_html_needs_no_network_and_runs_no_script(tmp_path: Path) -> None:
    html, _ = pages(build_run(tmp_path))
    assert "<script" not in html
    assert "default-src 'none'" in html
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<)]+", html)) <= namespaces


def test_a_legend_of_four_suites_leaves_the_axis_its_room() -> None:
    names, font = ("one", "two", "three", "four"), 9
    lines = [Line(name, [0.0, 1.0], [0.2, 0.4]) for name in names]
    svg = draw(Panel("Suites", "update", lines))
    y = {name: float(y) for y, name in re.findall(r'<text[^>]*? y="([\d.]+)"[^>]*>(\w+)<', svg)}
    assert y["update"] + font < min(y[name] for name in names)


@pytest.mark.parametrize("text", [
    "<script>alert(1)</script>",
    "\x1b[2J\x07\x00",
    "\u202egnp.exe",
    "````\n# not a title\n<img src=x onerror=alert(1)>",
    "\ud800 hf_abcdefghijklmnopqrstuvwx",
])  # fmt: skip
def test_foreign_text_is_shown_harmless(tmp_path: Path, text: str) -> None:
    completion = text.replace("{", "").replace("}", "")
    html, markdown = pages(
        build_run(tmp_path, Story(steps=1, completion=completion, problem=completion))
    )
    for page in (html, markdown):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", page)
        assert "hf_abc" not in page
    assert "<script>" not in html
    assert "<img" not in html
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", markdown)
    assert "<script>" not in outside
    assert "\n# not" not in outside


def test_report_of_a_crashed_run_says_so_and_shows_what_there_is(tmp_path: Path) -> None:
    html, _ = pages(build_run(tmp_path, Story(end=None)))
    assert "This run crashed" in html
    assert "budgetrl resume" in html
    assert "There is no final evaluation to compare with the start" in html
    assert "Mean reward" in html


def test_report_of_an_interrupted_run_makes_no_claim(tmp_path: Path) -> None:
    html, _ = pages(build_run(tmp_path, Story(steps=1, end="interrupted")))
    assert "Interrupted, after 1 update and" in html
    assert "better than before" not in html


def test_report_of_a_run_without_anything_has_no_empty_figures(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "bare")
    run.write_json("recipe.resolved.json", {"recipe": {}, "sources": {}})
    html, markdown = pages(run)
    assert "no evaluation yet" in html
    assert "<figure" not in html
    assert "![" not in markdown


def test_damaged_files_are_named_not_fatal(tmp_path: Path) -> None:
    run = build_run(tmp_path, Story(steps=1))
    (run.path / "manifest.json").write_text("{")
    (run.path / "plan.json").write_text('{"plan": {"budget_s": 3}}')
    (run.path / "evals/heldout/final.json").write_text("null")
    html, _ = pages(run)
    assert "manifest.json: is damaged" in html
    assert "plan.json: the plan is of another version" in html
    assert "points pass@1 on heldout" in html  # as recorded at the end of the run


@pytest.mark.parametrize("name", ["final.jsonl", "baseline.jsonl", "final.json"])
def test_cut_completions_are_named_and_the_recorded_difference_stands(
    tmp_path: Path, name: str
) -> None:
    run = build_run(tmp_path, Story(steps=1))
    write_report([run], formats=["json"])
    before = json.loads((run.path / "report/report.json").read_text())["runs"][0]
    file = run.path / "evals/heldout" / name
    lines = file.read_text().splitlines(keepends=True)
    for kept in (lines[: len(lines) // 2], []):
        file.write_text("".join(kept))
        html, _ = pages(run)
        assert f"evals/heldout/{name.split('.')[0]}.jsonl holds" in html
        assert "There is no final evaluation" not in html
        after = json.loads((run.path / "report/report.json").read_text())["runs"][0]
        assert after["suites"]["heldout"] == before["suites"]["heldout"]


def test_noise_is_called_noise(tmp_path: Path) -> None:
    story = Story(steps=1, suites={"amc23": Suite(20, 2, 0.5, 0.5, ks=(1,))})
    html, _ = pages(build_run(tmp_path, story))
    assert re.search(r"points pass@1 on AMC23, 95 % interval \S+ to \S+: not distinguishable", html)


def test_one_problem_gives_no_interval(tmp_path: Path) -> None:
    html, _ = pages(build_run(tmp_path, Story(steps=1, suites={"heldout": Suite(1, 4, 0.5, 0.9)})))
    assert "one problem gives no interval" in html


def test_without_a_price_the_bill_is_in_minutes(tmp_path: Path) -> None:
    html, _ = pages(build_run(tmp_path, Story(usd_per_hour=None)))
    assert "minutes paid" in html
    assert "US dollars" not in html


def test_formats_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pdf"):
        write_report([build_run(tmp_path, Story(steps=1))], formats=["pdf"])
    run = build_run(tmp_path, Story(steps=1))
    assert main(["report", str(run.path), "--format", " , "]) == 2


def test_secrets_are_masked_in_every_format(tmp_path: Path) -> None:
    secret = "hf_" + "a1B2" * 5
    run = build_run(tmp_path, Story(steps=1, name=f"run {secret}"))
    for file in write_report([run], tmp_path / "out"):
        text = file.read_text()
        assert secret not in text
        assert "[secret]" in text


def test_odd_values_in_stored_completions_are_no_traceback(tmp_path: Path) -> None:
    run = build_run(tmp_path, Story(steps=2, end=None))
    file = run.completions_file(1)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    run.write_completions(1, [row | {"tokens": odd} for row in rows for odd in (None, "x", [])])
    assert "tokens not known" in pages(run)[0]
