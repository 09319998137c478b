"""One connection of ASGI each: HTTP exchange, WebSocket, lifespan."""
