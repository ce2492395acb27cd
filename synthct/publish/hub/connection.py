"""A connection to the Hub with timeouts and a limited number of retries.

``huggingface_hub`` by itself may wait for an answer forever. Here requests time out, temporary
failures are retried after growing pauses (or those that the Hub asks for), until
``RetryPolicy.give_up_s``.
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
from huggingface_hub.utils import (
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

#: HTTP statuses of temporary failures.
_TEMPORARY = (408, 429, 500, 502, 503, 504)
#: HTTP statuses of conflicts with another client.
_CONFLICTS = (409, 412)


@dataclass(frozen=True)
class RetryPolicy:
    """Timeouts and pauses for requests to the Hub.

    Attributes:
        silence_s: Timeout of a request without any data.
        first_s: Pause before the second try; each later pause is twice as long.
        longest_s: The longest pause, unless the Hub asks for a longer one.
        give_up_s: Time after the first failure of a request until it is given up.
    """

    silence_s: float = 30.0
    first_s: float = 1.0
    longest_s: float = 30.0
    give_up_s: float = 240.0


class TransientError(Exception):
    """A temporary failure; ``pause_s`` is the pause that the Hub asks for.

    ``in_the_way`` means a conflict with another client.
    """

    def __init__(self, what: str, *, pause_s: float = 0.0, in_the_way: bool = False) -> None:
        super().__init__(what)
        self.what, self.pause_s, self.in_the_way = what, pause_s, in_the_way


class _Client(httpx.Client):
    """A client with timeouts, which raises `TransientError` for temporary failures."""

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
        if response.status_code in _TEMPORARY:
            pause = response.headers.get("Retry-After", "")
            what = f"it answered {response.status_code} {response.reason_phrase}"
            raise TransientError(what, pause_s=float(pause) if pause.isdecimal() else 0.0)
        return response


class Connection:
    """Retries and error messages for all requests about a repository.

    Args:
        name: Name of the repository.
        token: The user's token; never shown in messages.
        resume: The command that continues after an error.
        retry_policy: Timeouts and pauses.
    """

    def __init__(self, name: str, token: str, resume: str, retry_policy: RetryPolicy) -> None:
        self._name, self._token, self._resume, self._retry_policy = (
            name,
            token,
            resume,
            retry_policy,
        )

    @contextmanager
    def open(self) -> Iterator[None]:
        """Send all requests of this process through the client with timeouts."""
        had_bars = not are_progress_bars_disabled()
        disable_progress_bars()
        set_client_factory(lambda: _Client(self._retry_policy.silence_s))
        try:
            yield
        finally:
            set_client_factory(default_client_factory)
            if had_bars:
                enable_progress_bars()

    def retry(self, step: Callable[[], Result]) -> Result:
        """Call ``step`` until it succeeds, retrying temporary failures.

        Args:
            step: Must be safe to repeat.

        Raises:
            HubError: If the Hub refuses, or a failure lasts too long.
            ConflictError: If another client stays in the way.
        """
        retry_policy, wait, until = self._retry_policy, self._retry_policy.first_s, None
        while True:
            try:
                return step()
            except Exception as err:
                failure = self._transient(err)
            until = until or time.monotonic() + retry_policy.give_up_s
            pause = max(wait, failure.pause_s)
            if time.monotonic() + pause > until:
                kind = ConflictError if failure.in_the_way else HubError
                raise kind(self.message(failure.what)) from None
            what = self._clean(failure.what)
            logger.info("%s: the Hub: %s; trying again in %.0f s", self._name, what, pause)
            time.sleep(pause)
            wait = min(2 * wait, retry_policy.longest_s)

    def message(self, what: str) -> str:
        """An error message with the command to continue, and without the token."""
        return self._clean(
            f"{self._name}: the upload failed: {what}\n"
            f"files that were uploaded are kept; continue with: {self._resume}"
        )

    def _clean(self, text: str) -> str:
        return text.replace(self._token, "<token>")

    def _transient(self, err: Exception) -> TransientError:
        """The failure, if it is temporary.

        Raises:
            Exception: Any other error; as a `HubError` if the Hub refused the request.
        """
        cause: BaseException | None = err
        while cause is not None:  # errors of uploads are wrapped
            if isinstance(cause, TransientError):
                return cause
            if isinstance(cause, HfHubHTTPError):
                return self._refused(cause)
            if isinstance(cause, OfflineModeIsEnabled):
                raise HubError(self.message("offline mode is on (HF_HUB_OFFLINE)")) from None
            if isinstance(cause, OSError) and cause.filename is not None:  # a local file
                raise cause
            cause = cause.__cause__
        if isinstance(err, NONSENSE):
            return TransientError("its answer is not valid")
        if isinstance(err, RuntimeError | OSError):  # uploads that do not go through our client
            return TransientError(f"the transfer broke off ({err.__cause__ or err})")
        raise err

    def _refused(self, err: HfHubHTTPError) -> TransientError:
        status = err.response.status_code
        reason = err.server_message or err.response.reason_phrase
        if status in _CONFLICTS:
            return TransientError(f"it answered {status} ({reason})", in_the_way=True)
        advice = {
            401: "; run 'hf auth login' with a valid token",
            403: "; use a token with write access, or another repository",
        }.get(status, "")
        raise HubError(self.message(f"it answered {status} ({reason}){advice}")) from None
