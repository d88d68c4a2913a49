// Numbers and instants as people read them; the same words as the `qgjob` command has.

export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)}s`.replace(".0s", "s");
  if (whole < 60) return `${whole}s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 10 && whole % 60) return `${minutes}m ${whole % 60}s`;
  if (minutes < 60) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours}h ${minutes % 60}m` : `${hours}h`;
  return `${Math.floor(hours / 24)}d`;
}

export function secondsBetween(start, end, now = Date.now()) {
  return ((end ? Date.parse(end) : now) - Date.parse(start)) / 1000;
}

export function ago(instant, now = Date.now()) {
  return instant ? `${span(secondsBetween(instant, null, now))} ago` : "never";
}

export function until(instant, now = Date.now()) {
  if (!instant) return "";
  const seconds = (Date.parse(instant) - now) / 1000;
  return seconds >= 1 ? `in about ${span(seconds)}` : "any moment";
}

/** A number of bytes. */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

export function counted(count, thing) {
  return `${count} ${thing}${count === 1 ? "" : "s"}`;
}

/** How long a job has waited before its first start, or waits by now. */
export function queueSeconds(job, now = Date.now()) {
  const isWaiting = job.status === "queued" || !job.start_time;
  return secondsBetween(job.create_time, isWaiting ? job.end_time : job.start_time, now);
}

/** How long a job ran, or has been running; an empty text where it never started, or waits again. */
export function ran(job, now = Date.now()) {
  return job.start_time && job.status !== "queued" ? span(secondsBetween(job.start_time, job.end_time, now)) : "";
}
