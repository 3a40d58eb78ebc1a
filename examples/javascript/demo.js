// node demo.js            print the sessions, then what happens
// node demo.js NAME       attach this terminal to a session; Ctrl-\ leaves it

import { connect } from "./orbit.js";

const [name] = process.argv.slice(2);
const orbit = await connect();

if (!name) {
  const { cursor } = await orbit.call("events.list", { limit: 0 }); // first, so that nothing is missed
  const { sessions } = await orbit.call("session.list");
  for (const { id, name, status, title } of sessions) console.log(id, name ?? "-", status, title ?? "");
  await orbit.subscribe({ since: cursor }, ({ kind, session_id, data }) => console.log(kind, session_id ?? "", data));
} else {
  const { id } = await orbit.call("session.find", { ref: name });
  orbit.close();
  const { stdin, stdout } = process;
  const size = () => ({ cols: stdout.columns ?? 80, rows: stdout.rows ?? 24 });
  const window = await orbit.attach(id, { ...size(), start: true }, stdout);
  stdin.setRawMode?.(true);
  stdin.on("data", (keys) => (keys.includes(0x1c) ? window.close() : window.write(keys).catch(() => {})));
  stdout.on("resize", () => window.resize(size().cols, size().rows).catch(() => {}));
  window.once("end", (how, what) => {
    stdin.setRawMode?.(false);
    console.log(`\r\n[${how} ${name}]`, what ?? "");
    process.exit(what?.exit_code ?? 0);
  });
}
