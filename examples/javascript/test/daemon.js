// A daemon with a home of its own, for one file of tests; nothing of the user's is touched.

import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { after, before } from "node:test";
import { promisify } from "node:util";

export const run = promisify(execFile);

/** Return what a test needs of its daemon: the environment in which clients find it, and its orbitctl. */
export function ownDaemon() {
  const home = mkdtempSync(`${process.env.ORBIT_TEST_HOMES ?? "/tmp"}/js-`); // short: paths of sockets are limited
  mkdirSync(`${home}/run`, { mode: 0o700 });
  const kept = Object.fromEntries(["PATH", "LANG", "PYTHONPATH"].map((name) => [name, process.env[name]]));
  const env = { ...kept, HOME: home, XDG_RUNTIME_DIR: `${home}/run`, TERM: "xterm-256color", SHELL: "/bin/sh" };
  for (const name of Object.keys(env)) if (env[name] === undefined) delete env[name];
  const orbitctl = (...words) => run("orbitctl", words, { env, timeout: 30_000 });
  after(async () => {
    await orbitctl("daemon", "start").catch(() => {}); // where a test has killed it: it ends the programs
    await orbitctl("daemon", "stop", "--all").catch(() => {});
    rmSync(home, { recursive: true, force: true });
  });
  return { env, home, orbitctl, socket: `${home}/run/orbit/orbitd.sock` };
}

/** The same, with the daemon started. */
export function runningDaemon() {
  const daemon = ownDaemon();
  before(() => daemon.orbitctl("daemon", "start"));
  return daemon;
}

/** Text that arrives, and a way to wait for some of it. */
export class Text {
  #waiting = [];
  text = "";

  /** As a terminal that draws at once. */
  write = (bytes, done) => {
    this.add(Buffer.from(bytes).toString());
    done?.();
  };

  add(text) {
    this.text += text;
    this.#waiting = this.#waiting.filter(({ wanted, resolve }) => !this.text.includes(wanted) || resolve());
  }

  until(wanted) {
    return new Promise((resolve) => {
      this.#waiting.push({ wanted, resolve });
      this.add("");
    });
  }
}

/** Resolve when an emitter emits something, with its first argument. */
export const once = (emitter, name) => new Promise((resolve) => emitter.once(name, resolve));

