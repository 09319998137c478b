"""FastAPI without any database: what a request costs that does not need one."""

from fastapi import FastAPI

from ..workloads import Endpoint, Work
from . import Built, Setup


def build(setup: Setup) -> Built:
    return Built(FastAPI(), nowhere)


def nowhere(work: Work) -> Endpoint:
    def endpoint() -> None:
        raise LookupError("there is no database here")

    return endpoint
