"""The responses to requests that make no sense."""

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse


async def answer_invalid(
    request: Request, error: RequestValidationError
) -> JSONResponse:
    """Name the field and the rule, as FastAPI does, but don't repeat the value.

    A price of 1e999 is infinite once it is read, and JSON can't say that.
    """
    details = [{"loc": each["loc"], "msg": each["msg"]} for each in error.errors()]
    return JSONResponse({"detail": details}, status_code=422)
