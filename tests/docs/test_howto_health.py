"""What the page on health checks says is so."""

from __future__ import annotations

from fastapi.testclient import TestClient

from support.manual import Page
from unitwork import AsyncDatabase


def test_its_routes_answer(page: Page) -> None:
    main = page.run()
    with TestClient(main.app) as client:
        answers = {path: client.get(path).json() for path in ("/live", "/ready")}
        assert client.get("/sync-ready").status_code == 200

        main.db = AsyncDatabase("postgresql+asyncpg://me:secret@127.0.0.1:1/items")
        down = client.get("/ready")
        still = client.get("/live").status_code

    assert answers == {"/live": "alive", "/ready": "ready"}
    assert (down.status_code, still) == (503, 200)
    assert "retry-after" in down.headers
    main.sync_db.dispose()
