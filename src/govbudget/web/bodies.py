"""The bodies of requests. pydantic reads them; this module is loaded with the first one."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo

from govbudget import identity
from govbudget.ids import IdType
from govbudget.money import MAX_LIMIT_MICROS
from govbudget.web.answers import Id


def _accept(id_type: IdType, value: object) -> identity.Id:
    """Take an id of a type; a wrong one is what pydantic takes for a wrong value."""
    try:
        return id_type.accept(value)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _accept_id(value: object, info: ValidationInfo[Any]) -> identity.Id:
    """Take an id of a body; the context is the type of ids."""
    return _accept(info.context, value)


IdField = Annotated[Id, PlainValidator(_accept_id, json_schema_input_type=Id)]
Uuid = Annotated[UUID, PlainValidator(partial(_accept, IdType.UUID), json_schema_input_type=UUID)]
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
