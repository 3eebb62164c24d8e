"""What all pages share: head, look, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from relisten.files import make_folder, replacing
from relisten.report.html import Markup, tag

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a page without scripts may do: nothing but look as it does."""


def head(title: str, policy: str = POLICY) -> Markup:
    """The head of a page; it needs nothing from elsewhere, and `policy` says so to the browser."""
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(asset("page.css"))),
    )


def heading(title: str, kicker: str) -> Markup:
    return tag("div", tag("p", kicker, class_="kicker"), tag("h1", title), class_="heading")


def write_page(path: Path, title: str, kicker: str, parts: Sequence[Markup | None]) -> Path:
    """One page of sections, without scripts.

    Raises:
        InputError: it cannot be written.
    """
    return save(path, head(title), tag("body", tag("main", heading(title, kicker), parts, id="main")))


def save(path: Path, head: Markup, body: Markup) -> Path:
    """Write a page; there is the whole of it, or what was there before.

    Raises:
        InputError: it cannot be written.
    """
    make_folder(path.parent)
    page = "<!doctype html>\n" + tag("html", head, body, lang="en")
    with replacing(path, binary=True) as file:
        file.write(page.encode("utf-8", "replace"))
    return path


def asset(name: str) -> str:
    """A file that pages hold."""
    return (files("relisten.report") / "page" / name).read_text(encoding="utf-8")
