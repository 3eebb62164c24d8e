"""Routes by name, and the action sets made of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.tools import extra_tools

from relisten.errors import InputError
from relisten.protocol import Format
from relisten.router.routes import DIRECT, Route, check_routes, default_routes


@pytest.fixture(autouse=True)
def _tools() -> Iterator[None]:
    with extra_tools():
        yield


@pytest.mark.parametrize(
    ("route", "name"),
    [
        (DIRECT, "direct"),
        (Route(listen=False), "direct/text"),
        (Route(("pitch",)), "pitch"),
        (Route(("pitch", "silence")), "pitch+silence"),
        (Route(("silence", "pitch"), listen=False), "silence+pitch/text"),
    ],
)
def test_a_name_is_read_back(route: Route, name: str) -> None:
    assert route.name == name
    assert Route.parse(name) == route


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "tool ''"),
        ("/text", "tool ''"),
        ("pitch+", "tool ''"),
        ("direct+pitch", "tool 'direct'"),
        ("pitch pitch", "small letters"),
        ("Pitch", "small letters"),
        ("pitch+pitch", "stands in it twice"),
        ("pitch/text/text", "small letters"),
    ],
)
def test_what_is_no_name_is_told_with_the_rule(name: str, said: str) -> None:
    with pytest.raises(InputError, match=r"write direct, a tool, or tools with \+ between") as told:
        Route.parse(name)
    assert said in str(told.value)


def test_a_route_listens_as_asked_or_not_at_all() -> None:
    assert Route().format(Format.GROUNDED) is Format.GROUNDED
    assert Route(listen=False).format(Format.INTERLEAVED) is Format.TEXT


def test_direct_comes_first_and_what_cannot_run_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELISTEN_TRANSCRIPTION_URL", raising=False)
    monkeypatch.delenv("RELISTEN_TRANSCRIPTION_MODEL", raising=False)
    names = [route.name for route in default_routes()]
    assert names[0] == "direct"
    assert {"length", "silence", "loudness"} <= set(names)
    assert not {"absent", "speech"} & set(names)
    monkeypatch.setenv("RELISTEN_TRANSCRIPTION_URL", "http://localhost:1/v1")
    monkeypatch.setenv("RELISTEN_TRANSCRIPTION_MODEL", "ears")
    assert "speech" in [route.name for route in default_routes()]


def test_sequences_and_text_are_options() -> None:
    found = default_routes(("silence", "length", "absent"), text=True, longest=2)
    assert [route.name for route in found] == [
        "direct",
        "silence",
        "length",
        "absent",
        "silence+length",
        "silence+absent",
        "length+absent",
        "direct/text",
        "silence/text",
        "length/text",
        "absent/text",
        "silence+length/text",
        "silence+absent/text",
        "length+absent/text",
    ]
    assert default_routes(()) == (DIRECT,)
    with pytest.raises(InputError, match="'ears' is unknown"):
        default_routes(("ears",))
    with pytest.raises(InputError, match="longest 0"):
        default_routes(longest=0)


def test_an_action_set_has_direct_and_nothing_twice() -> None:
    routes = (Route(("pitch",)), DIRECT)
    assert check_routes(routes) == routes
    with pytest.raises(InputError, match="direct must be among them"):
        check_routes(routes[:1])
    with pytest.raises(InputError, match="stands twice"):
        check_routes((*routes, DIRECT))
