// Pictures on their way to the server: a few at once, and where it is full it is left alone for as long as it asks.
export const TOP = 5; // classes that are told of each picture
const AT_ONCE = 4; // requests: a browser allows six to one server
const TRIES = 5; // where it does not answer at all
const PATIENCE = 60; // s, the longest wait between tries

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

export class Sending {
  // told(row): a row has its record; waiting(seconds): the server is full; denied(): it asks for a token
  constructor({ told, waiting, denied }) {
    Object.assign(this, { told, waiting, denied, queue: [], working: 0, model: "", token: "", closed: false, round: 0, freeAt: 0 });
  }

  get headers() { return this.token ? { authorization: `Bearer ${this.token}` } : {}; }

  get busy() { return this.queue.length > 0 || this.working > 0; }

  add(rows) {
    this.queue.push(...rows);
    this.go();
  }

  // Forget what waits; answers that are still on their way belong to the round before.
  stop() {
    const left = this.queue;
    this.queue = [];
    this.round++;
    return left;
  }

  allow(token) {
    this.token = token;
    this.closed = false;
    this.go();
  }

  go() {
    while (!this.closed && this.working < AT_ONCE && this.queue.length) this.work(this.queue.shift());
  }

  async work(row) {
    this.working++;
    const round = this.round, record = await this.answer(row, () => round !== this.round);
    this.working--;
    if (round === this.round) {
      if (record === null) this.queue.unshift(row); // a token first
      else this.told(row, record);
    }
    this.go();
  }

  // The record of one picture; null where a token is asked for.
  async answer(row, given_up) {
    const failed = (error) => ({ path: row.path, error });
    let body;
    try { body = row.file && (await row.file.arrayBuffer()); } catch { body = null; }
    if (!body) return failed("the file cannot be read");
    for (let tries = 1; ; ) {
      await this.free();
      if (given_up()) return failed("stopped");
      const address = `predict?${new URLSearchParams({ ...(this.model && { model: this.model }), top: TOP, ...(row.masked && { masks: 1 }) })}`;
      let answer;
      try {
        answer = await fetch(address, { method: "POST", body, headers: { "content-type": "application/octet-stream", accept: "application/json", ...this.headers } });
      } catch {
        if (tries++ >= TRIES) return failed("the server does not answer");
        await pause(2 ** (tries - 2));
        continue;
      }
      if (answer.status === 401) return this.deny();
      if (answer.status === 429 || answer.status === 503) {
        await answer.text(); // its connection is free again
        this.wait(Number(answer.headers.get("retry-after")) || 1);
        continue;
      }
      const said = await answer.json().catch(() => null);
      if (!answer.ok) return failed(reason(said) ?? `the server answered ${answer.status}`);
      return Array.isArray(said) && said[0] ? { ...said[0], path: row.path } : failed("the server answered with something else");
    }
  }

  // The picture with what is odd about it, or in words why there is none.
  async heat(row) {
    const address = `heat?${new URLSearchParams({ model: this.model })}`, headers = { "content-type": "application/octet-stream", ...this.headers };
    try {
      const answer = await fetch(address, { method: "POST", body: await row.file.arrayBuffer(), headers });
      if (answer.ok) return await answer.blob();
      return reason(await answer.json().catch(() => null)) ?? `The server answered ${answer.status}.`;
    } catch { return "The server does not answer."; }
  }

  deny() {
    if (!this.closed) this.denied();
    this.closed = true;
    return null;
  }

  wait(seconds) {
    const least = Math.min(PATIENCE, seconds) * (1 + Math.random() / 4); // not all at the same moment
    this.freeAt = Math.max(this.freeAt, Date.now() + 1000 * least);
    this.waiting(least);
  }

  async free() {
    while (Date.now() < this.freeAt) await pause((this.freeAt - Date.now()) / 1000);
  }
}

// What a refusal says, in the forms in which servers say it.
export function reason(said) {
  const text = said?.error ?? said?.detail ?? said?.message;
  if (Array.isArray(text)) return text.map((one) => one.msg ?? String(one)).join("; ");
  return typeof text === "string" ? text : undefined;
}
