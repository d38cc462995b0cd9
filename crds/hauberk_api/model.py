"""The base of every API model: immutable, camelCase on the wire, unknown fields ignored.

Unknown fields are ignored because agents and operators one version apart work together: schemas only grow.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """An immutable part of an API object."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", use_enum_values=False
    )

    @classmethod
    def from_object(cls, data: object) -> Self:
        """Parse the JSON form. Raises pydantic.ValidationError, which names field and fault."""
        return cls.model_validate(data)

    def to_object(self) -> dict[str, Any]:
        """The JSON form, without the fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
