"""EventBridge's envelope, as a rule hands it to a queue; the event is in ``detail``.

Source: Amazon EventBridge User Guide, "Event structure".
"""

from __future__ import annotations

from typing import Any

_ENVELOPE = {"detail-type", "detail", "source", "account"}


def recognises(document: dict[str, Any]) -> bool:
    """Tell whether the document is an EventBridge envelope."""
    return document.keys() >= _ENVELOPE and isinstance(document["detail"], dict)


def unwrap(document: dict[str, Any]) -> dict[str, Any]:
    """Take the event out of its envelope."""
    detail: dict[str, Any] = document["detail"]
    return detail
