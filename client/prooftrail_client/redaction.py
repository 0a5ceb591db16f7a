"""Redaction: what must not leave the process, nor reach its disk."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from prooftrail_client import strict_json

CREDENTIALS = frozenset(
    {
        "password", "passwd", "secret", "client_secret", "token", "access_token", "refresh_token", "id_token", "api_key",
        "authorization", "cookie", "set_cookie", "private_key",
    }
)  # fmt: skip
MASK = "[redacted]"


class Redaction:
    """Replaces values by ``[redacted]``: by the name of their key, and by what a text looks like.

    `keys` are matched at any depth of before, after and metadata, whatever their case and with - _ or nothing between their
    words (``api_key`` is also ``Api-Key`` and ``apiKey``). `patterns` are regular expressions; what they match is replaced
    in the message, the error's texts, and every text in before, after and metadata.
    """

    def __init__(self, keys: Iterable[str] = CREDENTIALS, patterns: Iterable[str | re.Pattern[str]] = ()) -> None:
        self._keys = frozenset(_folded(key) for key in keys)
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self.has_patterns = bool(self._patterns)

    def hides(self, key: str) -> bool:
        """Tell whether what stands under a key is to be redacted."""
        return _folded(key) in self._keys

    def applied(self, document: dict[str, Any]) -> dict[str, Any]:
        """A copy of an event's document without what is to be redacted."""
        document = document | {name: self._value(document[name]) for name in strict_json.FREE if name in document}
        if "message" in document:
            document["message"] = self._text(document["message"])
        if "error" in document:
            document["error"] = {name: self._text(text) for name, text in document["error"].items()}
        return document

    def _value(self, value: Any) -> Any:
        value = strict_json.plain(value)
        if isinstance(value, dict):
            return {key: MASK if self.hides(key) else self._value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(item) for item in value]
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text


def _folded(key: Any) -> str:
    return str(key).replace("-", "").replace("_", "").lower()
