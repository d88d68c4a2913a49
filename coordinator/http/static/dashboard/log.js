// A job's log, as it comes.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { follow } from "./api.js";
import { Save } from "./parts.js";

const MOST_LINES = 5_000;
const PAINT_MS = 100;
const NO_LOG = "there is no log";
const NEAR_END_PX = 40;
const CONTROL = /\x1b(?:\[[0-?]*[ -\/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)|[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;

/** Return the lines that an event adds. */
export function linesOf(event) {
  if (event.name === "attempt") {
    const { attempt, log } = JSON.parse(event.data);
    if (log === "open") return attempt > 1 ? [`--- attempt ${attempt} ---`] : [];
    return log === "truncated" ? [`--- the rest of the log of attempt ${attempt} never came ---`] : [];
  }
  return event.name ? [] : event.data.replace(CONTROL, "").split("\n");
}

export function Log({ id }) {
  const [shown, setShown] = useState({ lines: [], hidden: 0, state: "waiting for the first line" });
  const box = useRef(null);
  const isAtEnd = useRef(true);

  useEffect(() => {
    const leaving = new AbortController();
    let lines = [];
    let hidden = 0;
    let state = "waiting for the first line";
    let timer = 0;
    const paint = () => {
      timer = 0;
      setShown({ lines: [...lines], hidden, state });
    };
    const soon = () => {
      timer ||= setTimeout(paint, PAINT_MS);
    };
    const onEvent = (event) => {
      lines.push(...linesOf(event));
      const excess = Math.max(0, lines.length - MOST_LINES);
      lines = excess ? lines.slice(excess) : lines;
      hidden += excess;
      state = event.name !== "end" ? "live" : lines.length ? "the log is complete" : NO_LOG;
      soon();
    };
    const onLost = () => {
      state = "connection lost, trying again";
      soon();
    };
    follow(`/jobs/${id}/logs?follow=true`, { signal: leaving.signal, onEvent, onLost }).catch((error) => {
      state = error.message;
      soon();
    });
    return () => {
      leaving.abort();
      clearTimeout(timer);
    };
  }, [id]);

  useEffect(() => {
    if (isAtEnd.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [shown]);

  const onScroll = ({ target }) => {
    isAtEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR_END_PX;
  };
  return html`
    <p class="quiet" role="status">
      ${shown.state}${shown.hidden > 0 && `; the first ${shown.hidden} lines are left out here`}
      ${" "}${shown.lines.length > 0 && html`<${Save} path=${`/jobs/${id}/logs`} name=${`job-${id}.log`}>Save the log<//>`}
    </p>
    <pre hidden=${shown.state === NO_LOG} class="log" ref=${box} onScroll=${onScroll} tabindex="0" aria-label="Log of job ${id}">${shown.lines.join("\n")}</pre>`;
}
