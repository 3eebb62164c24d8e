"""The page of a router."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from relisten.errors import InputError
from relisten.evaluate.routing import score_routing
from relisten.evaluate.routing_run import Latency, RoutingReport
from relisten.report.routing import write_routing_report
from relisten.router.decision import Decision
from relisten.router.outcomes import Outcome, Outcomes
from relisten.router.routes import DIRECT, Route

ROUTES = (DIRECT, Route(("pitch",)))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "br", "hr", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def report() -> RoutingReport:
    rows = tuple(
        tuple(
            Outcome(f"q{q}", route.name, (q + r) % 2 == 0, "x", 0.1, 1.0, 10, 1) for r, route in enumerate(ROUTES)
        )
        for q in range(8)
    )
    outcomes = Outcomes("w", tuple(f"q{q}" for q in range(8)), ROUTES, rows)
    decisions = [Decision(ROUTES[q % 2], 0.9) for q in range(8)]
    scores = score_routing(outcomes, decisions, ["<b>high</b>", "low"] * 4)
    return RoutingReport("run", "echo-tiny", "head", 643, 100_000, 1.0, 0.4, scores)


def test_the_page_holds_all_numbers_and_nothing_from_elsewhere(report: RoutingReport, tmp_path: Path) -> None:
    page = write_routing_report(report, tmp_path / "sub" / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    for said in ("always pitch", "random", "oracle", "643 parameters", "0.64 %", "By kind of question"):
        assert said in tags.text
    assert "<b>high</b>" in tags.text  # escaped
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_time_is_told_where_it_was_measured(report: RoutingReport, tmp_path: Path) -> None:
    timed = replace(report, latency=Latency(4, 0.5, 0.51, 0.02, 0.03, 0.5))
    page = write_routing_report(timed, tmp_path / "report.html").read_text()
    assert "median of 4 answers: direct 0.500 s, by the router 0.510 s" in page


def test_a_page_that_cannot_be_written_is_told(report: RoutingReport, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_routing_report(report, tmp_path / "file" / "report.html")
