"""What goes in and what comes out.

These check what one field can tell by itself, so that a 422 can name the field. What
takes the rest of the row or other rows (is the tax within the price? does the owner
exist?) is for the database to say: 409.
"""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints

from .models import DEFAULT_OWNER

BIGGEST = 2**31 - 1  # that an INTEGER column holds
NO_NUL = r"^[^\x00]*$"  # PostgreSQL stores none

Id = Annotated[int, Field(ge=1, le=BIGGEST)]
Name = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=100, pattern=NO_NUL
    ),
]
Text = Annotated[str, StringConstraints(max_length=1000, pattern=NO_NUL)]
Money = Annotated[
    Decimal,
    Field(max_digits=10, decimal_places=2),  # as the columns are NUMERIC(10, 2)
    PlainSerializer(float, when_used="json"),  # else it is a string
]
Price = Annotated[Money, Field(gt=0)]
Tax = Annotated[Money, Field(ge=0)]


class OwnerCreate(BaseModel):
    name: Name


class OwnerRead(OwnerCreate):
    model_config = ConfigDict(from_attributes=True)

    id: Id


class ItemCreate(BaseModel):
    name: Name
    description: Text | None = None
    price: Price
    tax: Tax | None = None
    owner_id: Id = DEFAULT_OWNER


class ItemUpdate(BaseModel):
    """What is left out stays as it is."""

    name: Name | None = None
    description: Text | None = None
    price: Price | None = None
    tax: Tax | None = None
    owner_id: Id | None = None


class ItemRead(ItemCreate):
    model_config = ConfigDict(from_attributes=True)

    id: Id


class Page(BaseModel):
    skip: int = Field(0, ge=0, le=BIGGEST)
    limit: int = Field(100, ge=1, le=100)
