// Events at a real daemon: a first screen, what others do, and coming back.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, test } from "node:test";

import { connect } from "../orbit.js";
import { Text, once, runningDaemon } from "./daemon.js";

const TIMEOUT = { timeout: 60_000 };
const daemon = runningDaemon();
const opened = [];
after(() => opened.forEach((one) => one.close()));

const client = async () => {
  const orbit = await connect({ env: daemon.env });
  opened.push(orbit);
  return orbit;
};
const create = (orbit, name) => orbit.call("session.create", { config: { session_type: "local" }, name });

/** Events that have come, and a way to wait for so many. */
class Heard {
  events = [];
  #waiting = [];
  take = (event) => {
    this.events.push(event);
    this.#waiting = this.#waiting.filter(({ isThere, resolve }) => !isThere(this.events) || resolve());
  };
  until = (isThere) =>
    new Promise((resolve) => (isThere(this.events) ? resolve() : this.#waiting.push({ isThere, resolve })));
  names = () => this.events.filter(({ kind }) => kind === "session.created").map(({ data }) => data.name);
}

const subscribe = async (orbit, params, heard) => {
  const subscription = await orbit.subscribe(params, heard.take);
  opened.push(subscription);
  return subscription;
};

test("a first screen misses nothing that happens while it is read", TIMEOUT, async () => {
  const orbit = await client();
  await create(orbit, "before");
  const { cursor } = await orbit.call("events.list", { limit: 0 });
  const { sessions } = await orbit.call("session.list");
  await create(orbit, "meanwhile");
  const heard = new Heard();
  await subscribe(orbit, { since: cursor, kinds: ["session.created"] }, heard);
  await create(orbit, "later");
  await heard.until((events) => events.length === 2);
  assert.deepEqual([sessions.map(({ name }) => name), heard.names()], [["before"], ["meanwhile", "later"]]);
  const [first, second] = heard.events;
  assert.ok(first.seq < second.seq);
  assert.equal(first.session_id, first.data.id);
});

test("a subscription goes on where it was when the daemon was killed", TIMEOUT, async () => {
  const orbit = await client();
  const heard = new Heard();
  const subscription = await subscribe(orbit, { kinds: ["session.created"] }, heard);
  for (let number = 0; number < 50; number++) await create(orbit, `first-${number}`);
  const [again, closed] = [once(subscription, "reconnected"), once(orbit, "close")];
  process.kill((await orbit.call("daemon.info")).pid, "SIGKILL");
  await closed;
  const other = await client();
  for (let number = 0; number < 50; number++) await create(other, `second-${number}`);
  await again;
  await heard.until((events) => events.length >= 100);
  const wanted = ["first", "second"].flatMap((word) => Array.from({ length: 50 }, (_, number) => `${word}-${number}`));
  assert.deepEqual(heard.names(), wanted);
  assert.equal(subscription.cursor, heard.events.at(-1).cursor);
});

test("a cursor that has expired has the app read everything anew", TIMEOUT, async () => {
  const orbit = await client();
  const heard = new Heard();
  const subscription = await subscribe(orbit, { since: (await orbit.call("events.list", { limit: 0 })).cursor }, heard);
  const expired = once(subscription, "expired");
  subscription.cursor = "0123abcd-1"; // of another store, as when a backup was put back
  subscription.orbit.socket.destroy();
  await expired;
  await create(orbit, "after");
  await heard.until((events) => events.some(({ data }) => data.name === "after"));
});

test("a subscriber hears of another client that attaches, types nothing and leaves", TIMEOUT, async () => {
  const orbit = await client();
  const { id } = await orbit.call("session.create", { config: { session_type: "local", command: "cat" } });
  const heard = new Heard();
  await subscribe(orbit, { session_id: id, live: false }, heard);
  const window = await orbit.attach(id, { cols: 80, rows: 24, start: true }, { write: (_, done) => done() });
  await heard.until((events) => events.some(({ kind }) => kind === "session.attached"));
  window.close();
  await heard.until((events) => events.some(({ kind }) => kind === "session.detached"));
  const attached = heard.events.find(({ kind }) => kind === "session.attached");
  assert.deepEqual([attached.data.client_pid, attached.data.read_only], [process.pid, false]);
  assert.ok(heard.events.every(({ session_id }) => session_id === id));
});

const demo = (...words) => {
  const child = spawn(process.execPath, [new URL("../demo.js", import.meta.url).pathname, ...words], { env: daemon.env });
  const shown = new Text();
  child.stdout.on("data", (data) => shown.add(data.toString()));
  child.stderr.on("data", (data) => shown.add(data.toString()));
  opened.push({ close: () => child.kill() });
  return { child, shown, ended: new Promise((resolve) => child.on("close", resolve)) };
};

test("the demonstration prints sessions and what happens", TIMEOUT, async () => {
  const orbit = await client();
  await create(orbit, "listed");
  const { shown } = demo();
  await shown.until("listed");
  await create(orbit, "heard"); // it may not have subscribed yet: it hears of it all the same
  await shown.until("heard");
});

test("the demonstration is a terminal, and ends with the program's exit code", TIMEOUT, async () => {
  const orbit = await client();
  await orbit.call("session.create", { config: { session_type: "local", command: "sh" }, name: "shown" });
  const { child, shown, ended } = demo("shown");
  child.stdin.write("echo hel''lo\r");
  await shown.until("hello");
  child.stdin.write("exit 3\r");
  assert.equal(await ended, 3);
});
