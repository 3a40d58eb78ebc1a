// One WebSocket to `orbitctl web`, which is one connection to orbitd: JSON-RPC calls, notifications, and flow control.
// It connects again by itself until it is closed, over a restart of orbitd and of the network.

const FIRST_DELAY = 20; // ms
const LAST_DELAY = 2000;
const REPORT_CHARACTERS = 1 << 16; // of messages, after which the bridge is told that they have been used up

/** An error that a call was answered with, or "disconnected". */
export class CallError extends Error {
  constructor(message, { code = 0, data = {} } = {}) {
    super(message);
    this.code = code;
    this.kind = data?.kind ?? "disconnected";
    this.hint = data?.hint ?? "";
    this.data = data;
  }
}

/** Return what the token is for, `{read_only}`; null where it is not valid (any more). Throws where nobody answers. */
export async function access(token) {
  const answer = await fetch("/access", { headers: { authorization: `Bearer ${token}` } });
  return answer.ok ? answer.json() : null;
}

export class Connection {
  #token;
  #socket = null;
  #calls = new Map();
  #lastId = 0;
  #delay = FIRST_DELAY;
  #timer = 0;
  #isClosed = false;
  #wasOpen = false;
  #used = 0; // messages, since the last report
  #usedCharacters = 0;

  /**
   * @param {string} token
   * @param {{onOpen: () => void, onLost: (reason: string) => void, onRefused: () => void,
   *          onNotice: (method: string, params: object, done: () => void) => void}} handlers
   *   `onNotice` calls `done` once it has used a notification up: until then it counts as on the way, and when too much
   *   is, orbitd stops sending output and draws the screen again later.
   */
  constructor(token, handlers) {
    this.#token = token;
    this.handlers = handlers;
    this.#connect();
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Call a method. Rejects with a CallError. */
  call(method, params = {}) {
    if (!this.isOpen) return Promise.reject(new CallError("not connected"));
    const id = ++this.#lastId;
    this.#socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    return new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }));
  }

  /** Call a method that lists, page by page, and return all entries. */
  async list(method, field, params = {}) {
    const found = [];
    let cursor;
    do {
      const page = await this.call(method, cursor ? { ...params, cursor } : params);
      found.push(...page[field]);
      cursor = page.next_cursor;
    } while (cursor);
    return found;
  }

  /** Close it for good. */
  close() {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#socket?.close();
  }

  #connect() {
    // The token is no part of the URL, so that it stands in no log; a WebSocket has no other header to choose.
    const socket = new WebSocket(`ws://${location.host}/socket`, ["orbit", `token.${this.#token}`]);
    this.#socket = socket;
    this.#used = this.#usedCharacters = 0;
    socket.onopen = () => {
      this.#wasOpen = true;
      this.handlers.onOpen();
    };
    socket.onmessage = ({ data }) => this.#receive(socket, data);
    socket.onclose = ({ reason }) => this.#lost(reason);
  }

  #receive(socket, text) {
    this.#delay = FIRST_DELAY; // orbitd answers
    const message = JSON.parse(text);
    const done = () => this.#report(socket, text.length);
    if (message.method) {
      this.handlers.onNotice(message.method, message.params, done);
      return;
    }
    const call = this.#calls.get(message.id);
    this.#calls.delete(message.id);
    if (message.error) call?.reject(new CallError(message.error.message, message.error));
    else call?.resolve(message.result);
    done();
  }

  #report(socket, characters) {
    if (socket !== this.#socket || socket.readyState !== WebSocket.OPEN) return;
    this.#used += 1;
    this.#usedCharacters += characters;
    if (this.#usedCharacters < REPORT_CHARACTERS) return;
    socket.send(`{"received": ${this.#used}}`);
    this.#used = this.#usedCharacters = 0;
  }

  #lost(reason) {
    for (const { reject } of this.#calls.values()) reject(new CallError("the connection was lost"));
    this.#calls.clear();
    if (this.#isClosed) return;
    this.handlers.onLost(reason);
    this.#timer = setTimeout(() => this.#again(), this.#delay);
    this.#delay = Math.min(this.#delay * 2, LAST_DELAY);
  }

  async #again() {
    // A WebSocket does not say why it was refused; one that was open has only lost its orbitd.
    if (!this.#wasOpen && !(await this.#mayCome())) return;
    this.#wasOpen = false;
    if (!this.#isClosed) this.#connect();
  }

  /** Return whether the token is valid; where nobody answers, ask again later. */
  async #mayCome() {
    try {
      if ((await access(this.#token)) !== null) return true;
      this.#isClosed = true;
      this.handlers.onRefused();
    } catch {
      this.#lost("");
    }
    return false;
  }
}

/** Return base64 as bytes. */
export function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
  return bytes;
}

/** Return bytes as base64. */
export function base64Of(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) {
    text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return btoa(text);
}
