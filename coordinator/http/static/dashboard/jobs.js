// The list of jobs, by state and run.

import { html, useState } from "./vendor/preact-htm.js";
import { usePolled } from "./api.js";
import { JobTable, Polled } from "./parts.js";

const STEP = 50;
const MOST = 1_000;
const CHOICES = {
  all: [],
  active: ["queued", "assigned", "running"],
  "not passed": ["failed", "errored", "timed_out"],
  completed: ["completed"],
  cancelled: ["cancelled"],
};

export function Jobs() {
  const [choice, setChoice] = useState("all");
  const [run, setRun] = useState("");
  const [limit, setLimit] = useState(STEP);
  const query = new URLSearchParams([["limit", limit], ["history", "false"], ...CHOICES[choice].map((state) => ["status", state])]);
  if (run.trim()) query.set("run", run.trim());
  const choose = (name) => () => {
    setChoice(name);
    setLimit(STEP);
  };
  return html`
    <h1>Jobs</h1>
    <div class="choices" role="group" aria-label="State">
      ${Object.keys(CHOICES).map((name) => html`
        <button key=${name} aria-pressed=${name === choice} onClick=${choose(name)}>${name}</button>`)}
      <label>Run <input value=${run} placeholder="any" maxlength="128" onInput=${(event) => setRun(event.target.value)} /></label>
    </div>
    <${Polled} seen=${usePolled(`/jobs?${query}`)}>
      ${(jobs) => html`
        <${JobTable} jobs=${jobs} empty="No job is like that." />
        ${jobs.length === limit && limit < MOST && html`
          <button onClick=${() => setLimit(Math.min(MOST, 2 * limit))}>Show older ones</button>`}`}
    <//>`;
}
