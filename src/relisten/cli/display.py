"""How an answer looks in a terminal: thinking as it streams, each listen as a bar over the clip's time line."""

from __future__ import annotations

import re

from rich.console import Console
from rich.text import Text

from relisten.audio import Clip
from relisten.protocol import MARKUP, Segment
from relisten.trace import Routing, Trace

_ROUTES = 4
"""Of the likeliest, that are shown."""
_UNFINISHED = re.compile(r"<(?:/?[a-z]*|seg>[^<]*(?:</?[a-z]*)?)$")


class AnswerDisplay:
    """Writes one answer to a console, piece by piece."""

    def __init__(self, console: Console, clip: Clip, model: str) -> None:
        self._console = console
        self._duration = clip.duration
        self._held = ""  # text that may be the beginning of a tag
        self._answering = False
        self._line_open = False
        self._noted = ""
        console.print(Text(f"{clip.name}  {clip.duration:.1f} s  {model}", style="dim"))

    def routing(self, routing: Routing) -> None:
        """Show a decision; and once its tools have run, what they told."""
        if routing.reports:
            for report in routing.reports:
                style = "cyan" if report["failure"] is None else "yellow"
                self._console.print(Text(f"  {report['text']}", style=style), soft_wrap=True)
            return
        line = Text.assemble("Route: ", (routing.route, "bold"))
        if routing.confidence is not None:
            line.append(f"  confidence {routing.confidence:.0%}", style="dim")
            likely = sorted(routing.probabilities.items(), key=lambda item: -item[1])[:_ROUTES]
            line.append(f"  ({', '.join(f'{name} {p:.0%}' for name, p in likely)})", style="dim")
        self._console.print(line, soft_wrap=True)
        if routing.note:
            self._console.print(Text(f"  {routing.note}", style="yellow"), soft_wrap=True)
            self._noted = routing.note

    def write(self, text: str) -> None:
        """Show text, without the tags; what may yet become one is held back."""
        text = self._held + text
        unfinished = _UNFINISHED.search(text)
        cut = unfinished.start() if unfinished else len(text)
        text, self._held = text[:cut], text[cut:]
        before, opened, _ = text.partition("<answer>")
        if not self._answering:
            self._print(MARKUP.sub("", before))
            self._answering = bool(opened)

    def listen(self, segment: Segment) -> None:
        """Show a listen as a bar over the whole clip."""
        self.write("")
        self._held = ""
        if self._line_open:
            self._console.print()
            self._line_open = False
        width = max(20, min(60, self._console.width - 24))
        first = min(int(segment.start / self._duration * width), width - 1)
        last = max(first + 1, round(segment.end / self._duration * width))
        bar = Text("  ")
        bar.append("─" * first, style="dim")
        bar.append("█" * (last - first), style="bold cyan")
        bar.append("─" * (width - last), style="dim")
        bar.append(f"  heard {segment.start:.1f} to {segment.end:.1f} s", style="cyan")
        self._console.print(bar)

    def close(self, trace: Trace) -> None:
        """Show the answer, or why there is none."""
        if not self._answering:
            self._print(MARKUP.sub("", self._held))
        if self._line_open:
            self._console.print()
        if trace.answer is not None:
            self._console.print(Text.assemble("Answer: ", (trace.answer, "bold green")))
        else:
            why = trace.error or f"the model ended with '{trace.finish}'"
            self._console.print(Text(f"No answer: {why}", style="bold red"))
        if trace.routing is not None and trace.routing.note not in ("", self._noted):
            self._console.print(Text(trace.routing.note, style="yellow"), soft_wrap=True)

    def _print(self, text: str) -> None:
        if not self._line_open:
            text = text.lstrip()
        if text:
            self._console.print(Text(text), end="", soft_wrap=True)
            self._line_open = True
