"""The database, and the session as a dependency of endpoints."""

import os
from typing import Annotated

from fastapi import Depends
from sqlalchemy.orm import Session

from unitwork import Database

db = Database(
    os.environ.get("DATABASE_URL", "sqlite:///items.db"),
    replicas=os.environ.get("REPLICA_URLS", "").split(),
)

SessionDep = Annotated[Session, Depends(db.session)]
