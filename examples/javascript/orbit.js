// A client of Orbit on plain sockets, without dependencies. docs/protocol.md explains each step; copy what you need.

import { execFile } from "node:child_process";
import { EventEmitter } from "node:events";
import { readFileSync } from "node:fs";
import { createConnection } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const CALL_MS = 30_000;
const HIGH_WATER = 512 * 1024; // bytes that a terminal was given and has not drawn: beyond it, nothing more is read
const LOW_WATER = 128 * 1024;
const MAX_RETRY_MS = 2_000;

/** What the daemon refuses: compare `kind`, show `message` and `hint`; `retryable` says that it may work later. */
export class OrbitError extends Error {
  constructor({ code, message, data = {} }) {
    super(message);
    Object.assign(this, { name: "OrbitError", code, kind: "unknown", hint: "", retryable: false, ...data, data });
  }
}

const disconnected = (message = "The connection to the daemon has ended") =>
  new OrbitError({ code: 0, message, data: { kind: "disconnected", retryable: true } });

/** Where a daemon may listen, the likeliest first. */
export function socketPaths(env = process.env) {
  const chosen = env.ORBITD_SOCKET;
  if (chosen && chosen !== env.ORBIT_SOCKET) return [chosen]; // in a session the daemon has set both
  const folder = (variable, usual) =>
    join(env[variable]?.startsWith("/") ? env[variable] : join(env.HOME || homedir(), usual), "orbit");
  const runtime = env.XDG_RUNTIME_DIR?.startsWith("/") && join(env.XDG_RUNTIME_DIR, "orbit");
  const paths = [join(runtime || folder("XDG_STATE_HOME", ".local/state"), "orbitd.sock")];
  try {
    const database = env.ORBITD_DATABASE || join(folder("XDG_DATA_HOME", ".local/share"), "sessions.db");
    const note = readFileSync(`${database}.lock`, "utf8"); // of the daemon that serves it, wherever it listens
    paths.push(...note.split("\n").filter((line) => line.startsWith("socket ")).map((line) => line.slice(7)));
  } catch {} // no daemon has ever run here
  return [...new Set(paths)];
}

/** Connect to the daemon; start it where none answers. */
export async function connect({ env = process.env, start = true } = {}) {
  for (const path of socketPaths(env)) {
    const orbit = await open(path, env);
    if (orbit) return orbit;
  }
  if (!start) throw disconnected("No daemon is running");
  // It finds the daemon or starts it, by its service where one is installed, and reads the configuration too.
  const { stdout } = await promisify(execFile)("orbitctl", ["rpc", "call", "daemon.info"], { env, timeout: CALL_MS });
  const orbit = await open(JSON.parse(stdout).socket_path, env);
  if (!orbit) throw disconnected("The daemon was started, and has ended again");
  return orbit;
}

/** Return a connection to whoever answers at a path; null where nobody does. */
async function open(path, env) {
  const orbit = await new Promise((resolve, reject) => {
    const socket = createConnection(path);
    const failed = (error) => (["ENOENT", "ECONNREFUSED"].includes(error.code) ? resolve(null) : reject(error));
    socket.once("error", failed).once("connect", () => resolve(new Orbit(socket.off("error", failed), env)));
  });
  try {
    await orbit?.call("daemon.ping"); // the socket of a daemon that was just killed takes connections for a moment
    return orbit;
  } catch (error) {
    orbit.close();
    if (error.kind !== "disconnected") throw error;
    return null;
  }
}

/** A connection. It emits each notification by its method, with its params, and `close` at its end. */
export class Orbit extends EventEmitter {
  #pending = new Map();
  #lastId = 0;
  #parts = []; // of a line that has not ended yet
  #refusal = disconnected(); // or why the daemon closes the connection, where it says so

  constructor(socket, env) {
    super();
    Object.assign(this, { socket, env });
    socket.on("data", (data) => this.#receive(data)).on("error", () => {}); // `close` follows
    socket.on("close", () => {
      for (const call of this.#pending.values()) call.reject(this.#refusal);
      this.emit("close");
    });
  }

  /** Call a method. `onResult` is called with the result before anything that comes behind it is looked at. */
  call(method, params = {}, { timeout = CALL_MS, onResult } = {}) {
    return new Promise((resolve, reject) => {
      if (this.socket.destroyed) return reject(this.#refusal);
      const id = ++this.#lastId;
      const expire = () => {
        this.notify("$/cancelRequest", { id }); // ends a call that waits
        const data = { kind: "timeout", retryable: true };
        reject(new OrbitError({ code: -32002, message: `${method}: no answer within ${timeout} ms`, data }));
      };
      const timer = timeout && setTimeout(expire, timeout);
      const settle = (how) => (value) => (clearTimeout(timer), how(value));
      this.#pending.set(id, { resolve: settle(resolve), reject: settle(reject), onResult });
      this.#send({ jsonrpc: "2.0", id, method, params });
    });
  }

  /** Send what is not answered. */
  notify(method, params = {}) {
    this.#send({ jsonrpc: "2.0", method, params });
  }

  /** Attach a terminal (`write(bytes, done)`, as xterm.js has it), on a connection of its own. */
  attach(id, params, terminal) {
    return new Attachment(this.env, id, params, terminal).begin();
  }

  /** Hear what happens, on a connection of its own. */
  subscribe(params, onEvent) {
    return new Subscription(this.env, params, onEvent).begin();
  }

  close() {
    this.socket.destroy();
  }

  #send(message) {
    if (this.socket.writable) this.socket.write(JSON.stringify(message) + "\n");
  }

  #receive(data) {
    let start = 0;
    for (let end; (end = data.indexOf(10, start)) >= 0; start = end + 1) {
      const line = data.subarray(start, end);
      this.#take(JSON.parse(this.#parts.length ? Buffer.concat([...this.#parts.splice(0), line]) : line));
    }
    if (start < data.length) this.#parts.push(data.subarray(start));
  }

  #take({ id, method, params, result, error }) {
    if (method !== undefined) return this.emit(method, params);
    if (id === null) return (this.#refusal = new OrbitError(error));
    const call = this.#pending.get(id);
    this.#pending.delete(id);
    if (error) return call?.reject(new OrbitError(error));
    call?.onResult?.(result); // now: what came in the same read is taken before a promise goes on
    call?.resolve(result);
  }
}

/** What has a connection of its own, and begins again on another one when that is lost. */
class Lasting extends EventEmitter {
  isOver = false;

  async begin(isAgain = false) {
    const orbit = (this.orbit = await connect({ env: this.env, start: !isAgain }));
    if (this.isOver) return orbit.close();
    try {
      await this.beginOn(orbit, isAgain);
    } catch (error) {
      orbit.close();
      throw error;
    }
    orbit.socket.destroyed ? this.#beginAgain() : orbit.once("close", () => this.#beginAgain());
    return this;
  }

  async #beginAgain() {
    for (let ms = 20; !this.isOver; ms = Math.min(2 * ms, MAX_RETRY_MS)) {
      try {
        await sleep(ms);
        await this.begin(true);
        return this.emit("reconnected");
      } catch (error) {
        if (!error.retryable && !error.errno) this.end("lost", error); // else the daemon may be back soon
      }
    }
  }

  end(how, what) {
    if (this.isOver) return;
    this.isOver = true;
    this.orbit?.close();
    this.emit(how, what);
    this.emit("end", how, what);
  }

  close() {
    this.end("closed");
  }
}

/** A terminal at a session. It emits `repaint`, `reconnected`, and `end` after `exited`, `detached`, `lost` or `closed`. */
export class Attachment extends Lasting {
  constructor(env, id, params, terminal) {
    super();
    Object.assign(this, { env, id, params, terminal });
  }

  async beginOn(orbit, isAgain) {
    this.undrawn = 0;
    orbit.on("session.output", ({ data }) => this.#draw(orbit, data));
    orbit.on("session.repaint", (repaint) => (this.#draw(orbit, repaint.data), this.emit("repaint", repaint)));
    orbit.on("session.exited", (exit) => this.end("exited", exit));
    orbit.on("session.detached", (detach) => this.end("detached", detach));
    const onResult = ({ session, repaint }) => {
      this.session = session;
      this.#draw(orbit, repaint, isAgain ? "\x1bc" : ""); // again: the history goes first, since it is drawn anew
    };
    await orbit.call("session.attach", { ...this.params, id: this.id, attachment_id: "window" }, { onResult });
  }

  /** Type text, or bytes; done once the program's terminal has taken all of it. */
  write(data) {
    const params = { attachment_id: "window", data: Buffer.from(data).toString("base64") };
    return this.orbit.call("session.input", params, { timeout: 0 });
  }

  /** Say that the window has another size. */
  resize(cols, rows) {
    Object.assign(this.params, { cols, rows });
    return this.orbit.call("session.resize", { attachment_id: "window", cols, rows });
  }

  #draw(orbit, base64, before = "") {
    const data = Buffer.from(base64, "base64");
    const bytes = before ? Buffer.concat([Buffer.from(before), data]) : data;
    this.undrawn += bytes.length;
    if (this.undrawn > HIGH_WATER) orbit.socket.pause(); // the daemon leaves output out then, and repaints
    this.terminal.write(bytes, () => {
      if (orbit !== this.orbit) return; // of a connection before this one
      this.undrawn -= bytes.length;
      if (this.undrawn < LOW_WATER) orbit.socket.resume();
    });
  }
}

/** A subscription. It emits `expired` (read everything anew), `reconnected`, and `end` after `lost` or `closed`. */
export class Subscription extends Lasting {
  constructor(env, params, onEvent) {
    super();
    Object.assign(this, { env, params, onEvent, cursor: params.since });
  }

  async beginOn(orbit) {
    const keep = ({ cursor }) => (this.cursor = cursor ?? this.cursor);
    orbit.on("event", (event) => (keep(event), this.onEvent(event)));
    orbit.on("events.cursor", keep);
    orbit.on("events.ended", () => this.#subscribe(orbit).catch(() => orbit.close()));
    await this.#subscribe(orbit);
  }

  async #subscribe(orbit) {
    const onResult = ({ cursor }) => (this.cursor ??= cursor);
    try {
      await orbit.call("events.subscribe", { ...this.params, since: this.cursor }, { onResult });
    } catch (error) {
      if (error.kind !== "cursor_expired") throw error;
      this.cursor = (await orbit.call("events.list", { limit: 0 })).cursor;
      this.emit("expired"); // what is read from here on is as new as this cursor, or newer
      await this.#subscribe(orbit);
    }
  }
}
