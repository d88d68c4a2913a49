// Calls of the coordinator: JSON, problems, tokens, and events that go on where a broken connection ended.

import { useEffect, useState } from "./vendor/preact-htm.js";

const TOKEN = "qgjob-token";
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

/** A refusal of the coordinator, in its own words. */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the coordinator answered with ${status}`);
    this.status = status;
    this.reason = problem.reason || "";
  }
}

/** Keep a token for as long as this tab is open; an empty one forgets it. */
export function keepToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN) !== null;
}

export async function call(path, { headers = {}, ...options } = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const access = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { ...options, headers: { ...headers, ...access } });
  if (!answer.ok && answer.status !== 304) throw new Refusal(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

/** What is seen of a path where a look went wrong: its own data from before, and nothing of another path. */
export function unanswered(before, path, error) {
  return { path, data: before.path === path ? before.data : null, error };
}

/** Look at a path again and again while somebody sees the page; returns what was seen last, and what went wrong. */
export function usePolled(path, everyMs = 2_000) {
  const [seen, setSeen] = useState({ path, data: null, error: null });
  useEffect(() => {
    const leaving = new AbortController();
    let timer = 0;
    let tag = "";
    async function look() {
      try {
        if (!document.hidden) {
          const answer = await call(path, { signal: leaving.signal, headers: tag ? { "If-None-Match": tag } : {} });
          const isNew = answer.status !== 304;
          const data = isNew ? await answer.json() : null;
          if (isNew) tag = answer.headers.get("ETag") ?? "";
          // What has not changed is painted again too: how long ago something was has.
          setSeen((before) => ({ path, data: isNew ? data : before.data, error: null }));
        }
      } catch (error) {
        if (!leaving.signal.aborted) setSeen((before) => unanswered(before, path, error));
      }
      if (!leaving.signal.aborted) timer = setTimeout(look, everyMs);
    }
    look();
    return () => {
      leaving.abort();
      clearTimeout(timer);
    };
  }, [path, everyMs]);
  return seen.path === path ? seen : { path, data: null, error: null };
}

/** Yield the server-sent events of a stream of bytes. */
export async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  let event = { name: "", id: "", data: [] };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (held + value).split("\n");
    held = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data.length) yield { ...event, data: event.data.join("\n") };
        event = { name: "", id: "", data: [] };
        continue;
      }
      const [, field, text] = line.match(/^([^:]*):? ?(.*)$/s);
      if (field === "event") event.name = text;
      else if (field === "id") event.id = text;
      else if (field === "data") event.data.push(text);
    }
  }
}

/**
 * Follow events to their end. A connection that breaks is opened again after the last event that was read.
 *
 * Throws a `Refusal` when the coordinator will not tell them.
 */
export async function follow(path, { signal, onEvent, onLost }) {
  let last = "";
  let pause = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    try {
      const resumed = last ? { "Last-Event-ID": last } : {};
      const answer = await call(path, { signal, headers: { Accept: "text/event-stream", ...resumed } });
      if (answer.status === 204) return;
      for await (const event of eventsOf(answer.body)) {
        last = event.id || last;
        pause = FIRST_PAUSE_MS;
        onEvent(event);
        if (event.name === "end") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refusal && error.status < 500) throw error;
    }
    onLost();
    await new Promise((resume) => setTimeout(resume, pause));
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
}
