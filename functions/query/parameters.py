"""What the routes may be asked, checked before anything touches the database."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Literal, TypeVar

from aws_lambda_powertools.utilities.data_classes.common import BaseProxyEvent
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from refusals import bad_request, unusable_body


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("expected a time whose year in UTC is between 1 and 9999") from None


Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Text = Annotated[str, Field(min_length=1, max_length=512, pattern="^[^\\x00]*$")]


class ReaderParameters(BaseModel):
    """Who reads: an operator may choose the tenant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Text | None = None


class EventParameters(ReaderParameters):
    """For one event: its source, where several use the id."""

    source: Text | None = None


class ProofParameters(EventParameters):
    """For the proof of an event: the size of the checkpoint to which it shall lead, else it is the latest."""

    size: int | None = Field(default=None, ge=1, le=2**63 - 1)


class ConsistencyParameters(ReaderParameters):
    """For a consistency proof: the sizes of two checkpoints, `to` the latest one's where it is left out."""

    old: int = Field(alias="from", ge=1, le=2**63 - 1)
    new: int | None = Field(alias="to", default=None, ge=1, le=2**63 - 1)


class EventsParameters(EventParameters):
    """For a page of events: `from` <= time < `to`, equal columns, newest first."""

    since: Time | None = Field(default=None, alias="from")
    until: Time | None = Field(default=None, alias="to")
    actor: Text | None = None
    action: Text | None = None
    target_type: Text | None = None
    target_id: Text | None = None
    outcome: Literal["success", "failure", "unknown"] | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: Annotated[str, Field(max_length=200)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> EventsParameters:
        if self.since and self.until and self.since >= self.until:
            raise ValueError("`from` must be earlier than `to`")
        return self


class QuarantineParameters(ReaderParameters):
    """For a page of records in quarantine: received at `from` or later, the last one that came first."""

    since: Time | None = Field(default=None, alias="from")
    state: Literal["waiting", "replayed", "discarded", "all"] = "waiting"
    reason: Text | None = None
    origin: Text | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: int | None = Field(default=None, ge=1, le=2**63 - 1)


class ListParameters(ReaderParameters):
    """For a page of a list that has an order of its own."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: Annotated[str, Field(max_length=4000)] | None = None


class SourcesParameters(ListParameters):
    """For sources: one of them, with all that is kept of its numbers."""

    source: Text | None = None


class ActionsParameters(ListParameters):
    """For the actions of a category: one of them, with its schema."""

    action: Text | None = None


class ErasureRequest(BaseModel):
    """Whose values shall go, and why: the body of `POST /erasures`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    tenant: Text | None = None
    actor: Text | None = None
    target: Text | None = None
    reason: Text

    @model_validator(mode="after")
    def _of_one(self) -> ErasureRequest:
        if (self.actor is None) == (self.target is None):
            raise ValueError("expected either `actor` or `target`")
        return self


def body_of(request: BaseProxyEvent) -> ErasureRequest:
    """Check the body. Raises a `Problem` that names every wrong member."""
    try:
        return ErasureRequest.model_validate_json(request.decoded_body or "")
    except ValidationError as error:
        whole = {"value_error": "actor"}  # what is wrong with the body as a whole, but for this, is that it is none
        faults = [
            {"field": ".".join(map(str, fault["loc"])) or whole.get(fault["type"], "body"), "message": fault["msg"]}
            for fault in error.errors()
        ]
        malformed = error.errors()[0]["type"] == "json_invalid"
        raise unusable_body(HTTPStatus.BAD_REQUEST if malformed else HTTPStatus.UNPROCESSABLE_ENTITY, faults) from None


Parameters = TypeVar("Parameters", bound=ReaderParameters)


def parameters_of(request: BaseProxyEvent, kind: type[Parameters]) -> Parameters:
    """Check the query string. Raises a `Problem` that names every wrong parameter."""
    given = request.resolved_query_string_parameters
    twice = [name for name, values in given.items() if len(values) > 1]
    if twice:
        raise bad_request([{"field": name, "message": "expected one value, got several"} for name in twice])
    try:
        return kind.model_validate({name: values[0] for name, values in given.items()})
    except ValidationError as error:
        raise bad_request(
            [{"field": ".".join(map(str, fault["loc"])) or "from", "message": fault["msg"]} for fault in error.errors()]
        ) from None


def number_of(id: str) -> int:
    """The number that a path names; 0, which nothing has, where it names none."""
    return int(id) if id.isascii() and id.isdecimal() and len(id) < 19 else 0
