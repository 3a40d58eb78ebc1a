// A session in a terminal of xterm.js. What a client has to keep to is all here:
//  - one connection for each terminal, so that a flood of one holds up nothing else;
//  - `repaint` may be written to a terminal in any state;
//  - what xterm.js has not drawn yet counts as on the way (`done`), which is the flow control;
//  - what is typed while there is no connection is lost, and shown to be: nothing is typed twice.

import { FitAddon } from "/vendor/addon-fit.mjs";
import { Unicode11Addon } from "/vendor/addon-unicode11.mjs";
import { Terminal } from "/vendor/xterm.mjs";
import { Connection, base64Of, bytesOf } from "/connection.js";
import { colours } from "/themes.js";

const HISTORY_LINES = 10000;
const FIRST_LINES = 300; // of history, with the first picture; the rest follows when that has been drawn
const PIECE_BYTES = 1 << 16; // of what is pasted
const SETTLED = 150; // ms without a resize or a gap, after which the history is drawn again
const MAX_CLIPBOARD = 1 << 20;
const RESET = "\x18\x1bc"; // whatever sequence had begun is cancelled; RIS of xterm.js clears the history, too

export class SessionTerminal {
  #connection = null;
  #attachment = 0;
  #settled = 0;
  isDrawn = false; // whether there has been a picture
  #isAttached = false;
  #isFramed = false;
  #observer;

  /**
   * @param {HTMLElement} element  What it fills.
   * @param {{token: string, readOnly: boolean, id: string, theme: object, fontSize: number}} options
   * @param {{onState: (state: string, detail?: object) => void, onProblem: (message: string) => void,
   *          onDrawn: () => void, onLeave: () => void, onRefused: () => void}} handlers
   *   States: connecting, attached, lost, stopped (the session does not run), ended, detached.
   */
  constructor(element, options, handlers) {
    this.options = options;
    this.handlers = handlers;
    this.xterm = new Terminal({
      allowProposedApi: true, // for the widths of Unicode 11, which orbitd's terminal has
      cursorBlink: false,
      disableStdin: options.readOnly,
      fontFamily: "ui-monospace, 'SF Mono', 'Cascadia Mono', Menlo, 'DejaVu Sans Mono', 'Liberation Mono', monospace",
      fontSize: options.fontSize,
      macOptionIsMeta: true,
      scrollback: HISTORY_LINES,
      theme: options.theme,
    });
    this.fit = new FitAddon();
    this.xterm.loadAddon(this.fit);
    this.xterm.loadAddon(new Unicode11Addon());
    this.xterm.unicode.activeVersion = "11";
    this.xterm.open(element);
    element.terminal = this.xterm; // for scripts of the page, and its tests
    this.fit.fit();
    this.xterm.onData((text) => this.#type(new TextEncoder().encode(text)));
    this.xterm.onBinary((text) => this.#type(Uint8Array.from(text, (one) => one.charCodeAt(0))));
    this.xterm.onResize(({ cols, rows }) => this.#resized(cols, rows));
    this.xterm.parser.registerOscHandler(52, (data) => this.#copy(data));
    this.xterm.attachCustomKeyEventHandler((event) => this.#key(event));
    this.#observer = new ResizeObserver(() => this.fit.fit());
    this.#observer.observe(element);
    this.#connection = new Connection(options.token, {
      onOpen: () => this.attach(),
      onLost: () => {
        this.#isAttached = this.isDrawn = false;
        handlers.onState("lost");
      },
      onRefused: handlers.onRefused,
      onNotice: (method, params, done) => this.#notice(method, params, done),
    });
    handlers.onState("connecting");
  }

  /** Attach, or attach again; with `start`, run the program where it does not run. */
  async attach({ start = false } = {}) {
    const { id, readOnly, theme } = this.options;
    const attachment = `${++this.#attachment}`;
    const { cols, rows } = this.xterm;
    try {
      const { repaint, session, history_line: lines } = await this.#connection.call("session.attach", {
        id, cols, rows, attachment_id: attachment, scrollback_lines: FIRST_LINES, read_only: readOnly,
        ...(readOnly ? {} : { terminal: colours(theme), start }),
      });
      this.#isAttached = true;
      this.#isFramed = session.cols !== cols || session.rows !== rows;
      this.#draw(repaint);
      this.handlers.onState("attached", { framed: this.#isFramed, cols: session.cols, rows: session.rows });
      if (this.xterm.cols !== cols || this.xterm.rows !== rows) this.#resized(this.xterm.cols, this.xterm.rows);
      else if (lines > FIRST_LINES) this.#settle();
    } catch (error) {
      if (error.kind === "disconnected") return; // it is connected again, and attached then
      if (error.kind === "not_running") await this.#showSaved();
      else this.handlers.onState("detached", { message: error.message, hint: error.hint });
    }
  }

  setTheme(theme) {
    this.options.theme = theme;
    this.xterm.options.theme = theme;
  }

  focus() {
    this.xterm.focus();
  }

  close() {
    clearTimeout(this.#settled);
    this.#observer.disconnect();
    this.#connection.close();
    this.xterm.dispose();
  }

  /** Draw a picture with its history on an empty terminal. All of it is written, so that it is in order with output. */
  #draw(repaint) {
    this.xterm.write(RESET);
    this.xterm.write(bytesOf(repaint), () => {
      if (!this.isDrawn) this.handlers.onDrawn();
      this.isDrawn = true;
    });
  }

  /** Show the screen that was saved of a session that does not run. */
  async #showSaved() {
    const { id } = this.options;
    try {
      const { data } = await this.#connection.call("session.screen", { id, format: "text" });
      this.xterm.write(`${RESET}\x1b[?25l${data.trimEnd().replaceAll("\n", "\r\n")}`);
    } catch (error) {
      if (error.kind === "disconnected") return;
      this.xterm.write(`${RESET}\x1b[?25l`); // there is none
    }
    this.isDrawn = true;
    this.handlers.onDrawn();
    this.handlers.onState("stopped");
  }

  #notice(method, params, done) {
    if (params.attachment_id !== `${this.#attachment}`) return done();
    if (method === "session.output") {
      this.xterm.write(bytesOf(params.data), done);
      return undefined;
    }
    if (method === "session.repaint") {
      this.#repainted(params, done);
      return undefined;
    }
    if (method === "session.exited") {
      this.#isAttached = false;
      this.handlers.onState("ended", params);
    } else if (method === "session.detached") {
      this.#isAttached = false;
      this.handlers.onState("detached", {});
    }
    return done();
  }

  #repainted({ data, reason, cols, rows }, done) {
    this.xterm.write(bytesOf(data), done);
    const isFrame = reason === "frame";
    // After another size or a gap the window's own history has lines twice, or not at all: orbitd has all of them.
    if (!isFrame) this.#settle();
    if (isFrame !== this.#isFramed) {
      this.#isFramed = isFrame;
      this.handlers.onState("attached", { framed: isFrame, cols, rows });
    }
  }

  #settle() {
    clearTimeout(this.#settled);
    this.#settled = setTimeout(async () => {
      if (!this.#isAttached || this.#isFramed) return;
      const attachment = `${this.#attachment}`;
      try {
        const { repaint } = await this.#connection.call("session.refresh", {
          attachment_id: attachment, scrollback_lines: HISTORY_LINES,
        });
        this.#draw(repaint);
      } catch {
        // it has ended, or is attached again, which draws everything
      }
    }, SETTLED);
  }

  #resized(cols, rows) {
    if (!this.#isAttached) return;
    this.#connection.call("session.resize", { attachment_id: `${this.#attachment}`, cols, rows }).catch(() => {});
    if (!this.#isFramed) this.#settle();
  }

  #type(bytes) {
    if (this.options.readOnly || !this.#isAttached) return;
    for (let start = 0; start < bytes.length; start += PIECE_BYTES) {
      const data = base64Of(bytes.subarray(start, start + PIECE_BYTES));
      this.#connection.call("session.input", { attachment_id: `${this.#attachment}`, data }).catch((error) => {
        if (error.kind !== "disconnected" && error.kind !== "not_running") this.handlers.onProblem(error.message);
      });
    }
  }

  /** OSC 52: a program may set the clipboard of the user who types into it, and read nobody's. */
  #copy(data) {
    const text = data.slice(data.indexOf(";") + 1);
    if (this.options.readOnly || text === "?" || text.length > MAX_CLIPBOARD) return true;
    try {
      navigator.clipboard.writeText(new TextDecoder().decode(bytesOf(text))).catch(() => {});
    } catch {
      // no base64, or no clipboard here
    }
    return true;
  }

  /** Return whether xterm.js takes a key. */
  #key(event) {
    if (event.type !== "keydown" || !event.ctrlKey || !event.shiftKey) return true;
    const key = event.key.toLowerCase();
    if (key === "v") return false; // the browser pastes
    if (key === "l") {
      event.preventDefault();
      this.handlers.onLeave();
      return false;
    }
    if (key === "c") {
      event.preventDefault();
      const text = this.xterm.getSelection();
      if (text) navigator.clipboard?.writeText(text).catch(() => {});
      return false;
    }
    return true;
  }
}
