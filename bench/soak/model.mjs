// What a client may conclude from the answers it got, one model for each kind of thing the soak keeps.
//
// An answer of success is acknowledged: it must hold at the end. A 503 says nothing: it may have happened or not.

/** The value under one key: everything it may be. One writer at a time. */
export class Register {
  possible = new Set([undefined]);
  isBusy = false;

  acknowledged(value) {
    this.possible = new Set([value]);
  }

  unknown(value) {
    this.possible.add(value);
  }
}

/** A sum of increments, each of which is repeated with its key until it is acknowledged. */
export class Sum {
  acknowledged = 0;
}

/** Sessions by their token: alive, dead, or not known. */
export class Tokens {
  alive = [];
  dead = [];

  /** Takes one that is alive out of the pool, so that nobody else uses it meanwhile. */
  take(random) {
    if (this.alive.length === 0) return undefined;
    const at = Math.floor(random() * this.alive.length);
    const [token] = this.alive.splice(at, 1, this.alive.at(-1));
    this.alive.pop();
    return token;
  }
}

/** Fencing tokens of one lock: each greater than every one before. */
export class Fence {
  #greatest = -1n;

  /** Whether `token`, granted after the last one was, is greater. */
  admits(token) {
    const number = BigInt(token);
    const isGreater = number > this.#greatest;
    if (isGreater) this.#greatest = number;
    return isGreater;
  }
}
