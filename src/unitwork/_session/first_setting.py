"""What a unit sets in the message of BEGIN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._driver.application_name import setting_of

if TYPE_CHECKING:
    from ..settings import DatabaseSettings
    from .owner import SessionOwner

__all__ = ["first_setting"]


def first_setting(owner: SessionOwner[Any], settings: DatabaseSettings) -> str:
    """The statement that sets the name of the application; empty if it is not set."""
    if settings.application_name is None or owner.report is None:
        return ""
    return owner.report.made_by(
        "application_name", settings.application_name, setting_of
    )
