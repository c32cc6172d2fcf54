"""The peer "fastapi": a list of sockets and a loop of `send_text`, called with the port to listen on.

The connection manager of https://fastapi.tiangolo.com/advanced/websockets/, on uvicorn with uvloop and httptools, no
access log, no compression. `websockets-sansio` is uvicorn's newer WebSocket implementation.
"""

import sys

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
subscribers: list[WebSocket] = []


@app.websocket("/subscribe")
async def subscribe(websocket: WebSocket) -> None:
    """Keep a subscriber until it goes."""
    await websocket.accept()
    subscribers.append(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        subscribers.remove(websocket)


@app.websocket("/publish")
async def publish(websocket: WebSocket) -> None:
    """Hand on what a publisher says."""
    await websocket.accept()
    try:
        while True:
            text = await websocket.receive_text()
            for subscriber in subscribers:
                await subscriber.send_text(text)
    except WebSocketDisconnect:
        pass


uvicorn.run(
    app,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    loop="uvloop",
    http="httptools",
    ws="websockets-sansio",
    ws_per_message_deflate=False,
    backlog=4096,
    log_level="warning",
    access_log=False,
)
