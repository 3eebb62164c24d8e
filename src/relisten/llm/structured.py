"""Answers in a given form: read, checked, and repaired once by the model that wrote them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from relisten.llm.chat import ChatRequest, Message, Reply
from relisten.llm.client import Client
from relisten.llm.errors import BadReplyError
from relisten.llm.prompt import read_prompt
from relisten.llm.schema import FormError, read_json, validate

T = TypeVar("T")
_LONGEST_QUOTE = 20_000
REPAIR: Final = read_prompt(__package__, "repair")


def _no_faults(value: Any) -> Sequence[str]:
    return ()


async def ask(
    client: Client,
    request: ChatRequest,
    parse: Callable[[Any], T],
    faults: Callable[[T], Sequence[str]] = _no_faults,
) -> tuple[T, ...]:
    """The answer to a request, and where that had faults, the one repair of it as well.

    Args:
        parse: makes the value out of JSON that fits the request's schema; may raise `FormError`.
        faults: what is wrong with a value, in words for the model; empty: nothing.

    Returns:
        One value, or two where the first has faults and its repair has the form asked for. The last one may still
        have faults: what to do then is the caller's to say.

    Raises:
        BadReplyError: neither the answer nor its repair has the form asked for.
        EndpointError: no answer came.
    """
    first = await client.complete(request)
    values: list[T] = []
    try:
        values.append(_read(first, request, parse))
        wrong = list(faults(values[0]))
    except FormError as error:
        wrong = [str(error)]
    if not wrong:
        return tuple(values)
    second = await client.complete(_repair(request, first, wrong))
    try:
        values.append(_read(second, request, parse))
    except FormError as error:
        if not values:
            raise BadReplyError(f"{wrong[0]} After the repair: {error}") from None
    return tuple(values)


def _read(reply: Reply, request: ChatRequest, parse: Callable[[Any], T]) -> T:
    try:
        value = read_json(reply.text)
        validate(value, request.schema)
        return parse(value)
    except FormError as error:
        if reply.finish == "length":
            raise FormError(f"The reply was cut off after {reply.completion_tokens} tokens; be briefer.") from None
        if reply.finish == "content_filter":
            raise FormError(f"The endpoint's content filter ended the reply. {error}") from None
        raise


def _repair(request: ChatRequest, reply: Reply, wrong: Sequence[str]) -> ChatRequest:
    text = REPAIR.fill(faults="\n".join(f"- {line}" for line in wrong))
    # An empty turn of the assistant is refused by some endpoints.
    said = Message("assistant", reply.text[:_LONGEST_QUOTE].strip() or "(nothing)")
    return replace(
        request,
        version=f"{request.version}+{REPAIR.version}",
        messages=(*request.messages, said, Message("user", text)),
    )
