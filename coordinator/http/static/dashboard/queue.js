// The first page: lanes, what runs, what waits, batches, and what they saved.

import { html } from "./vendor/preact-htm.js";
import { usePolled } from "./api.js";
import { JobTable, Polled } from "./parts.js";
import { counted, span, until } from "./words.js";

const MOST_LISTED = 50;

export function Queue() {
  return html`<h1>Queue</h1><${Polled} seen=${usePolled("/queues/status")}>${(status) => html`<${Status} status=${status} />`}<//>`;
}

function Status({ status }) {
  return html`
    <dl class="lanes">
      ${status.lanes.map((lane) => html`
        <div key=${lane.lane}>
          <dt>${lane.lane} priority</dt>
          <dd><strong>${lane.active}</strong> active</dd>
          <dd class="quiet">${lane.queued} queued, ${lane.running} running</dd>
        </div>`)}
      <div><dt>devices</dt>${Devices(status.devices)}</div>
    </dl>
    <p class="quiet">${facts(status).join(" · ")}</p>
    <h2>Running</h2>
    <${JobTable} jobs=${status.running.slice(0, MOST_LISTED)} empty="No job runs." />
    ${more(status.running)}
    <h2>Waiting</h2>
    <${JobTable} jobs=${status.waiting.slice(0, MOST_LISTED)} empty="No job waits." />
    ${more(status.waiting)}
    ${status.batches.length > 0 && html`<h2>Batches</h2><${Batches} batches=${status.batches} />`}
  `;
}

function Devices(states) {
  const counts = Object.entries(states);
  if (!counts.length) return html`<dd><strong>0</strong></dd><dd class="quiet">start an agent</dd>`;
  const total = counts.reduce((sum, [, count]) => sum + count, 0);
  return html`
    <dd><strong>${total}</strong> known</dd>
    <dd class="quiet">${counts.map(([state, count]) => `${count} ${state}`).join(", ")}</dd>`;
}

function facts(status) {
  const told = [];
  if (status.expected_drain_time) told.push(`expected to be empty ${until(status.expected_drain_time)}`);
  if (status.installs_avoided) {
    told.push(`time saved: ${span(status.seconds_saved)} (avoided ${counted(status.installs_avoided, "app installation")})`);
  }
  return told;
}

function more(jobs) {
  const hidden = jobs.length - MOST_LISTED;
  return hidden > 0 && html`<p class="quiet">… and ${hidden} more</p>`;
}

function Batches({ batches }) {
  return html`
    <table>
      <thead><tr><th>Device</th><th>App</th><th class="wide">Organisation</th><th>Done</th><th>To go</th></tr></thead>
      <tbody>
        ${batches.map((batch) => html`
          <tr key=${batch.device}>
            <td class="text">${batch.device}</td><td class="text">${batch.app_version_id}</td><td class="wide text">${batch.org_id}</td>
            <td>${batch.jobs_done}</td><td>${batch.jobs_left}</td>
          </tr>`)}
      </tbody>
    </table>`;
}
