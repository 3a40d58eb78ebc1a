// Compiled, never run: what orbit.d.ts says of calls, notifications and events. A line under `@ts-expect-error` must fail.

import { connect, OrbitError, type Methods, type OrbitEvent, type Session } from "../orbit.js";

const orbit = await connect({ env: { HOME: "/home/ada" }, start: false });

const session: Session = await orbit.call("session.get", { id: "x" });
const name: string | null = session.name;
const percent: number | null | undefined = session.progress?.percent;
const status: "active" | "detached" | "terminated" | "archived" = session.status;
const { sessions, next_cursor } = await orbit.call("session.list");
await orbit.call("session.list", { status: ["active"], limit: 10 }, { timeout: 1000 });
await orbit.call("daemon.ping");
// @ts-expect-error: no such method
await orbit.call("session.gett", { id: "x" });
// @ts-expect-error: a param is missing
await orbit.call("session.get");
// @ts-expect-error: a param of another type
await orbit.call("session.get", { id: 1 });
// @ts-expect-error: a param that is not there
await orbit.call("session.get", { id: "x", ref: "y" });
// @ts-expect-error: a status that is not there
await orbit.call("session.update_status", { id: "x", status: "ended" });
// @ts-expect-error: a result has no such field
session.nickname;

orbit.on("session.output", ({ attachment_id, data }) => attachment_id + data);
orbit.on("session.repaint", ({ reason }) => reason === "behind");
orbit.on("close", () => {});
// @ts-expect-error: no such notification
orbit.on("session.outputs", () => {});

const window = await orbit.attach("x", { cols: 80, rows: 24, frames: "auto" }, process.stdout);
window.on("exited", ({ exit_code }) => exit_code === 0);
window.on("end", (how) => how === "closed");
await window.write(new Uint8Array([3]));

function told(event: OrbitEvent): string | null {
  if (event.kind === "command.finished") return event.data.command;
  if (event.kind === "session.attached") return `${event.data.client_pid} at ${event.data.name}`;
  if (event.kind === "workspace.opened") return event.data.layout.layout_type;
  // @ts-expect-error: no such kind
  if (event.kind === "session.exploded") return null;
  return event.cursor;
}
const subscription = await orbit.subscribe({ kinds: ["session.*"] }, told);
subscription.on("expired", () => {});

const wanted: Methods["session.screen"]["params"] = { id: "x", format: "svg", theme: { background: "#000000" } };
try {
  await orbit.call("session.screen", wanted);
} catch (error) {
  if (error instanceof OrbitError && error.kind === "session_not_found") console.log(error.hint);
  // @ts-expect-error: no such kind of error
  if (error instanceof OrbitError && error.kind === "not_there") console.log(error.hint);
}
export { name, next_cursor, percent, sessions, status };
