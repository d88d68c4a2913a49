// Devices and agents.

import { html } from "./vendor/preact-htm.js";
import { usePolled } from "./api.js";
import { Polled, State } from "./parts.js";
import { ago } from "./words.js";

export function Devices() {
  return html`<h1>Devices</h1><${Polled} seen=${usePolled("/devices")}>${(devices) => deviceTable(devices)}<//>`;
}

function deviceTable(devices) {
  if (!devices.length) return html`<p class="quiet">No devices. Start an agent with <code>qgjob-agent run</code>.</p>`;
  return html`
    <table>
      <thead>
        <tr><th>ID</th><th>State</th><th class="wide">Kind</th><th>Job</th><th class="wide">Used</th>
        <th class="wide">Model</th><th>Reason</th></tr>
      </thead>
      <tbody>
        ${devices.map((device) => html`
          <tr key=${device.id}>
            <td class="text">${device.id}</td>
            <td><${State} of=${device.state} /></td>
            <td class="wide">${device.kind}</td>
            <td>${device.job ? html`<a href="#/jobs/${device.job}">${device.job}</a>` : "-"}</td>
            <td class="wide">${Math.round(100 * device.utilisation)}%</td>
            <td class="wide text">${device.model ? `${device.model} (${device.platform} ${device.os_version})` : "-"}</td>
            <td class="text">${device.reason || ""}</td>
          </tr>`)}
      </tbody>
    </table>`;
}

export function Agents() {
  return html`<h1>Agents</h1><${Polled} seen=${usePolled("/agents")}>${(agents) => agentTable(agents)}<//>`;
}

function agentTable(agents) {
  if (!agents.length) return html`<p class="quiet">No agents. Start one with <code>qgjob-agent run</code>.</p>`;
  return html`
    <table>
      <thead>
        <tr><th>Name</th><th>State</th><th>Devices</th><th>Batches</th><th class="wide">Lanes</th><th class="wide">Heard</th>
        <th class="wide">Host</th><th class="wide">Version</th></tr>
      </thead>
      <tbody>
        ${agents.map((agent) => html`
          <tr key=${agent.name}>
            <td class="text">${agent.name}</td>
            <td><${State} of=${agent.state} />${agent.draining && " draining"}</td>
            <td>${agent.devices}</td>
            <td>${agent.batches}</td>
            <td class="wide">${agent.lanes.join(", ")}</td>
            <td class="wide">${ago(agent.seen_time)}</td>
            <td class="wide text">${agent.host}</td>
            <td class="wide">${agent.version}</td>
          </tr>`)}
      </tbody>
    </table>`;
}
