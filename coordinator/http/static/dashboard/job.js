// One job: facts, why it waits, attempts, tests, and its log as it comes.

import { html, useState } from "./vendor/preact-htm.js";
import { call, usePolled } from "./api.js";
import { Artifacts } from "./artifacts.js";
import { Log } from "./log.js";
import { deviceOf, Polled, State } from "./parts.js";
import { ago, queueSeconds, ran, span, until } from "./words.js";

export function Job({ id }) {
  return html`<${Polled} seen=${usePolled(`/jobs/${id}`, 1_500)}>${(job) => html`<${Details} job=${job} />`}<//>`;
}

function Details({ job }) {
  return html`
    <h1>Job ${job.id} <${State} of=${job.status} />${job.flaky && html` <span class="quiet">flaky: it passed on a retry</span>`}</h1>
    ${job.failure_reason && html`<${Reason} reason=${job.failure_reason} />`}
    ${!job.end_time && html`<${Why} id=${job.id} />`}
    <dl class="facts">${facts(job).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
    ${job.end_time ? html`<${Retry} job=${job} />` : html`<${Cancel} job=${job} />`}
    ${job.tests.length > 0 && html`<h2>Tests</h2><${Tests} tests=${job.tests} />`}
    ${job.attempts.length > 0 && html`<h2>Attempts</h2><${Attempts} attempts=${job.attempts} />`}
    <${Artifacts} id=${job.id} />
    <h2>Log</h2>
    <${Log} key=${job.id} id=${job.id} />`;
}

function facts(job) {
  const pairs = (entries) => Object.entries(entries).map(([name, value]) => `${name}=${value}`).join(", ");
  return [
    ["Test", job.test],
    ["App version", `${job.app_version_id} of ${job.org_id}`],
    ["Priority", `${job.priority} (${job.lane} lane)`],
    ["Target", job.target],
    ["Device", deviceOf(job) && `${job.device} of agent ${job.agent}`],
    ["Submitted", `${job.create_time} (${ago(job.create_time)})`],
    ["In queue", span(queueSeconds(job))],
    ["Expected start", job.expected_start_time && until(job.expected_start_time)],
    ["Ran", ran(job)],
    ["Run", job.run],
    ["Retry of", job.retry_of && html`<a href="#/jobs/${job.retry_of}">job ${job.retry_of}</a>`],
    ["Selector", pairs(job.selector)],
    ["Labels", pairs(job.labels)],
    ["Build", job.build_digest && `sha256 ${job.build_digest.slice(0, 16)}`],
  ].filter(([, value]) => value);
}

function Reason({ reason }) {
  const blame = reason.blame ? ` (blame: ${reason.blame})` : "";
  return html`<p class="trouble"><strong>${reason.reason}</strong>${blame}<br />${reason.message}</p>`;
}

function Why({ id }) {
  const { data } = usePolled(`/jobs/${id}/why`);
  return data && html`<p class="why">${data.message}</p>`;
}

function Cancel({ job }) {
  const [told, setTold] = useState("");
  const cancel = async () => {
    if (!confirm(`Cancel job ${job.id}?`)) return;
    try {
      await call(`/jobs/${job.id}`, { method: "DELETE" });
      setTold("Cancel requested.");
    } catch (error) {
      setTold(error.status ? error.message : "The coordinator does not answer; the job was not cancelled.");
    }
  };
  if (job.cancel_requested) return html`<p class="quiet">Cancel requested.</p>`;
  return html`<p><button onClick=${cancel}>Cancel this job</button> <span role="status">${told}</span></p>`;
}

function Retry({ job }) {
  const [told, setTold] = useState("");
  // The same for each press of this page: what is repeated after a broken connection submits nothing twice.
  const [key] = useState(() => `dashboard-${Array.from(crypto.getRandomValues(new Uint32Array(4))).join("-")}`);
  const retry = async () => {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
    try {
      const answer = await call(`/jobs/${job.id}/retry`, { method: "POST", body: "{}", headers });
      location.hash = `#/jobs/${(await answer.json()).id}`;
    } catch (error) {
      setTold(error.status ? error.message : "The coordinator does not answer; try again.");
    }
  };
  return html`<p><button onClick=${retry}>Submit this job again</button> <span role="status">${told}</span></p>`;
}

function Tests({ tests }) {
  return html`
    <table>
      <thead><tr><th>State</th><th>Test</th><th>Took</th><th class="wide">Attempt</th></tr></thead>
      <tbody>
        ${tests.map((test) => html`
          <tr key=${`${test.id} ${test.attempt}`}>
            <td><${State} of=${test.status} /></td>
            <td class="text">${test.title}${test.error && html`<pre class="error">${test.error}</pre>`}</td>
            <td>${span(test.seconds)}</td>
            <td class="wide">${test.attempt}</td>
          </tr>`)}
      </tbody>
    </table>`;
}

function Attempts({ attempts }) {
  return html`
    <table>
      <thead><tr><th>Number</th><th>Outcome</th><th>Device</th><th class="wide">Started</th><th>Reason</th></tr></thead>
      <tbody>
        ${attempts.map((attempt) => html`
          <tr key=${attempt.number}>
            <td>${attempt.number}</td>
            <td>${attempt.outcome ? html`<${State} of=${attempt.outcome} />` : "-"}</td>
            <td class="text">${attempt.device}</td>
            <td class="wide">${ago(attempt.start_time)}</td>
            <td class="text">${attempt.failure_reason?.message || "-"}</td>
          </tr>`)}
      </tbody>
    </table>`;
}
