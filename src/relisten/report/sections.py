"""The sections of a report that stand in the page as they are: scores, comparison, skills, what the runs were."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

from relisten.evaluate.analysis import Analysis, analyse
from relisten.evaluate.attention_curve import AttentionCurve
from relisten.evaluate.compare import Paired, compare, compare_groups
from relisten.evaluate.results import Run
from relisten.evaluate.scoring import Outcome, Rule, Scorecard, Tally, controls, scorecard
from relisten.report import figures
from relisten.report.charts import SERIES, Axis, Point, percent, whiskers
from relisten.report.html import Child, Markup, tag

ACCURACY = Axis(0, 1, "accuracy", percent)
_SCALE = tag("span", tag("span", "0 %"), tag("span", "100 %"), class_="scale")
RULES = {
    Rule.OFFICIAL: "official string match",
    Rule.STRICT: "strict match",
    Rule.LETTER: "letter or text of the choice",
}


@dataclass(frozen=True, eq=False)
class Shown:
    """A run with the name it goes by here and everything computed from it, once."""

    run: Run
    name: str
    series: int
    rule: Rule
    attention: AttentionCurve | None = None

    @cached_property
    def analysis(self) -> Analysis:
        return analyse(self.run.rows, self.rule)

    def scores(self, rule: Rule) -> Scorecard:
        return scorecard([row.graded for row in self.run.rows], rule, self.run.config.breakdowns)

    @cached_property
    def card(self) -> Scorecard:
        return self.scores(self.rule)

    @property
    def label(self) -> Markup:
        return figures.swatch(self.series % SERIES, self.name)


def section(anchor: str, title: str, *children: Child, lead: Child = None) -> Markup:
    return tag(
        "section",
        tag("h2", title, id=f"{anchor}-title"),
        tag("p", lead, class_="lead") if lead else None,
        children,
        id=anchor,
        aria_labelledby=f"{anchor}-title",
    )


# Overview


def overview(runs: Sequence[Shown]) -> Markup:
    """Accuracy of every run beside what needs no ear, and by every rule."""
    first = runs[0]
    asked = [(q.answer, q.choices) for row in first.run.rows if (q := row.question) is not None]
    control = controls(asked, first.rule)
    marks = [] if control.random is None else [control.random]
    macro_keys = [breakdown.key for breakdown in first.card.breakdowns[:1]]
    head: list[Child] = ["Run", "Accuracy", _SCALE, *(f"Mean over {key}" for key in macro_keys)]
    head += ["No answer", "Failed", "Listens an answer", "Words", "Seconds, median"]
    rows: list[list[Child]] = [_overview_row(shown, macro_keys, marks) for shown in runs]
    blank: list[Child] = [figures.NOTHING] * (len(head) - 3)
    for name, value in (("Always the first choice", control.first), ("A random choice", control.random)):
        if value is not None:
            rows.append([tag("span", name, class_="control"), figures.share(value, n=control.rows), "", *blank])
    return section(
        "overview",
        "Overview",
        _unfinished(runs),
        figures.table(head, rows, caption="Scores of each run", class_="wide"),
        _rules(runs),
        lead=f"Accuracy by {RULES[first.rule]}; an answer that cannot be read counts as not right. Failed rows are "
        "named below and counted nowhere. Small figures: 95 % interval and n. The dotted line is a random choice.",
    )


def _overview_row(shown: Shown, macro_keys: Sequence[str], marks: Sequence[float]) -> list[Child]:
    overall, analysis = shown.card.overall, shown.analysis
    point = figures.accuracy_point(overall, shown.name)
    by_key = {breakdown.key: breakdown for breakdown in shown.card.breakdowns}
    macros = [by_key[key] for key in macro_keys if key in by_key]
    config = shown.run.config
    model = PurePath(config.model).name or config.model
    about = f"{model}, {config.format}" + (", silent audio" if config.silent else "")
    return [
        tag("div", shown.label, tag("small", about), class_="stack"),
        figures.accuracy(overall),
        whiskers(f"accuracy of {shown.name}", [(shown.series, point)], ACCURACY, marks) if point else "",
        *(figures.share(macro.macro, macro.macro_interval, len(macro.groups), "groups") for macro in macros),
        *[figures.NOTHING] * (len(macro_keys) - len(macros)),
        _rows_link(shown, Outcome.NO_ANSWER, overall.no_answer),
        _rows_link(shown, Outcome.FAILED, overall.failed),
        figures.mean(analysis.listens),
        figures.mean(analysis.words, 0),
        figures.NOTHING if analysis.latency is None else f"{analysis.latency.median:.2f}",
    ]


def _rows_link(shown: Shown, outcome: Outcome, count: int) -> Child:
    """A count that leads to its rows in the list."""
    if not count:
        return "0"
    return tag(
        "button",
        figures.count(count),
        type="button",
        class_="link",
        data_run=shown.series,
        data_outcome=str(outcome),
        title="Show these answers",
    )


def _unfinished(runs: Sequence[Shown]) -> list[Markup]:
    notes = []
    for shown in runs:
        total, done = len(shown.run.rows), shown.run.finished
        if done < total:
            text = f"{shown.name}: {done:,} of {total:,} questions are finished; every number is of those alone."
            notes.append(tag("p", text, class_="notice"))
        if shown.run.config.silent:
            text = f"{shown.name}: control with silent audio; the sounds shown are those of the questions."
            notes.append(tag("p", text, class_="notice"))
    return notes


def _rules(runs: Sequence[Shown]) -> Markup:
    rows: list[list[Child]] = []
    for shown in runs:
        cards = [shown.scores(rule) for rule in RULES]
        rows.append([shown.label, *(figures.accuracy(card.overall) for card in cards)])
        rows[-1] += [figures.share(card.overall.no_answer_rate, n=card.overall.total) for card in cards[2:]]
    head = ["Run", *(f"{name[0].upper()}{name[1:]}" for name in RULES.values()), "Unparsed by letter"]
    return tag("details", tag("summary", "By every rule"), figures.table(head, rows, caption="Accuracy by rule"))


# Comparison


def comparison(runs: Sequence[Shown]) -> Markup | None:
    """Every further run against the first, over the questions that both were scored on."""
    if len(runs) < 2:
        return None
    first = runs[0]
    head = ["Run", "Difference in points", "p", "Questions", "Both right", "Gained", "Lost", "Neither"]
    rows: list[list[Child]] = []
    for other in runs[1:]:
        paired = compare(first.run, other.run, first.rule)
        rows.append(
            [
                other.label,
                figures.points(paired.difference, paired.interval),
                figures.p_value(paired.p_value),
                figures.count(paired.n),
                figures.count(paired.both),
                _change_link(other, "gained", paired.gained),
                _change_link(other, "lost", paired.lost),
                figures.count(paired.neither),
            ]
        )
    return section(
        "comparison",
        "Comparison",
        figures.table(head, rows, caption=f"Against {first.name}"),
        lead=[
            "Against ",
            first.label,
            ", over the questions that both runs were scored on. Interval: paired bootstrap over questions; "
            "p: McNemar's exact test.",
        ],
    )


def _change_link(shown: Shown, change: str, count: int) -> Child:
    if not count:
        return "0"
    text = figures.count(count)
    return tag("button", text, type="button", class_="link", data_run=shown.series, data_change=change)


# Skills


def skills(runs: Sequence[Shown]) -> Markup | None:
    """Accuracy by every breakdown, and what each run gained over the first."""
    keys = list(dict.fromkeys(key for shown in runs for key in shown.run.config.breakdowns))
    tables = [_skill_table(runs, key, opened=number == 0) for number, key in enumerate(keys)]
    if not any(tables):
        return None
    lead = "Accuracy within each group of questions, smallest groups last."
    if len(runs) > 1:
        lead += f" Gains are against {runs[0].name}, in points; their p-values are not corrected for their number."
    return section("skills", "Skills", tables, lead=lead)


def _skill_table(runs: Sequence[Shown], key: str, opened: bool) -> Markup | None:
    cards = [{b.key: b.groups for b in shown.card.breakdowns}.get(key, {}) for shown in runs]
    names = {name: max(card[name].total for card in cards if name in card) for card in cards for name in card}
    if not names:
        return None
    gains = [compare_groups(runs[0].run, other.run, key, runs[0].rule) for other in runs[1:]]
    several = len(runs) > 2
    head: list[Child] = [key, _SCALE, *(shown.label for shown in runs)]
    for other in runs[1:]:
        head += [["Gain of ", other.label] if several else "Gain", "p"]
    rows: list[list[Child]] = []
    for name in sorted(names, key=lambda name: (-names[name], name)):
        drawn = _group_points(runs, [card.get(name) for card in cards])
        strip = whiskers(f"accuracy on {name}", drawn, ACCURACY) if drawn else ""
        row: list[Child] = [name, strip]
        row += [figures.accuracy(card[name]) if name in card else figures.NOTHING for card in cards]
        for gained in gains:
            paired = gained.get(name, Paired())
            row += [figures.points(paired.difference, paired.interval)]
            row += [figures.p_value(paired.p_value) if paired.n else figures.NOTHING]
        rows.append(row)
    body = figures.table(head, rows, caption=f"Accuracy by {key}", class_="wide")
    return tag(
        "details",
        tag("summary", f"By {key}", tag("small", f"{len(names)} group{'s' * (len(names) > 1)}")),
        body,
        open=opened,
    )


def _group_points(runs: Sequence[Shown], tallies: Sequence[Tally | None]) -> list[tuple[int, Point]]:
    found = []
    for shown, tally in zip(runs, tallies, strict=True):
        point = None if tally is None else figures.accuracy_point(tally, shown.name)
        if point is not None:
            found.append((shown.series, point))
    return found


# What the runs were


def details(runs: Sequence[Shown], notes: Sequence[str]) -> Markup:
    """Configuration, versions and prompts of every run, and whatever could not be read."""
    configs = [shown.run.config.to_json() for shown in runs]
    keys = [key for key in configs[0] if key != "prompt"]
    rows: list[list[Child]] = [["folder", *(str(shown.run.folder) for shown in runs)]]
    rows += [[key, *(_value(config[key]) for config in configs)] for key in keys]
    problems = [f"{shown.name}: {problem}" for shown in runs for problem in shown.run.problems]
    folded = []
    for shown in runs:
        made = json.dumps([dict(worker) for worker in shown.run.workers], indent=2, ensure_ascii=False)
        folded.append(_folded([shown.label, " system prompt"], shown.run.config.prompt))
        folded.append(_folded([shown.label, " machine and versions"], made))
    listed = [*notes, *problems]
    return section(
        "details",
        "Run details",
        tag("ul", [tag("li", note) for note in listed[:50]], class_="notes") if listed else None,
        tag("p", f"and {len(listed) - 50:,} more") if len(listed) > 50 else None,
        figures.table(["", *(shown.label for shown in runs)], rows, caption="Configuration", class_="config"),
        folded,
    )


def _folded(title: Child, text: str) -> Markup:
    return tag("details", tag("summary", title), tag("pre", text))


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
