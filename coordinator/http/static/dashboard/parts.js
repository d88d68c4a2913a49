// What several views are made of.

import { html, useState } from "./vendor/preact-htm.js";
import { call, hasToken, keepToken } from "./api.js";
import { queueSeconds, ran, span } from "./words.js";

/** A state: always its word, coloured by it. */
export function State({ of }) {
  return html`<span class="state ${of}">${of}</span>`;
}

/** What is seen of a polled path: its data, or why there is none. Old data stays while the coordinator is away. */
export function Polled({ seen, children }) {
  const refusal = seen.error?.status;
  // Without a token, 403 is about something else than whose it is.
  if (refusal === 401 || (refusal === 403 && hasToken())) return html`<${TokenForm} reason=${seen.error.message} />`;
  return html`
    ${seen.error && html`<p class="trouble" role="alert">${troubleOf(seen)}</p>`}
    ${seen.data ? children(seen.data) : !seen.error && html`<p class="quiet">Loading …</p>`}
  `;
}

function troubleOf({ data, error }) {
  const said = error.status ? error.message : "the coordinator does not answer";
  const what = said[0].toUpperCase() + said.slice(1);
  return data ? `${what}; this is how things were, and it is tried again.` : `${what}.`;
}

function TokenForm({ reason }) {
  const [token, setToken] = useState("");
  const enter = (event) => {
    event.preventDefault();
    keepToken(token.trim());
    location.reload();
  };
  return html`
    <form class="token" onSubmit=${enter}>
      <p>This lab asks for a token of role <code>client</code>.${hasToken() && ` The last one was refused: ${reason}.`}</p>
      <label>Token <input type="password" autocomplete="off" value=${token} onInput=${(e) => setToken(e.target.value)} /></label>
      <button disabled=${!token.trim()}>Enter</button>
      <p class="quiet">It is kept in this tab alone, until you close it.</p>
    </form>
  `;
}

/** A path of a spec, which a narrow column breaks after its folders first. */
export function SpecPath({ of }) {
  return of.split("/").map((part, index) => (index ? html`/<wbr />${part}` : part));
}

/** The device that a job is on, or was on last; one that waits again after a pre-emption is on none. */
export function deviceOf(job) {
  return (job.status !== "queued" && job.device) || "";
}

const link = (id) => html`<a href="#/jobs/${id}">${id}</a>`;

/** A table of jobs; a narrow screen leaves its last columns out. */
export function JobTable({ jobs, empty }) {
  if (!jobs.length) return html`<p class="quiet">${empty}</p>`;
  return html`
    <table>
      <thead>
        <tr><th>ID</th><th>State</th><th>Pri</th><th>Test</th><th class="wide">Device</th><th class="wide">App</th>
        <th class="wide">In queue</th><th>Ran</th></tr>
      </thead>
      <tbody>
        ${jobs.map((job) => html`
          <tr key=${job.id}>
            <td>${link(job.id)}</td>
            <td><${State} of=${job.status} />${job.flaky && html` <span class="quiet">flaky</span>`}</td>
            <td>P${job.priority}</td>
            <td class="path" title=${job.test}><${SpecPath} of=${job.test} /></td>
            <td class="wide text device">${deviceOf(job) || "-"}</td>
            <td class="wide text">${job.app_version_id}</td>
            <td class="wide">${span(queueSeconds(job))}</td>
            <td>${ran(job) || "-"}</td>
          </tr>`)}
      </tbody>
    </table>
  `;
}

/** Saves what stands at a path. A plain link would carry no token. */
export function Save({ path, name, children }) {
  const [told, setTold] = useState("");
  const save = async () => {
    try {
      const url = URL.createObjectURL(await (await call(path)).blob());
      Object.assign(document.createElement("a"), { href: url, download: name }).click();
      URL.revokeObjectURL(url);
      setTold("");
    } catch (error) {
      setTold(error.status ? error.message : "The coordinator does not answer.");
    }
  };
  return html`<button onClick=${save}>${children}</button> ${told}`;
}
