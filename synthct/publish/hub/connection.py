"""A connection to the Hub whose patience ends.

``huggingface_hub`` by itself waits for an answer without end, and as long as a server asks it to.
Here requests time out, what may pass is tried again with growing pauses (or those that the Hub asks
for), and after ``Patience.give_up_s`` it is over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from huggingface_hub import set_client_factory
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    httpx,
)
from huggingface_hub.utils._http import default_client_factory, hf_request_event_hook

from synthct.errors import ConflictError, HubError
from synthct.storage.hub import NONSENSE

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Answers that may be others the next time.
_PASSING = (408, 429, 500, 502, 503, 504)
#: Somebody else is at it: to be looked at anew.
_IN_THE_WAY = (409, 412)


@dataclass(frozen=True)
class Patience:
    """How long the Hub is waited for.

    Attributes:
        silence_s: For a sign of life within a request.
        first_s: Before the second try; each later pause is twice as long.
        longest_s: The longest pause, if the Hub does not ask for a longer one.
        give_up_s: After the first failure of a request, for it to succeed.
    """

    silence_s: float = 30.0
    first_s: float = 1.0
    longest_s: float = 30.0
    give_up_s: float = 240.0


class TransientError(Exception):
    """A failure that may pass.

    Args:
        what: It was.
        pause_s: The Hub asks to wait for so long.
        in_the_way: Whether somebody else is at it.
    """

    def __init__(self, what: str, *, pause_s: float = 0.0, in_the_way: bool = False) -> None:
        super().__init__(what)
        self.what, self.pause_s, self.in_the_way = what, pause_s, in_the_way


class _Client(httpx.Client):
    """A client whose requests end: in an answer, or in an error that tells whether it may pass."""

    def __init__(self, silence_s: float) -> None:
        hooks = {"request": [hf_request_event_hook]}
        super().__init__(event_hooks=hooks, follow_redirects=True, timeout=silence_s)
        self._silence = httpx.Timeout(silence_s).as_dict()

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request and read the whole answer; all of them are small."""
        request.extensions = {**request.extensions, "timeout": self._silence}
        try:
            response = super().send(request, **options)
            response.read()
        except httpx.TransportError as err:
            raise TransientError(f"no answer ({type(err).__name__})") from err
        if response.status_code in _PASSING:
            asked = response.headers.get("Retry-After", "")
            what = f"it answered {response.status_code} {response.reason_phrase}"
            raise TransientError(what, pause_s=float(asked) if asked.isdecimal() else 0.0)
        return response


class Connection:
    """What all requests about a repository have in common.

    Args:
        name: Of the repository.
        token: The user's; never shown, whatever the Hub answers.
        resume: The command that goes on where this one stops.
        patience: How long the Hub is waited for.
    """

    def __init__(self, name: str, token: str, resume: str, patience: Patience) -> None:
        self._name, self._token, self._resume, self._patience = name, token, resume, patience

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let requests of this process go through a client whose patience ends."""
        shown = not are_progress_bars_disabled()
        disable_progress_bars()
        set_client_factory(lambda: _Client(self._patience.silence_s))
        try:
            yield
        finally:
            set_client_factory(default_client_factory)
            if shown:
                enable_progress_bars()

    def persist(self, step: Callable[[], Result]) -> Result:
        """Take a step, again and again while what fails may pass.

        Args:
            step: Looks at what there is before it changes anything, so that it may be repeated.

        Raises:
            HubError: If the Hub refuses, or if it does not pass in time.
            ConflictError: If somebody else stays in the way.
        """
        patience, wait, until = self._patience, self._patience.first_s, None
        while True:
            try:
                return step()
            except Exception as err:
                failure = self._transient(err)
            until = until or time.monotonic() + patience.give_up_s
            pause = max(wait, failure.pause_s)
            if time.monotonic() + pause > until:
                kind = ConflictError if failure.in_the_way else HubError
                raise kind(self.told(failure.what)) from None
            what = self._clean(failure.what)
            logger.info("%s: the Hub: %s; trying again in %.0f s", self._name, what, pause)
            time.sleep(pause)
            wait = min(2 * wait, patience.longest_s)

    def told(self, what: str) -> str:
        """A message about what does not work, without the token, whatever the Hub has answered."""
        return self._clean(
            f"{self._name}: the Hub does not go along: {what}\n"
            f"what went up is kept; go on with: {self._resume}"
        )

    def _clean(self, text: str) -> str:
        return text.replace(self._token, "<token>")

    def _transient(self, err: Exception) -> TransientError:
        """What failed, if it may pass.

        Raises:
            Exception: What does not, as an error for the user where it is the Hub's.
        """
        cause: BaseException | None = err
        while cause is not None:  # uploads wrap what goes wrong in them
            if isinstance(cause, TransientError):
                return cause
            if isinstance(cause, HfHubHTTPError):
                return self._refused(cause)
            if isinstance(cause, OfflineModeIsEnabled):
                raise HubError(self.told("offline mode is on (HF_HUB_OFFLINE)")) from None
            if isinstance(cause, OSError) and cause.filename is not None:  # a file of ours
                raise cause
            cause = cause.__cause__
        if isinstance(err, NONSENSE):
            return TransientError("it answered something else than it was asked")
        if isinstance(err, RuntimeError | OSError):  # uploads that do not go through our client
            return TransientError(f"the transfer broke off ({err.__cause__ or err})")
        raise err

    def _refused(self, err: HfHubHTTPError) -> TransientError:
        status = err.response.status_code
        said = err.server_message or err.response.reason_phrase
        if status in _IN_THE_WAY:
            return TransientError(f"it answered {status} ({said})", in_the_way=True)
        advice = {
            401: "; 'hf auth login' with a token that is valid",
            403: "; use a token that may write to it, or another repository",
        }.get(status, "")
        raise HubError(self.told(f"it answered {status} ({said}){advice}")) from None
