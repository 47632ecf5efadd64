"""The WebSocket echo through the proxy."""

import asyncio, ssl, sys
import websockets

CONTEXT = ssl.create_default_context(cafile=sys.argv[1])


async def main():
    async with websockets.connect(
        "wss://www.foobar.com/websocket", host="203.0.113.10", port=443, ssl=CONTEXT, server_hostname="www.foobar.com"
    ) as socket:
        await socket.send("who")
        assert (await socket.recv()).startswith("web")
        for size in (1, 125, 126, 65536, 500_000):
            await socket.send(b"x" * size)
            assert await socket.recv() == b"x" * size
        await asyncio.sleep(2)
        await socket.send("still there")
        assert await socket.recv() == "still there"


asyncio.run(main())
print("ok")
