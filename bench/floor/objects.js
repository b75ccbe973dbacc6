// The floor of an object: its one row of SQLite is read, and written where the real one writes; an alarm is set where the
// real one sets it. Nothing is decided.

class Floor {
  constructor(state, env) {
    this.state = state;
    this.env = env;
    this.sql = state.storage.sql;
    this.alarmAt = 0;
  }

  load() {
    this.sql.exec("CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY CHECK (id = 1), json TEXT NOT NULL)");
    return this.sql.exec("SELECT json FROM kept").toArray()[0]?.json;
  }

  save(json) {
    this.sql.exec("INSERT INTO kept VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET json = excluded.json", json);
  }

  async wake(at) {
    if (this.alarmAt > Date.now()) return;
    this.alarmAt = at;
    await this.state.storage.setAlarm(at);
  }
}

/** Adds one; a snapshot goes to KV once a second. */
export class Counter extends Floor {
  async fetch() {
    const value = Number(this.load() ?? 0) + 1;
    this.save(`${value}`);
    await this.wake(Date.now() + 1000);
    return new Response(`{"value":${value}}`);
  }

  async alarm() {
    await this.env.COUNTERS.put("floor/counter-exact/hits", this.load(), { metadata: { value: 1 } });
  }
}

/** Takes one unit; forgets itself an hour later. */
export class Limiter extends Floor {
  async fetch() {
    const level = Number(this.load() ?? 0) + 1;
    this.save(`${level}`);
    await this.wake(Date.now() + 3_600_000);
    return new Response(`{"allowed":true,"remaining":${1_000_000_000 - level}}`);
  }

  async alarm() {
    await this.state.storage.deleteAll();
  }
}

/** Remembers one more lock id; releasing finds nothing to give back. */
export class Lock extends Floor {
  async fetch(request) {
    const known = this.load();
    const { id } = await request.json();
    if (id === undefined) return new Response("{}");
    this.save(JSON.stringify({ id, before: known?.slice(0, 300) }));
    await this.wake(Date.now() + 86_400_000);
    return new Response(`{"fencingToken":"${Date.now()}000000","expiresAt":${Date.now() + 60_000}}`);
  }

  async alarm() {
    await this.state.storage.deleteAll();
  }
}
