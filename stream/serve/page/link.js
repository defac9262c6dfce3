// The way to the service: requests with its token, and what changes as it changes.

const FIRST_MS = 1000, MOST_MS = 8000;

export class Refused extends Error {
  constructor(status, said) {
    super(said);
    this.status = status;
  }
}

export class Link {
  #token = "";
  #following = null;

  set token(value) {
    this.#token = value.trim();
  }

  get token() {
    return this.#token;
  }

  async open(path, signal) {
    const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    const response = await fetch(path, { headers, signal, cache: "no-store" });
    if (response.ok) return response;
    const told = await response.json().catch(() => ({}));
    throw new Refused(response.status, told.detail ?? `status ${response.status}`);
  }

  async json(path) {
    return (await this.open(path)).json();
  }

  // Calls onView with each view, and whether it is the first one of a connection, for ever.
  follow(path, onView, onTrouble) {
    this.leave();
    const mine = (this.#following = new AbortController());
    this.#follow(path, onView, onTrouble, mine.signal);
  }

  leave() {
    this.#following?.abort();
    this.#following = null;
  }

  async #follow(path, onView, onTrouble, signal) {
    let pause = FIRST_MS;
    while (!signal.aborted) {
      try {
        const response = await this.open(path, signal);
        let first = true;
        for await (const view of events(response.body)) {
          if (signal.aborted) return;
          onView(view, first);
          first = false;
          pause = FIRST_MS;
        }
        throw new TypeError("it ended");
      } catch (error) {
        if (signal.aborted) return;
        onTrouble(error);
        await new Promise((done) => setTimeout(done, pause));
        pause = Math.min(2 * pause, MOST_MS);
      }
    }
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lots = (waiting + value).split("\n\n");
      waiting = lots.pop();
      for (const lot of lots) {
        const line = lot.split("\n").find((each) => each.startsWith("data: "));
        if (line) yield JSON.parse(line.slice(6));
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
