// A client of Node.js that shows a session's output as fast as it comes: `node node_client.mjs ORBIT_JS SESSION`.
//
// Each line of its standard input is a number: it is typed, and answered with the seconds until `run-NUMBER-is-over`
// has been shown, and how many bytes were shown by then.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [script, session] = process.argv.slice(2);
const { connect } = await import(pathToFileURL(script));

let mark = "";
let tail = "";
let shown = 0;
let isShown = () => {};
const terminal = {
  write(bytes, done) {
    shown += bytes.length;
    const text = tail + bytes.subarray(-64).toString("latin1");
    tail = text.slice(-64);
    if (mark && text.includes(mark)) isShown();
    done();
  },
};

const orbit = await connect({ start: false });
const window = await orbit.attach(session, { cols: 80, rows: 24 }, terminal);
for await (const number of createInterface({ input: process.stdin })) {
  mark = `run-${number}-is-over`;
  shown = 0;
  const over = new Promise((resolve) => (isShown = resolve));
  const begun = performance.now();
  window.write(`${number}\r`).catch(() => {});
  await over;
  console.log((performance.now() - begun) / 1000, shown);
}
window.close();
orbit.close();
