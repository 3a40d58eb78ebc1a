// What the daemon says of itself: by the judgement of OpenRPC's own library, and of TypeScript.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import openrpc from "@open-rpc/schema-utils-js";

import * as exported from "../orbit.js";
import { run, runningDaemon } from "./daemon.js";

const TIMEOUT = { timeout: 120_000 };
const folder = fileURLToPath(new URL("..", import.meta.url));
const daemon = runningDaemon();

test("the description keeps OpenRPC's meta-schema, and every reference in it is found", TIMEOUT, async () => {
  const orbit = await exported.connect({ env: daemon.env });
  const document = await orbit.call("rpc.discover");
  orbit.close();
  assert.equal(openrpc.validateOpenRPCDocument(document), true);
  const parsed = await openrpc.parseOpenRPCDocument(structuredClone(document));
  const create = parsed.methods.find(({ name }) => name === "session.create");
  assert.deepEqual(create.params[0].schema.properties.session_type.enum, ["local", "ssh"]);
  assert.ok(document["x-notifications"].some(({ name }) => name === "session.output"));
  assert.ok(document["x-events"].some(({ kind }) => kind === "session.exited"));
});

test("the types fit the client, and calls that are wrong are found", TIMEOUT, async () => {
  await run(process.execPath, ["node_modules/typescript/bin/tsc", "--noEmit", "-p", "."], { cwd: folder }).catch(
    ({ stdout }) => assert.fail(stdout),
  );
});

test("orbit.js exports what its types declare", TIMEOUT, () => {
  assert.deepEqual(Object.keys(exported).sort(), ["Attachment", "Orbit", "OrbitError", "Subscription", "connect", "socketPaths"]);
});
