"""EventBridge's envelope, as a rule hands it to a queue; the event is in ``detail``.

Source: Amazon EventBridge User Guide, "Event structure".
"""

from __future__ import annotations

from typing import Any

_ENVELOPE = {"detail-type", "detail", "source", "account"}


def recognises(document: dict[str, Any]) -> bool:
    """Tell whether the document is an EventBridge envelope."""
    return document.keys() >= _ENVELOPE and isinstance(document["detail"], dict)


def unwrap(document: dict[str, Any], origin: str) -> tuple[dict[str, Any], str]:
    """Take the event out of its envelope, with the name under which EventBridge would deliver it again.

    A rule delivers at least once, each time as another message of the queue, and the envelope's id stays the same.
    """
    envelope = document.get("id")
    return document["detail"], f"eventbridge:{envelope}" if isinstance(envelope, str) else origin
