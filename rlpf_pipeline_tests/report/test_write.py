"""The report's files: self-contained, escaped, repeatable, and true to the analysis."""

from __future__ import annotations

import csv
import json
import math
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from rlpf_pipeline.abtest import ExperimentSpec, analyse
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.report import write_report
from rlpf_pipeline.report.plain import plain
from rlpf_pipeline.report.sections import arms_section
from rlpf_pipeline.report.wording import change, csv_cell
from rlpf_pipeline.report.write import FILES as ALL_FILES
from rlpf_pipeline_tests.abtest.experiment_data import experiment, odd_experiment, spec_of
from rlpf_pipeline_tests.abtest.test_over_time import early_weeks, weekly
from rlpf_pipeline_tests.abtest.test_segments import poor_in_part

FILES = {"report.html", "report.md", "results.json", "effects.csv", "forest.svg", "forest.png", "segments.svg"}
HOSTILE = "=travel<script>alert(1)</script>"
MADE = {"data_digest": "sha256:0123", "command": "rlpf ab-report"}
PLANTED = {"relative_risk": 1.067, "treatment_ctr": 0.033}


@pytest.fixture(scope="module")
def analysis():
    data = experiment(1800, seed=11)
    return analyse(data.assign(industry=data["industry"].replace("travel", HOSTILE)))


@pytest.fixture(scope="module")
def folder(analysis, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new"
    write_report(
        analysis,
        folder,
        title="Spring & summer",
        notes=["a | b"],
        planted=PLANTED,
        data_digest="sha256:0123",
        command="rlpf ab-report",
    )
    return folder


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_all_files_are_written_and_nothing_else(folder):
    assert {path.name for path in folder.iterdir()} == FILES <= set(ALL_FILES)
    assert (folder / "forest.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "report.html").stat().st_size < 2_000_000


def test_the_page_loads_nothing(folder):
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "xlink:href")]
    assert not re.search(r"url\(|@import", text)


def test_the_page_has_one_heading_a_viewport_both_schemes_and_both_plots(folder):
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.tags.count("h1") == 1
    assert page.tags.count("svg") == 4
    assert ("name", "viewport") in page.attributes
    assert "prefers-color-scheme: dark" in text


def test_long_words_wrap(folder):
    text = (folder / "report.html").read_text()
    assert re.search(r"\nbody {[^}]*overflow-wrap:break-word", text)
    assert re.search(r"td\.prose {[^}]*overflow-wrap:anywhere", text)


def test_text_from_the_data_is_escaped(folder):
    assert "&lt;script&gt;alert(1)" in (folder / "report.html").read_text()
    assert "Spring &amp; summer" in (folder / "report.html").read_text()
    markdown = (folder / "report.md").read_text()
    assert "<script" not in markdown
    assert r"a \| b" in markdown


def test_csv_cells_cannot_be_formulas(folder):
    with (folder / "effects.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert f"'{HOSTILE}" in cells
    for cell in cells:
        assert not cell.startswith(("=", "+", "@"))
        assert not cell.startswith("-") or math.isfinite(float(cell))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_each_start_of_a_formula_is_made_safe(start):
    assert csv_cell(f"{start}1+1") == f"'{start}1+1"
    assert csv_cell("plain = text") == "plain = text"
    assert csv_cell(-1.5) == -1.5


def test_command_digest_and_versions_are_in_every_report(folder):
    for name in ("report.html", "report.md", "results.json"):
        text = (folder / name).read_text()
        assert "rlpf ab-report" in text
        assert "sha256:0123" in text
        assert "duckdb" in text


def test_markdown_and_html_list_the_same_versions_and_truth(folder):
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text()
        assert re.search(r", python [\d.]+, numpy [\d.]+, scipy", text)
        assert re.search(r"treatment ctr\W.*0\.03300\b", text)


def test_a_panel_shows_the_effect_over_time(tmp_path):
    days = pd.concat([experiment(400, seed=12).assign(day=day) for day in range(4)])
    analysis = analyse(days, ExperimentSpec(date="day"))
    write_report(analysis, tmp_path, title="x", data_digest="0", command="c")
    assert (tmp_path / "over_time.svg").is_file()
    for name in ("report.html", "report.md"):
        assert "Confidence sequence" in (tmp_path / name).read_text()


def test_ctrs_of_a_twentieth_of_a_percent_are_told_apart(analysis):
    arms = tuple(arm._replace(ctr=ctr) for arm, ctr in zip(analysis.arms, (0.00051, 0.00054), strict=True))
    totals, *_ = arms_section(analysis._replace(arms=arms)).grids
    column = totals.header.index("CTR")
    assert [row[column] for row in totals.rows] == ["0.0510 %", "0.0540 %"]


def test_a_look_that_is_too_early_is_said_in_the_report(tmp_path):
    write_report(analyse(early_weeks(), ExperimentSpec(date="week")), tmp_path, title="x", **MADE)
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert "too early" in text
        assert "fewer than 50 advertisers" in text
        assert "Every period is too early" not in text


def test_a_report_that_is_too_early_throughout_says_so(tmp_path):
    write_report(analyse(weekly([3.0] * 3, number=60), ExperimentSpec(date="week")), tmp_path, title="x", **MADE)
    assert "Every period is too early for a look" in (tmp_path / "report.md").read_text()


def test_few_advertisers_and_wide_intervals_are_drawn(tmp_path):
    analysis = analyse(experiment(12, seed=1))
    write_report(analysis, tmp_path, title="x", data_digest="0", command="c")
    assert "NaN" not in (tmp_path / "report.html").read_text()


def test_a_former_reports_plot_goes_with_it(analysis, tmp_path):
    (tmp_path / "over_time.svg").write_text("of an experiment with dates")
    write_report(analysis, tmp_path, title="x", **MADE)
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_an_effect_of_hundreds_of_digits_is_told_in_powers_of_ten():
    assert change(1.067) == "+6.7 %"
    assert change(0.5) == "\u221250.0 %"
    assert change(1e130) == "+1.00e+132 %"


def test_what_a_segment_lacks_is_said_in_the_report(tmp_path):
    write_report(analyse(poor_in_part()), tmp_path, title="x", **MADE)
    for name in ("report.html", "report.md"):
        assert "Segment industry: not adjusted for budget" in (tmp_path / name).read_text()


def test_the_same_analysis_gives_the_same_bytes(analysis, folder, tmp_path):
    write_report(
        analysis,
        tmp_path,
        title="Spring & summer",
        notes=["a | b"],
        planted=PLANTED,
        data_digest="sha256:0123",
        command="rlpf ab-report",
    )
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_no_file_says_nan_or_infinity(folder):
    for name in FILES - {"forest.png"}:
        words = set(re.findall(r"[a-z]+", (folder / name).read_text().lower()))
        assert not {"nan", "inf", "infinity"} & words


def test_json_holds_the_analysis_with_sorted_keys(analysis, folder):
    text = (folder / "results.json").read_text()
    results = json.loads(text)
    assert results["analysis"] == json.loads(json.dumps(plain(analysis)))
    assert results["data_digest"] == "sha256:0123"
    assert list(results) == sorted(results)
    assert results["truth"]["covered"] == (analysis.headline.low <= 1.067 <= analysis.headline.high)


def test_html_and_markdown_show_the_headline_of_the_analysis(analysis, folder):
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text()
        assert f"{analysis.headline.estimate:.3f}" in text
        assert f"{analysis.headline.low:.3f} to {analysis.headline.high:.3f}" in text
        for row in analysis.robustness:
            assert row.model in text
        for check in analysis.validity.checks:
            assert check.name in text
        assert "cover" in text


def test_without_a_planted_truth_none_is_mentioned(analysis, tmp_path):
    write_report(analysis, tmp_path, title="Own data", **MADE)
    assert "lanted" not in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["truth"] is None


def test_a_planted_truth_without_a_relative_risk_is_refused(analysis, tmp_path):
    with pytest.raises(UserError, match="no relative_risk"):
        write_report(analysis, tmp_path, title="x", planted={"ctr": 0.03}, **MADE)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("raises", "Treatment raises"),
        ("lowers", "Treatment lowers"),
        ("undecided", "does not settle"),
        ("invalid", "Do not act"),
    ],
)
def test_the_first_sentence_says_the_verdict(analysis, tmp_path, verdict, words):
    write_report(analysis._replace(verdict=verdict), tmp_path, title="x", **MADE)
    assert words in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_odd_experiments_have_a_report_without_a_number_that_is_none_or_are_refused(tmp_path):
    written = 0
    for seed in range(1000, 1120):
        rows = odd_experiment(seed)
        try:
            write_report(analyse(rows, spec_of(rows)), tmp_path, title="Odd", **MADE)
        except UserError:
            continue
        json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
        for name in ("report.html", "report.md"):
            said = re.sub(r"<(style|svg).*?</\1>", "", (tmp_path / name).read_text(), flags=re.DOTALL)
            assert not re.search(r"\b(nan|NaN|inf|Infinity|None)\b", said), (seed, name)
        written += 1
    assert 40 < written < 110
