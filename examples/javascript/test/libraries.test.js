// Stock JSON-RPC libraries at a real daemon: what they need of it, and nothing of ours.

import assert from "node:assert/strict";
import { createConnection } from "node:net";
import { createInterface } from "node:readline";
import { test } from "node:test";

import { JSONRPCClient, JSONRPCServer, JSONRPCServerAndClient } from "json-rpc-2.0";
import * as rpc from "vscode-jsonrpc/node";

import { Text, runningDaemon } from "./daemon.js";

const TIMEOUT = { timeout: 60_000 };
const daemon = runningDaemon();
const base64 = (text) => Buffer.from(text).toString("base64");
const config = { session_type: "local", command: "cat" };
const window = { cols: 80, rows: 24, attachment_id: "window", start: true };

test("vscode-jsonrpc calls, is notified and cancels in its own framing", TIMEOUT, async () => {
  const socket = createConnection(daemon.socket);
  const connection = rpc.createMessageConnection(socket, socket);
  const shown = new Text();
  connection.onNotification("session.output", ({ data }) => shown.add(Buffer.from(data, "base64").toString()));
  connection.listen();

  assert.deepEqual(await connection.sendRequest("daemon.ping"), { pong: true });
  const { id } = await connection.sendRequest("session.create", { config });
  await connection.sendRequest("session.attach", { id, ...window });
  await connection.sendNotification("session.input", { attachment_id: "window", data: base64("über hallo\r") });
  await shown.until("über hallo");
  await assert.rejects(connection.sendRequest("session.get", { id: "nobody" }), { code: 1000 });

  const source = new rpc.CancellationTokenSource();
  const waiting = connection.sendRequest("session.wait", { id, for: "exit" }, source.token);
  await connection.sendRequest("daemon.ping");
  source.cancel();
  await assert.rejects(waiting, { code: -32800 });

  const many = await Promise.all(Array.from({ length: 200 }, () => connection.sendRequest("session.get", { id })));
  assert.ok(many.every((session) => session.id === id));
  connection.end();
  connection.dispose();
});

test("vscode-jsonrpc is told why it is cut off, in its own framing", TIMEOUT, async () => {
  const socket = createConnection(daemon.socket);
  const said = new Text();
  const logger = { error: (text) => said.add(text), warn() {}, info() {}, log() {} };
  const connection = rpc.createMessageConnection(socket, socket, logger);
  const closed = new Promise((resolve) => connection.onClose(resolve));
  connection.listen();
  await connection.sendRequest("daemon.ping");
  await connection.sendNotification("session.input", { attachment_id: "window", data: "A".repeat(17 << 20) });
  await said.until("longer than 16777216 bytes");
  await closed;
  connection.dispose();
});

test("json-rpc-2.0 calls and is notified over lines", TIMEOUT, async () => {
  const socket = createConnection(daemon.socket);
  const peer = new JSONRPCServerAndClient(
    new JSONRPCServer(),
    new JSONRPCClient((message) => void socket.write(`${JSON.stringify(message)}\n`)),
  );
  createInterface({ input: socket }).on("line", (line) => peer.receiveAndSend(JSON.parse(line)));
  const shown = new Text();
  peer.addMethod("session.output", ({ data }) => shown.add(Buffer.from(data, "base64").toString()));

  assert.deepEqual(await peer.request("daemon.ping"), { pong: true });
  const { id } = await peer.request("session.create", { config });
  await peer.request("session.attach", { id, ...window });
  peer.notify("session.input", { attachment_id: "window", data: base64("hello\r") });
  await shown.until("hello");
  await assert.rejects(async () => peer.request("session.get", { id: "nobody" }), { code: 1000 });
  socket.destroy();
});
