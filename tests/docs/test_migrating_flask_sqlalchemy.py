"""Flask-SQLAlchemy's models, in Flask and in FastAPI side by side."""

from __future__ import annotations

from fastapi.testclient import TestClient

from support.manual import Page


def test_both_applications_use_the_same_models(page: Page) -> None:
    main = page.run()
    main.Item.metadata.create_all(main.db.engine)

    with TestClient(main.app) as client:
        created = client.post("/items/lamp")
        read = client.get(f"/items/{created.json()}")
        missing = client.get("/items/9")
    in_flask = main.flask_app.test_client().post("/items/table")
    with main.flask_app.app_context():
        main.flask_db.engine.dispose()

    assert (created.status_code, read.json(), missing.status_code) == (201, "lamp", 404)
    assert (in_flask.status_code, in_flask.text) == (201, "2")
