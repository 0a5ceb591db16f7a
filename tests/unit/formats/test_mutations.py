"""Whatever stands where a format expects something else: it is an event or it is refused, and it never raises."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from prooftrail import formats
from prooftrail.formats import Defaults, RawRecord
from tests.leaves import JSON, LATEST
from tests.unit.formats.samples import SAMPLES, Sample

ODD = JSON | st.sampled_from(
    [[], {}, "", 0, -1, 2**63, 1.5, True, [[]], [{}], {"": None}, "x" * 2000, "2026-13-45T99:99:99Z"]
)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all that stands in a document."""
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for name, item in items:
        yield (*path, name)
        yield from places(item, (*path, name))


@st.composite
def mutated(draw: st.DrawFn) -> tuple[Sample, Any]:
    sample = draw(st.sampled_from(SAMPLES))
    document = copy.deepcopy(sample.document)
    for *path, name in draw(st.lists(st.sampled_from(list(places(document))), min_size=1, max_size=3)):
        parent = document
        try:
            for step in path:
                parent = parent[step]
            parent[name] = copy.deepcopy(draw(ODD))
        except (LookupError, TypeError):
            continue  # an earlier change took it away
    return sample, document


@settings(max_examples=400)
@given(mutated())
def test_a_document_with_something_odd_in_it_never_raises(case: tuple[Sample, Any]) -> None:
    sample, document = case
    record = RawRecord("sqs:q:m", json.dumps(document).encode(), sample.headers)
    assert list(formats.read(record, LATEST, Defaults("acme")))
