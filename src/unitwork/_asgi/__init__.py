"""ASGI: the HTTP exchange, the WebSocket and the lifespan."""
