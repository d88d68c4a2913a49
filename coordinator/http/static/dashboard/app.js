// The dashboard: which view an address shows.

import { html, render, useEffect, useState } from "./vendor/preact-htm.js";
import { Job } from "./job.js";
import { Jobs } from "./jobs.js";
import { Agents, Devices } from "./lab.js";
import { Queue } from "./queue.js";

const VIEWS = [
  ["#/", "Queue", Queue],
  ["#/jobs", "Jobs", Jobs],
  ["#/devices", "Devices", Devices],
  ["#/agents", "Agents", Agents],
];

function Dashboard() {
  const [address, setAddress] = useState(location.hash || "#/");
  useEffect(() => {
    const go = () => setAddress(location.hash || "#/");
    addEventListener("hashchange", go);
    return () => removeEventListener("hashchange", go);
  }, []);
  const job = address.match(/^#\/jobs\/([1-9][0-9]{0,18})$/);
  const chosen = VIEWS.find(([path]) => path === (job ? "#/jobs" : address));
  useEffect(() => {
    document.title = job ? `Job ${job[1]} - qgjob` : `${chosen ? chosen[1] : "Not found"} - qgjob`;
  });
  return html`
    <header>
      <strong>qgjob</strong>
      <nav>
        ${VIEWS.map(([path, name]) => html`
          <a key=${path} href=${path} aria-current=${chosen?.[0] === path ? "page" : null}>${name}</a>`)}
        <a href="/docs">API</a>
      </nav>
    </header>
    <main>${view(job, chosen)}</main>`;
}

function view(job, chosen) {
  if (job) return html`<${Job} key=${job[1]} id=${job[1]} />`;
  if (chosen) return html`<${chosen[2]} />`;
  return html`<p>There is no such page. <a href="#/">Show the queue</a></p>`;
}

render(html`<${Dashboard} />`, document.getElementById("dashboard"));
