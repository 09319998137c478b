"""What the tests share: flavours of database, a raw ASGI client, an observer."""
