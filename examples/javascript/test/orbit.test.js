// orbit.js at a real daemon.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, test } from "node:test";

import { OrbitError, connect, socketPaths } from "../orbit.js";
import { Text, once, ownDaemon } from "./daemon.js";

const TIMEOUT = { timeout: 60_000 };
const SIZE = { cols: 80, rows: 24 };
const daemon = ownDaemon();
const opened = [];
after(() => opened.forEach((one) => one.close()));

const client = async (options = {}) => {
  const orbit = await connect({ env: daemon.env, ...options });
  opened.push(orbit);
  return orbit;
};
const session = (orbit, command) => orbit.call("session.create", { config: { session_type: "local", command } });
const attach = async (orbit, id, params, terminal) => {
  const window = await orbit.attach(id, { ...SIZE, start: true, ...params }, terminal);
  opened.push(window);
  return window;
};
const failure = (promise) => promise.then(() => assert.fail("it did not fail"), (error) => error);

test("where none runs, none is found, and then one is started", TIMEOUT, async () => {
  const missing = await failure(connect({ env: daemon.env, start: false }));
  assert.deepEqual([missing.kind, missing.retryable], ["disconnected", true]);
  const orbit = await client();
  assert.deepEqual(await orbit.call("daemon.ping"), { pong: true });
  assert.equal((await orbit.call("daemon.info")).socket_path, daemon.socket);
  assert.ok(existsSync(daemon.socket));
});

test("it is found where the documents say", TIMEOUT, async () => {
  assert.deepEqual(socketPaths(daemon.env), [daemon.socket]);
  assert.deepEqual(socketPaths({ ...daemon.env, ORBITD_SOCKET: "/x" }), ["/x"]);
  // cron has no runtime folder: the note beside the database leads to the daemon.
  const { XDG_RUNTIME_DIR, ...cron } = daemon.env;
  assert.deepEqual(socketPaths(cron), [`${daemon.home}/.local/state/orbit/orbitd.sock`, daemon.socket]);
  const orbit = await client({ env: cron, start: false });
  assert.deepEqual(await orbit.call("daemon.ping"), { pong: true });
});

test("what is refused is an error with a kind and a hint", TIMEOUT, async () => {
  const orbit = await client();
  const error = await failure(orbit.call("session.get", { id: "nobody" }));
  assert.ok(error instanceof OrbitError);
  assert.deepEqual([error.code, error.kind, error.retryable], [1000, "session_not_found", false]);
  assert.match(error.hint, /session\.list/);
  assert.match((await failure(orbit.call("session.get", { name: "x" }))).message, /name/);
});

test("a call that is not answered in time fails, and its wait is ended", TIMEOUT, async () => {
  const orbit = await client();
  const { id } = await session(orbit, "cat");
  await orbit.call("session.start", { id });
  const error = await failure(orbit.call("session.wait", { id, for: "exit" }, { timeout: 50 }));
  assert.deepEqual([error.code, error.kind], [-32002, "timeout"]);
  assert.deepEqual(await orbit.call("daemon.ping"), { pong: true });
});

test("calls of a connection that ends fail, and it says that it has ended", TIMEOUT, async () => {
  const orbit = await client();
  const { id } = await session(orbit, "cat");
  await orbit.call("session.start", { id });
  const waiting = failure(orbit.call("session.wait", { id }, { timeout: 0 }));
  const closed = once(orbit, "close");
  orbit.close();
  await closed;
  assert.equal((await waiting).kind, "disconnected");
  assert.equal((await failure(orbit.call("daemon.ping"))).kind, "disconnected");
});

test("a message that is too long is refused by its name", TIMEOUT, async () => {
  const orbit = await client();
  const data = "A".repeat(17 << 20);
  assert.equal((await failure(orbit.call("session.send", { id: "x", data }))).kind, "message_too_large");
});

test("a terminal shows what the program writes, and types, and has the window's size", TIMEOUT, async () => {
  const orbit = await client();
  const { id } = await session(orbit, "sh");
  const shown = new Text();
  const window = await attach(orbit, id, {}, shown);
  await window.write("stty size; echo 'ä'$((40 + 2))\r");
  await shown.until("ä42");
  await shown.until("24 80");
  await window.resize(100, 30);
  await window.write("stty size\r");
  await shown.until("30 100");
  assert.equal(window.session.live, true);
  const ended = once(window, "exited");
  await window.write("exit 7\r");
  assert.equal((await ended).exit_code, 7);
});

test("the picture comes before the output behind it", TIMEOUT, async () => {
  const orbit = await client();
  const { id } = await session(orbit, "sh -c 'i=0; while read -r _; do i=$((i + 1)); echo line-$i; done'");
  await attach(orbit, id, {}, new Text());
  for (let number = 1; number <= 20; number++) {
    const shown = new Text();
    const typed = orbit.call("session.send", { id, data: Buffer.from("x\r").toString("base64") });
    const window = await attach(orbit, id, {}, shown);
    await Promise.all([typed, shown.until(`line-${number}`)]);
    const found = [...shown.text.matchAll(/line-(\d+)/g)].map(([, found]) => Number(found));
    assert.deepEqual(found, found.toSorted((one, other) => one - other));
    window.close();
  }
});

test("a terminal that draws slowly holds nobody up, and sees the end", TIMEOUT, async () => {
  const orbit = await client();
  const { id } = await session(orbit, "sh -c 'read -r _; seq 1000000; echo all-over; exec cat'");
  const shown = new Text();
  const waiting = [];
  let most = 0;
  let held = 0;
  const slow = {
    write(bytes, done) {
      held += bytes.length;
      most = Math.max(most, held);
      waiting.push(() => {
        held -= bytes.length;
        shown.write(bytes, done);
      });
    },
  };
  const window = await attach(orbit, id, {}, slow);
  const reasons = [];
  window.on("repaint", ({ reason }) => reasons.push(reason));
  const other = new Text();
  await attach(orbit, id, { read_only: true }, other);
  window.write("go\r");
  await other.until("all-over"); // the program prints to its end while the slow terminal draws nothing
  assert.ok(most < 4 << 20, `${most} bytes were held`);
  const over = shown.until("all-over");
  const drawing = setInterval(() => waiting.splice(0).forEach((draw) => draw()), 1);
  await over;
  clearInterval(drawing);
  assert.deepEqual(reasons, ["behind"]);
});

test("a terminal comes back by itself when the daemon was killed", TIMEOUT, async () => {
  const orbit = await client();
  const { id } = await session(orbit, "sh");
  const shown = new Text();
  const window = await attach(orbit, id, { scrollback_lines: 1000 }, shown);
  await window.write("echo be''fore\r");
  await shown.until("before");
  const again = once(window, "reconnected");
  const closed = once(orbit, "close");
  process.kill((await orbit.call("daemon.info")).pid, "SIGKILL");
  await closed;
  await client(); // starts another one
  await again;
  assert.match(shown.text.slice(shown.text.lastIndexOf("\x1bc")), /before/);
  await window.write("echo af''ter\r");
  await shown.until("after");
  window.close();
});

test("a terminal whose session is no more says so, and tries no longer", TIMEOUT, async () => {
  const orbit = await client();
  const { id } = await session(orbit, "cat");
  const window = await attach(orbit, id, {}, new Text());
  const lost = once(window, "lost");
  // The connection is lost, and the session goes before it is made again.
  const gone = orbit.call("session.delete", { id, purge: true });
  window.orbit.removeAllListeners("session.exited");
  window.orbit.removeAllListeners("session.detached");
  await gone;
  window.orbit.socket.destroy();
  assert.equal((await lost).kind, "session_not_found");
  assert.equal(window.isOver, true);
});

test("a session that is detached from elsewhere lets its windows go", TIMEOUT, async () => {
  const orbit = await client();
  const { id } = await session(orbit, "cat");
  const window = await attach(orbit, id, {}, new Text());
  const detached = once(window, "detached");
  await orbit.call("session.detach", { id });
  assert.equal((await detached).reason, "detached");
});

test("a window of another size is sent the part that fits", TIMEOUT, async () => {
  const orbit = await client();
  const { id } = await session(orbit, "cat");
  const large = await attach(orbit, id, { cols: 120, rows: 40 }, new Text());
  const shown = new Text();
  const guest = await attach(orbit, id, { cols: 60, rows: 10, read_only: true }, shown);
  const frame = once(guest, "repaint");
  await large.write("for the guest\r");
  const { reason, cols, rows } = await frame;
  assert.deepEqual([reason, cols, rows], ["frame", 60, 10]);
  await shown.until("for the guest");
  assert.equal((await failure(guest.write("x"))).code, -32602);
});
