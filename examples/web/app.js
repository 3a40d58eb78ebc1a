// The page of `orbitctl web`: the list of sessions, which follows `events.subscribe`, and one terminal.

import { Connection, access } from "/connection.js";
import { THEMES, colours } from "/themes.js";

const PREVIEWS_AT_ONCE = 3;
const LONG_COMMAND_SECS = 30; // after which its end is worth a notification
const TOAST_MS = 8000;
const NOTIFIED = ["terminal.notification", "terminal.bell", "command.finished", "session.disconnected"];
const STATUSES = ["active", "detached", "terminated"];

const $ = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 720px)");
const theme = () => (dark.matches ? THEMES.dark : THEMES.light);

let token = "";
let isReadOnly = true;
let control = null; // the connection of the list
let terminal = null; // of the session that is shown
const loading = import("/terminal.js"); // with xterm.js, which is half a megabyte: the list does not wait for it
const sessions = new Map();
const workspaces = new Map();
const cards = new Map(); // by session
const wanted = new Set(); // previews to be drawn
let drawing = 0;

/** Return an element with properties and children. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const nameOf = (session) => session.name || session.title || session.config.command || session.id.slice(0, 8);
const shownId = () => new URLSearchParams(location.hash.slice(1)).get("session");

// ---------------------------------------------------------------- the beginning

async function begin() {
  const place = new URLSearchParams(location.hash.slice(1));
  if (place.has("token")) {
    // Out of the address bar and the history: what stands there is seen, synchronized and pasted. It stays in this tab.
    sessionStorage.setItem("token", place.get("token"));
    place.delete("token");
    history.replaceState(null, "", place.size ? `#${place}` : location.pathname);
  }
  token = sessionStorage.getItem("token") ?? "";
  let granted = null;
  try {
    granted = token && (await access(token));
  } catch {
    setState("lost", "orbitctl web does not answer");
    setTimeout(begin, 1000);
    return;
  }
  if (!granted) {
    refused();
    return;
  }
  isReadOnly = granted.read_only;
  $("read-only").hidden = !isReadOnly;
  $("new").hidden = isReadOnly;
  document.body.classList.toggle("read-only", isReadOnly);
  control = new Connection(token, {
    onOpen: load,
    onLost: () => setState("lost", "connection lost, trying again"),
    onRefused: refused,
    onNotice: (method, params, done) => {
      if (method === "event") heard(params);
      if (method === "events.ended") load(); // orbitd could not send all of them
      done();
    },
  });
  addEventListener("hashchange", showPlace);
  showPlace();
}

function refused() {
  setState("refused", "no access");
  closeTerminal();
  $("pane").hidden = true;
  $("sessions").replaceChildren(
    make("div", { className: "empty" }, make("h2", { textContent: "This link is not valid (any more)" }),
      make("p", {}, "Each run of ", make("code", { textContent: "orbitctl web" }), " has a link of its own: open the one that it prints.")),
  );
}

function setState(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
}

// ---------------------------------------------------------------- the list

/** Read everything, then follow what changes from just before that on: nothing is missed, and nothing asked for again. */
async function load() {
  try {
    const { cursor } = await control.call("events.list", { limit: 0 }).catch(withoutEvents);
    const [foundSessions, foundWorkspaces] = await Promise.all([
      control.list("session.list", "sessions", { status: STATUSES }),
      control.list("workspace.list", "workspaces"),
    ]);
    sessions.clear();
    for (const one of foundSessions) sessions.set(one.id, one);
    workspaces.clear();
    for (const one of foundWorkspaces) workspaces.set(one.id, one);
    drawList();
    for (const id of sessions.keys()) wantPreview(id);
    if (cursor) await subscribe(cursor);
    setState("connected", cursor ? "connected" : "connected, without news");
    document.body.classList.add("loaded");
  } catch (error) {
    if (error.kind === "disconnected") return; // it begins again
    if (error.kind === "cursor_expired") return void load();
    setState("lost", error.message);
  }
}

function withoutEvents(error) {
  if (error.kind === "disconnected") throw error;
  toast("No news from orbitd", `${error.message}. Reload the page to see what has changed.`);
  return {};
}

function subscribe(since) {
  // What this page shows by itself, orbitd need not.
  const handles = canNotify() && !isReadOnly ? { handles: NOTIFIED } : {};
  return control.call("events.subscribe", { since, ...handles });
}

/** Take one event. */
function heard({ kind, session_id: id, data }) {
  const [subject] = kind.split(".");
  if (subject === "workspace") heardWorkspace(kind, data);
  else if (kind === "session.deleted" || kind === "session.archived") forget(id);
  else if (subject === "session" && data?.session_type) change(id, data);
  else if (id && sessions.has(id)) heardLive(kind, id, data ?? {});
  notifyOf(kind, id, data ?? {});
}

function heardWorkspace(kind, data) {
  if (kind === "workspace.deleted") workspaces.delete(data.id);
  else workspaces.set(data.id, data);
  drawList();
}

/** Take what is never stored, or what a program says: fields of the session that have changed. */
function heardLive(kind, id, data) {
  const isSeen = terminal?.options.id === id && !isReadOnly;
  const changes = {
    "session.title": () => ({ title: data.title ?? null }),
    "session.cwd": () => ({ cwd: data.cwd ?? null }),
    "session.progress": () => ({ progress: data.state ? data : data.progress ?? null }),
    "session.output_seen": () => (isSeen ? {} : { unseen_output: true }),
    "terminal.bell": () => (isSeen ? {} : { bell: true }),
    "terminal.notification": () => (isSeen ? {} : { notification: data }),
    "command.finished": () => ({ last_command: data }),
  };
  if (changes[kind]) change(id, { ...sessions.get(id), ...changes[kind]() });
}

function change(id, session) {
  const before = sessions.get(id);
  sessions.set(id, session);
  const isMoved = !before || before.live !== session.live || before.workspace_id !== session.workspace_id;
  if (isMoved) drawList();
  else drawCard(session);
  wantPreview(id);
}

function forget(id) {
  sessions.delete(id);
  drawList();
  if (shownId() === id) {
    toast("Deleted", "The session that was shown has been deleted.");
    leave();
  }
}

/** Return sessions as they are listed: those that run first, the newest first. */
function ordered(found) {
  return found.sort((a, b) => b.live - a.live || b.created_at.localeCompare(a.created_at));
}

function drawList() {
  const list = $("sessions");
  const focused = document.activeElement?.dataset?.session;
  const sections = [];
  const groups = [...[...workspaces.values()].map((one) => [one.id, one.name]), [null, workspaces.size ? "Other sessions" : "Sessions"]];
  for (const [id, title] of groups) {
    const found = ordered([...sessions.values()].filter((one) => (workspaces.has(one.workspace_id) ? one.workspace_id : null) === id));
    if (id !== null || found.length) sections.push(drawSection(id, title, found));
  }
  if (!sections.length) {
    sections.push(make("div", { className: "empty" }, make("h2", { textContent: "No sessions yet" }),
      make("p", {}, isReadOnly ? "They appear here when somebody starts one." : "Start one with “New session”, or with ", isReadOnly ? "" : make("code", { textContent: "orbitctl new" }))));
  }
  for (const [id, card] of cards) {
    if (!sessions.has(id)) {
      visible.unobserve(card);
      cards.delete(id);
    }
  }
  list.replaceChildren(...sections);
  if (focused) cards.get(focused)?.focus();
}

function drawSection(id, title, found) {
  const head = make("div", { className: "section-head" }, make("h2", { textContent: title }), make("span", { className: "muted count", textContent: `${found.length}` }));
  if (id !== null && !isReadOnly && found.some((one) => !one.live)) {
    const open = make("button", { type: "button", textContent: "Open", title: `Start every session of ${title} that does not run` });
    open.onclick = () => openWorkspace(id, open);
    open.setAttribute("aria-label", `Open ${title}`);
    head.append(open);
  }
  const section = make("section", { className: "group" }, head, make("div", { className: "cards" }, ...found.map(drawCard)));
  section.setAttribute("aria-label", title);
  return section;
}

function newCard(id) {
  const card = make("a", { className: "card", href: `#session=${id}` });
  card.dataset.session = id;
  card.append(
    make("div", { className: "preview" }),
    make("div", { className: "text" }, make("div", { className: "line" }, make("strong", { className: "name" }), make("span", { className: "marks" })), make("div", { className: "what muted" })),
    make("div", { className: "progress", hidden: true }, make("div", {})),
  );
  cards.set(id, card);
  visible.observe(card);
  return card;
}

function drawCard(session) {
  const card = cards.get(session.id) ?? newCard(session.id);
  const isShown = shownId() === session.id;
  card.classList.toggle("shown", isShown);
  card.classList.toggle("live", session.live);
  if (isShown) card.setAttribute("aria-current", "true");
  else card.removeAttribute("aria-current");
  card.querySelector(".name").textContent = nameOf(session);
  const what = session.notification?.body || session.title || session.config.command || session.cwd || session.config.host || "";
  card.querySelector(".what").textContent = what === nameOf(session) ? session.cwd ?? "" : what;
  card.querySelector(".marks").replaceChildren(...marksOf(session).map(([kind, text]) => make("span", { className: `mark ${kind}`, textContent: text })));
  drawProgress(card.querySelector(".progress"), session.progress);
  return card;
}

/** Return the marks of a session, each a kind and a word. */
function marksOf(session) {
  const marks = [];
  if (session.notification) marks.push(["notification", "message"]);
  if (session.bell) marks.push(["bell", "bell"]);
  if (session.unseen_output) marks.push(["unseen", "new"]);
  const code = session.last_command?.exit_code;
  if (session.live && code) marks.push(["failed", `exit ${code}`]);
  if (!session.live) marks.push(endOf(session));
  else if (session.clients > 1) marks.push(["clients", `${session.clients} windows`]);
  return marks;
}

const SIGNALS = { 1: "HUP", 2: "INT", 3: "QUIT", 6: "ABRT", 9: "KILL", 11: "SEGV", 13: "PIPE", 15: "TERM" };
const signalName = (number) => `signal ${SIGNALS[number] ?? number}`;

function endOf(session) {
  if (session.status !== "terminated") return ["stopped", "stopped"];
  if (session.exit_signal) return ["failed", signalName(session.exit_signal)];
  return session.exit_code ? ["failed", `exit ${session.exit_code}`] : ["stopped", "ended"];
}

function drawProgress(bar, progress) {
  bar.hidden = !progress;
  if (!progress) return;
  bar.dataset.state = progress.state;
  bar.firstChild.style.width = progress.percent == null ? "100%" : `${progress.percent}%`;
  bar.title = progress.percent == null ? progress.state : `${progress.percent} %`;
}

// ---------------------------------------------------------------- previews

const visible = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.isSeen = isIntersecting;
    if (isIntersecting && target.isStale) wantPreview(target.dataset.session);
  }
}, { rootMargin: "200px" });

/** Draw a session's preview soon: when it is in view, and few at once, so that other calls are not held up. */
function wantPreview(id) {
  const card = cards.get(id);
  if (!card) return;
  card.isStale = true;
  if (card.isSeen === false) return;
  wanted.add(id);
  drawPreviews();
}

function drawPreviews() {
  if (shownId() && !terminal?.isDrawn) return; // what the user waits for comes first
  while (wanted.size && drawing < PREVIEWS_AT_ONCE) {
    const [id] = wanted;
    wanted.delete(id);
    const card = cards.get(id);
    if (!card || !control.isOpen) continue;
    card.isStale = false;
    drawing += 1;
    drawPreview(id, card.querySelector(".preview")).finally(() => {
      drawing -= 1;
      drawPreviews();
    });
  }
}

async function drawPreview(id, place) {
  try {
    const { data } = await control.call("session.screen", { id, format: "svg", theme: colours(theme()), cursor: false });
    // In an image nothing of it can run, load or be clicked, whatever a program has printed.
    const image = place.querySelector("img") ?? make("img", { alt: "", decoding: "async", draggable: false });
    image.src = `data:image/svg+xml,${encodeURIComponent(data)}`;
    if (!image.isConnected) place.replaceChildren(image);
  } catch (error) {
    if (error.kind === "disconnected" || error.kind === "session_not_found") return;
    if (error.kind === "snapshot_not_found") place.replaceChildren(make("span", { className: "muted", textContent: "no screen yet" }));
    else await drawText(id, place);
  }
}

/** Draw the last lines as text, where there is no picture. */
async function drawText(id, place) {
  try {
    const { data } = await control.call("session.screen", { id, format: "text" });
    const lines = data.trimEnd().split("\n").slice(-12);
    place.replaceChildren(make("pre", { textContent: lines.join("\n") }));
  } catch {
    place.replaceChildren();
  }
}

// ---------------------------------------------------------------- one session

function showPlace() {
  const id = shownId();
  document.body.classList.toggle("with-terminal", Boolean(id));
  $("pane").hidden = !id;
  for (const session of sessions.values()) drawCard(session);
  if (!id) {
    closeTerminal();
    document.title = "Orbit";
    drawPreviews();
    return;
  }
  if (terminal?.options.id === id) return;
  openTerminal(id);
}

async function openTerminal(id) {
  closeTerminal();
  drawBar(id);
  const { SessionTerminal } = await loading;
  if (shownId() !== id || terminal?.options.id === id) return; // another one has been chosen meanwhile
  closeTerminal();
  $("terminal").replaceChildren();
  $("notice").hidden = true;
  terminal = new SessionTerminal(
    $("terminal"),
    { token, readOnly: isReadOnly, id, theme: theme(), fontSize: narrow.matches ? 12 : 14 },
    {
      onState: (state, detail) => drawTerminalState(id, state, detail ?? {}),
      onProblem: (message) => toast("Not typed", message),
      onDrawn: drawPreviews,
      onLeave: () => (narrow.matches ? leave() : (cards.get(id) ?? $("sessions")).focus()),
      onRefused: refused,
    },
  );
  terminal.focus();
}

function closeTerminal() {
  terminal?.close();
  terminal = null;
}

function drawBar(id) {
  const session = sessions.get(id);
  $("name").textContent = session ? nameOf(session) : id.slice(0, 8);
  $("title").textContent = session?.title && session.title !== nameOf(session) ? session.title : "";
  document.title = `${$("name").textContent} – Orbit`;
}

const STATES = {
  connecting: () => ["connecting", ""],
  attached: ({ framed, cols, rows }) => ["", framed ? `another window has it at ${cols}×${rows}${isReadOnly ? "" : "; type to take its size"}` : ""],
  lost: () => ["connection lost, trying again", ""],
  stopped: () => ["not running", "This is its last screen."],
  ended: ({ exit_code: code, exit_signal: number }) => [number ? `ended by ${signalName(number)}` : `ended: exit ${code ?? 0}`, "The program has ended."],
  detached: ({ message, hint }) => ["detached", message ? `${message}. ${hint ?? ""}` : "It was detached from elsewhere."],
};
const BUTTONS = { stopped: "Start it", ended: "Start it again", detached: "Attach again" };

function drawTerminalState(id, state, detail) {
  drawBar(id);
  const [text, notice] = STATES[state](detail);
  const shown = $("terminal-state");
  shown.dataset.state = state;
  shown.textContent = state === "attached" && detail.framed ? notice : text;
  $("pane").dataset.state = state;
  const button = isReadOnly && state !== "detached" ? "" : BUTTONS[state] ?? "";
  $("notice").hidden = !BUTTONS[state];
  $("notice-text").textContent = notice;
  $("notice-button").hidden = !button;
  $("notice-button").textContent = button;
  $("notice-button").onclick = () => {
    $("notice").hidden = true;
    terminal.attach({ start: state !== "detached" });
    terminal.focus();
  };
}

function leave() {
  location.hash = "";
}

// ---------------------------------------------------------------- what is done with a click

async function openWorkspace(id, button) {
  button.disabled = true;
  try {
    const { failed } = await control.call("workspace.open", { id });
    for (const { session_id: one, error } of failed) toast(`${nameOf(sessions.get(one) ?? { id: one, config: {} })} did not start`, error.message);
  } catch (error) {
    toast("Not opened", `${error.message}. ${error.hint}`);
  }
  button.disabled = false;
}

async function newSession() {
  try {
    const { id } = await control.call("session.create", { config: { session_type: "local" } });
    await control.call("session.start", { id });
    location.hash = `#session=${id}`;
  } catch (error) {
    toast("Not started", `${error.message}. ${error.hint}`);
  }
}

// ---------------------------------------------------------------- notifications

const canNotify = () => globalThis.Notification?.permission === "granted";

/** Show what a user who looks elsewhere wants to know: as the desktop's notification where that is allowed. */
function notifyOf(kind, id, data) {
  const isLookedAt = terminal?.options.id === id && document.hasFocus();
  const session = sessions.get(id);
  if (!session || isLookedAt) return;
  const name = nameOf(session);
  const texts = {
    "terminal.notification": () => [data.title || name, data.title ? `${data.body} (${name})` : data.body],
    "session.disconnected": () => [name, "The session has lost its connection."],
    "command.finished": () => ((data.duration_secs ?? 0) < LONG_COMMAND_SECS ? null : [name, `${data.command ?? "A command"}: ${data.exit_code ? `exit ${data.exit_code}` : "done"}`]),
    "terminal.bell": () => (document.hasFocus() ? null : [name, "The bell has rung."]),
  };
  const text = texts[kind]?.();
  if (!text) return;
  if (canNotify() && !document.hasFocus()) {
    const shown = new Notification(text[0], { body: text[1], tag: `${id} ${kind}` });
    shown.onclick = () => {
      focus();
      location.hash = `#session=${id}`;
      shown.close();
    };
  } else {
    toast(text[0], text[1], id);
  }
}

function toast(title, body, id = null) {
  const close = make("button", { type: "button", className: "close", textContent: "×" });
  close.setAttribute("aria-label", "Close");
  const text = make(id ? "a" : "div", { className: "toast-text" }, make("strong", { textContent: title }), make("div", { textContent: body }));
  if (id) text.href = `#session=${id}`;
  const shown = make("div", { className: "toast" }, text, close);
  close.onclick = () => shown.remove();
  setTimeout(() => shown.remove(), TOAST_MS);
  $("toasts").append(shown);
  while ($("toasts").childElementCount > 4) $("toasts").firstChild.remove();
}

// ---------------------------------------------------------------- keys, colours, buttons

function moveFocus(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
  const all = [...$("sessions").querySelectorAll(".card")];
  const next = all[all.indexOf(document.activeElement) + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

dark.addEventListener("change", () => {
  terminal?.setTheme(theme());
  for (const id of sessions.keys()) wantPreview(id);
});
$("sessions").addEventListener("keydown", moveFocus);
$("skip").onclick = (event) => {
  event.preventDefault(); // its place would replace the session's
  (document.querySelector(".card") ?? $("sessions")).focus();
};
$("back").onclick = leave;
$("new").onclick = newSession;
$("notify").hidden = globalThis.Notification?.permission !== "default";
$("notify").onclick = async () => {
  await Notification.requestPermission();
  $("notify").hidden = true;
};

begin();
