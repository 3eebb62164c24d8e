"""Escaping: whatever stands in a text, a page holds it as text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.report.html import Markup, join, script_json, tag


def test_children_and_attributes_are_escaped() -> None:
    made = tag("p", "<b>&", ["a", None, 3], tag("i", "x"), title='"><script>', data_run=1, hidden=True, class_=None)
    assert made == '<p title="&quot;&gt;&lt;script&gt;" data-run="1" hidden>&lt;b&gt;&amp;a3<i>x</i></p>'
    assert join(["<", Markup("<br>")]) == "&lt;<br>"


@given(st.text())
def test_nothing_in_a_text_is_markup(text: str) -> None:
    made = tag("p", text)
    assert "<" not in made.removeprefix("<p>").removesuffix("</p>")


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_survives_and_can_not_leave_its_element(data: object) -> None:
    made = script_json(data)
    assert json.loads(made) == data
    assert not set(made) & set("<>&\u2028\u2029")


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "\ud800 alone", "\u2028"])
def test_json_of_what_ends_scripts(text: str) -> None:
    made = script_json([text])
    assert json.loads(made) == [text]
    assert text not in made
