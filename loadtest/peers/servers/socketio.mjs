// The peer "socket.io": a room of Socket.IO on Node.js, called with the port to listen on.
//
// After https://socket.io/docs/v4/performance-tuning/: the WebSocket transport alone, ws with its native add-on bufferutil, the
// HTTP request of each connection let go. Compression is off by default, and must be: only then is a broadcast encoded once.

import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], serveClient: false });

io.engine.on("connection", (socket) => {
  socket.request = null;
});
io.on("connection", (socket) => {
  socket.on("subscribe", () => socket.join("bench"));
  socket.on("publish", (message) => io.to("bench").emit("message", message));
});
http.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
