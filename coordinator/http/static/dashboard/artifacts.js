// What the attempts of a job left behind.

import { html } from "./vendor/preact-htm.js";
import { hasToken, usePolled } from "./api.js";
import { Polled, Save } from "./parts.js";
import { counted, size } from "./words.js";

const REPORT = "html_report";

export function Artifacts({ id }) {
  const seen = usePolled(`/jobs/${id}/artifacts`, 5_000);
  if (seen.data && !seen.data.length) return null;
  return html`<h2>Artifacts</h2><${Polled} seen=${seen}>${(found) => html`<${Table} id=${id} found=${found} />`}<//>`;
}

function Table({ id, found }) {
  const files = found.filter((one) => one.kind !== REPORT);
  const ofReport = found.length - files.length;
  return html`
    ${ofReport > 0 && html`<p><${Report} id=${id} /> <span class="quiet">(${counted(ofReport, "file")})</span></p>`}
    ${files.length > 0 && html`
      <table>
        <thead><tr><th>Name</th><th class="wide">Kind</th><th class="wide">Attempt</th><th>Size</th><th></th></tr></thead>
        <tbody>
          ${files.map((one) => html`
            <tr key=${`${one.attempt} ${one.name}`}>
              <td class="path">${one.name}</td>
              <td class="wide">${one.kind}</td>
              <td class="wide">${one.attempt}</td>
              <td>${size(one.size)}</td>
              <td><${Save} path=${pathOf(id, one)} name=${one.name.split("/").pop()}>Save<//></td>
            </tr>`)}
        </tbody>
      </table>`}`;
}

/** A page that is opened carries no token; the command line has a report of its own way. */
function Report({ id }) {
  if (hasToken()) return html`The report: <code>qgjob artifacts open ${id}</code>`;
  return html`<a href="/jobs/${id}/report" target="_blank" rel="noopener">Open the report</a>`;
}

export function pathOf(id, artifact) {
  return `/jobs/${id}/artifacts/${artifact.attempt}/${artifact.name.split("/").map(encodeURIComponent).join("/")}`;
}
