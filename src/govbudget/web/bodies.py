"""The bodies of requests. pydantic reads them; this module is loaded with the first one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo

from govbudget.money import MAX_LIMIT_MICROS
from govbudget.web.answers import Id

if TYPE_CHECKING:
    from govbudget import identity
    from govbudget.ids import IdType


def _accept_id(value: object, info: ValidationInfo) -> identity.Id:
    """Read an id of a body; the context is the type of ids."""
    id_type: IdType = info.context  # type: ignore[assignment]
    try:
        return id_type.accept(value)
    except TypeError as error:
        raise ValueError(str(error)) from None


IdField = Annotated[Id, PlainValidator(_accept_id, json_schema_input_type=Id)]
Limit = Annotated[int, Field(ge=0, le=MAX_LIMIT_MICROS)]


class Body(BaseModel):
    """A body: an object with these keys and no other."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class OfOrganization(BaseModel):
    """What is read of a body to find its database; the rest is read after the decision."""

    model_config = ConfigDict(strict=True)

    organization_id: IdField


class BudgetBody(Body):
    """The body of a PUT of a budget."""

    spend_limit_micros: Limit
