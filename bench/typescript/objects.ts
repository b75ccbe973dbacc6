// Durable Objects: each keeps its state as one row of JSON, decides in one synchronous block, and is called by RPC.

import { DurableObject } from "cloudflare:workers";
import type { Env } from "./context.ts";

const VALUE_MAX = Number.MAX_SAFE_INTEGER;
const KEY_MS = 86_400_000;
const SNAPSHOT_MS = 1000;
const FORGET_MS = 86_400_000;
const LOCK_IDS_MAX = 8;
const TOKEN_SHIFT = 20n;

class Kept<State> extends DurableObject<Env> {
  #alarmAt = 0;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    state.storage.sql.exec("CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY CHECK (id = 1), json TEXT NOT NULL)");
  }

  protected load(): State | undefined {
    const row = this.ctx.storage.sql.exec<{ json: string }>("SELECT json FROM kept").toArray()[0];
    return row === undefined ? undefined : (JSON.parse(row.json) as State);
  }

  protected save(state: State): void {
    this.ctx.storage.sql.exec("INSERT INTO kept VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET json = excluded.json", JSON.stringify(state));
  }

  /** Sets the alarm, unless one is set that comes first; one that comes too early looks again. */
  protected async wake(at: number): Promise<void> {
    if (this.#alarmAt > Date.now()) return;
    this.#alarmAt = at;
    await this.ctx.storage.setAlarm(at);
  }

  protected woken(): void {
    this.#alarmAt = 0;
  }
}

interface CounterState {
  name: string;
  value: number;
  snapshot: number;
  snapshotAt: number;
}

export class Counter extends Kept<CounterState> {
  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    state.storage.sql.exec("CREATE TABLE IF NOT EXISTS seen (key TEXT PRIMARY KEY, delta INTEGER, value INTEGER, at INTEGER)");
  }

  async add(name: string, delta: number, key: string | null): Promise<{ value: number } | "overflow" | "reused"> {
    const now = Date.now();
    const { sql } = this.ctx.storage;
    if (key !== null) {
      const seen = sql.exec<{ delta: number; value: number; at: number }>("SELECT delta, value, at FROM seen WHERE key = ?", key).toArray()[0];
      if (seen !== undefined && now < seen.at + KEY_MS) return seen.delta === delta ? { value: seen.value } : "reused";
    }
    const state = this.load() ?? { name, value: 0, snapshot: 0, snapshotAt: 0 };
    const value = state.value + delta;
    if (Math.abs(value) > VALUE_MAX) return "overflow";
    this.save({ ...state, value });
    if (key !== null) sql.exec("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", key, delta, value, now);
    await this.wake(Math.max(now, state.snapshotAt + SNAPSHOT_MS));
    return { value };
  }

  async alarm(): Promise<void> {
    this.woken();
    const state = this.load();
    if (state === undefined || state.snapshot === state.value) return;
    const { name, value } = state;
    await this.env.COUNTERS.put(name, JSON.stringify({ value }), { metadata: { value, at: Date.now() } });
    const present = this.load() ?? state;
    this.save({ ...present, snapshot: value, snapshotAt: Date.now() });
    if (present.value !== value) await this.wake(Date.now() + SNAPSHOT_MS);
  }
}

export interface Policy {
  name: string;
  limit: number;
  windowSeconds: number;
  algorithm: "fixed-window" | "token-bucket";
  updatedAt: number;
}

export interface Decision {
  allowed: boolean;
  remaining: number;
  resetSeconds: number;
}

/** Fixed window: how much of which window. Token bucket: the level at a moment. */
interface LimiterState {
  policy: Policy;
  used: number;
  at: number;
}

export class Limiter extends Kept<LimiterState> {
  async check(policy: Policy, cost: number, peek: boolean): Promise<Decision> {
    const now = Date.now();
    const known = this.load();
    const state = known === undefined || known.policy.updatedAt < policy.updatedAt ? { policy, used: known?.used ?? 0, at: known?.at ?? now } : known;
    const { limit, windowSeconds, algorithm } = state.policy;
    const windowMs = windowSeconds * 1000;
    const isFixed = algorithm === "fixed-window";
    const start = isFixed ? Math.floor(now / windowMs) * windowMs : now;
    const used = isFixed ? (state.at === start ? state.used : 0) : Math.max(0, state.used - ((now - state.at) * limit) / windowMs);
    const allowed = used + cost <= limit;
    const after = allowed && !peek ? used + cost : used;
    if (allowed && !peek) {
      this.save({ policy: state.policy, used: after, at: start });
      await this.wake(now + windowMs);
    }
    const resetMs = isFixed ? start + windowMs - now : (after * windowMs) / limit;
    return { allowed, remaining: Math.floor(limit - after), resetSeconds: Math.ceil(resetMs / 1000) };
  }

  async alarm(): Promise<void> {
    this.woken();
    const state = this.load();
    if (state === undefined) return;
    const freeAt = state.at + state.policy.windowSeconds * 1000;
    if (freeAt > Date.now()) await this.wake(freeAt);
    else await this.ctx.storage.deleteAll();
  }
}

interface LockState {
  /** The last fencing token, as decimal text. */
  token: string;
  holder: { owner: string | null; expiresAt: number; ids: string[]; key: string | null } | null;
}

export type Acquired = { fencingToken: string; expiresAt: number } | { heldBy: string | null; retryAfterSeconds: number };

export class Lock extends Kept<LockState> {
  async acquire(id: string, key: string | null, owner: string | null, ttlSeconds: number): Promise<Acquired> {
    const now = Date.now();
    const state = this.load() ?? { token: "0", holder: null };
    const live = state.holder !== null && now < state.holder.expiresAt ? state.holder : null;
    if (live !== null && (key === null || live.key !== key)) {
      return { heldBy: live.owner, retryAfterSeconds: Math.ceil((live.expiresAt - now) / 1000) };
    }
    if (live !== null) {
      const ids = [...live.ids, id].slice(-LOCK_IDS_MAX);
      this.save({ ...state, holder: { ...live, ids } });
      await this.wake(live.expiresAt + FORGET_MS);
      return { fencingToken: state.token, expiresAt: live.expiresAt };
    }
    const clock = BigInt(now) << TOKEN_SHIFT;
    const next = BigInt(state.token) + 1n;
    const token = (next > clock ? next : clock).toString();
    const expiresAt = now + ttlSeconds * 1000;
    this.save({ token, holder: { owner, expiresAt, ids: [id], key } });
    await this.wake(expiresAt + FORGET_MS);
    return { fencingToken: token, expiresAt };
  }

  async release(id: string): Promise<boolean> {
    const state = this.load();
    const holder = state?.holder ?? null;
    if (state === undefined || holder === null) return true;
    if (!holder.ids.includes(id)) return Date.now() >= holder.expiresAt;
    this.save({ ...state, holder: null });
    return true;
  }

  async alarm(): Promise<void> {
    this.woken();
    const state = this.load();
    if (state === undefined) return;
    const forgetAt = (state.holder?.expiresAt ?? Number(BigInt(state.token) >> TOKEN_SHIFT)) + FORGET_MS;
    if (forgetAt > Date.now()) await this.wake(forgetAt);
    else await this.ctx.storage.deleteAll();
  }
}
