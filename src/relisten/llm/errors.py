"""How a request to an endpoint can fail for good. What may pass by itself is tried again before any of these."""

from __future__ import annotations

from relisten.errors import RelistenError


class EndpointError(RelistenError):
    """One request failed for good; the clip it belongs to is left for the next run, others go on."""


class BadReplyError(EndpointError):
    """The model answered, and after one repair still not in the form that was asked for. It was paid for and is
    kept, so that the same request would get the same answer again: the clip is done, without a result."""


class StopRunError(EndpointError):
    """No further request makes sense: access denied, endpoint down, budget reached. What is done stays done."""


class BudgetReachedError(StopRunError):
    """The next request could cost more than what is left of the budget."""


class WouldPayError(EndpointError):
    """In a dry run: this request is not in the store and would have to be paid for."""
