// A headless Chromium for tests in Python: takes a request on each line of stdin and answers it on a line of stdout.
// playwright-core is found by NODE_PATH.

const readline = require("node:readline");
const { chromium } = require("playwright-core");

const [executablePath, profile] = process.argv.slice(2);
const args = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const WAIT_MS = 20000;
const pages = new Map();
let context;

/** Each takes a page and the request's argument. */
const actions = {
  goto: (page, url) => page.goto(url),
  reload: (page) => page.reload(),
  close: (page) => page.close(),
  back: (page) => page.goBack(),
  size: (page, [width, height]) => page.setViewportSize({ width, height }),
  scheme: (page, colorScheme) => page.emulateMedia({ colorScheme }),
  click: (page, selector) => page.click(selector),
  press: (page, keys) => page.keyboard.press(keys),
  type: (page, text) => page.keyboard.type(text),
  evaluate: (page, code) => page.evaluate(code),
  wait: waitFor,
  shot: (page, path) => page.screenshot({ path }),
  grant: (page, permissions) => context.grantPermissions(permissions),
  problems: (page) => page.problems,
  watch: (page, code) => page.addInitScript(code),
};

/** Wait until an expression is true. Playwright's own way is `eval`, which the page's policy does not allow. */
async function waitFor(page, code) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const value = await page.evaluate(code);
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not true in ${WAIT_MS} ms: ${code}`);
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
}

async function open() {
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.problems = [];
  page.on("console", (message) => message.type() === "error" && page.problems.push(message.text()));
  page.on("pageerror", (error) => page.problems.push(String(error)));
  page.on("request", (request) => {
    if (!/^(http:\/\/127\.0\.0\.1[:/]|data:)/.test(request.url())) page.problems.push(`asks for ${request.url()}`);
  });
  return page;
}

async function answer({ page: name, action, argument }) {
  if (action === "open") {
    pages.set(name, await open());
    return null;
  }
  return (await actions[action](pages.get(name), argument)) ?? null;
}

async function main() {
  context = await chromium.launchPersistentContext(profile, { executablePath, headless: true, args, viewport: { width: 1200, height: 760 } });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let result;
    try {
      const value = await answer(JSON.parse(line));
      result = { value: ["goto", "reload", "back"].includes(JSON.parse(line).action) ? null : Buffer.isBuffer(value) ? null : value };
    } catch (error) {
      result = { error: String(error) };
    }
    process.stdout.write(`${JSON.stringify(result)}\n`);
  }
  await context.close();
}

main();
