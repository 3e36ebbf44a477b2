"""What a provider's error means: try again, give up with a reason and a hint, or shorten the prompt. It sleeps and sends nothing.

Statuses and codes are those of the public documentation of the Anthropic and OpenAI APIs; gateways copy them. Where there is a
code, it decides; messages are looked at only where providers give no code (an over-long prompt, no credit).
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Mapping

from agent.core.data import Data
from agent.core.errors import ModelError, ModelRefused, PromptTooLong
from agent.core.message import Usage

_TRANSIENT_STATUS = {408, 409, 425, 429}
_TRANSIENT_CODE = re.compile(r"overload|rate_limit|timeout|server_error|api_error|unavailable|try_again|internal_error")
_MONEY_CODE = re.compile(r"billing|spend_limit|quota|credit|hard_limit|payment")
_MONEY_TEXT = re.compile(r"credit balance|spend(ing)? limit|usage limit|current quota|billing", re.IGNORECASE)
_LONG_CODE = re.compile(r"context_length_exceeded|request_too_large|string_above_max_length|prompt_too_long")
_LONG_TEXT = re.compile(
    r"prompt is too long|context (window|length|limit)|too many (input )?tokens|too many messages"
    r"|exceeds?.{0,40}max.{0,20}tokens",
    re.IGNORECASE,
)
_REFUSED_CODE = re.compile(r"content_(policy|filter)|bio_policy|cyber_policy|misalignment|policy_violation|safety|usage_policy")
_KEY_CODE = re.compile(r"authentication|invalid_api_key|account_deactivated|access_terminated|on_hold|permission|not_authorized")
_UNKNOWN_CODE = re.compile(r"\b(not_found_error|model_not_found)\b")
_SECRET = re.compile(r"\b(sk|key|pat)-[A-Za-z0-9_*.-]{6,}")


class Transient(Exception):
    """The same request may work later. `park`: do not even try again now. `usage`: what the attempt cost nevertheless."""

    def __init__(self, problem: str, *, retry_after: float | None = None, park: bool = False, usage: Usage = Usage()) -> None:
        super().__init__(problem)
        self.problem = problem
        self.retry_after = retry_after
        self.park = park
        self.usage = usage


class Rejected(ModelError):
    """The request as it stands was refused, and nothing says why in a way that we know."""


class Answer(Data):
    """An error as the provider gave it. `status` is None for an event within a stream; `code` is all that names the cause."""

    who: str
    status: int | None = None
    code: str = ""
    message: str = ""
    headers: Mapping[str, str] = {}

    @property
    def text(self) -> str:
        status = f"HTTP {self.status}" if self.status else "an error within the stream"
        return f"{self.who}: {' '.join(filter(None, (status, self.code)))}: {self.message or 'no message'}"


def scrub(text: str, key: str) -> str:
    """The text on one line of at most 500 characters, without the key or anything that looks like one."""
    text = text.replace(key, "[key]") if key else text
    return " ".join(_SECRET.sub("[key]", text).split())[:500]


def judge(answer: Answer) -> ModelError | Transient:
    """The error to raise."""
    for test, error in _FINAL:
        if test(answer):
            return error(answer)
    if _is_transient(answer):
        park = answer.headers.get("x-should-retry") == "false"
        return Transient(answer.text, retry_after=retry_after(answer.headers), park=park)
    return Rejected(answer.text, "The provider refused this request as it stands; repeating it will not help.")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asks to wait (RFC 9110 section 10.2.3: seconds or a date; `retry-after-ms` is more exact)."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None:
        return max(0.0, seconds)
    date = email.utils.parsedate_tz(value) if value else None
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < 1e7 else None


def _is_transient(answer: Answer) -> bool:
    if answer.headers.get("x-should-retry") == "true" or _TRANSIENT_CODE.search(answer.code):
        return True
    if answer.status is None:
        return not _is_invalid(answer)
    return answer.status in _TRANSIENT_STATUS or (answer.status >= 500 and answer.status not in (501, 505))


def _too_long(answer: Answer) -> bool:
    bad_request = answer.status in (400, 422) or (answer.status is None and _is_invalid(answer))
    return answer.status == 413 or bool(_LONG_CODE.search(answer.code) or (bad_request and _LONG_TEXT.search(answer.message)))


def _money(answer: Answer) -> bool:
    by_text = answer.status in (400, 402, 403, 429) and _MONEY_TEXT.search(answer.message)
    return answer.status == 402 or bool(_MONEY_CODE.search(answer.code) or by_text)


def _refused(answer: Answer) -> bool:
    return bool(_REFUSED_CODE.search(answer.code))


def _key(answer: Answer) -> bool:
    return answer.status in (401, 403) or bool(_KEY_CODE.search(answer.code))


def _unknown(answer: Answer) -> bool:
    return answer.status in (404, 405) or bool(_UNKNOWN_CODE.search(answer.code))


def _is_invalid(answer: Answer) -> bool:
    return any(name.startswith("invalid") for name in answer.code.split())


def _error(kind: type[ModelError], hint: str) -> Callable[[Answer], ModelError]:
    return lambda answer: kind(answer.text, hint)


_FINAL = (
    (_too_long, _error(PromptTooLong, "The conversation must be shortened.")),
    (
        _money,
        _error(ModelError, "The account has no credit or reached a spend limit. Raise it at the provider, or use another key."),
    ),
    (_refused, _error(ModelRefused, "The provider's policy declined this conversation. Another model may answer it.")),
    (_key, _error(ModelError, "The key is wrong, revoked, or may not use this model. Check the key and the base URL.")),
    (
        _unknown,
        _error(ModelError, "There is no such model, or the base URL is not that of this API. Check `model:` in the settings."),
    ),
)
