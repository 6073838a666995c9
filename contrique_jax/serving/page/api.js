// What the page asks of the server.

const KEY = "contrique-token";
const MOST_TRIES = 30;

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname); // so that it is not copied with the address
}

export class Locked extends Error {}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server cannot be reached, or the file cannot be read");
  }
  if (response.status === 401) throw new Locked();
  return response;
}

async function body(response) {
  try {
    return await response.json();
  } catch {
    return { error: `the server answered with status ${response.status}` };
  }
}

// The model, its scale and limits.
export async function model() {
  const answer = await body(await ask("v1/model"));
  if (answer.error) throw new Error(answer.error);
  return answer;
}

// The result for one file. Waits and tries again while the server is busy.
export async function score(file, withMap, signal) {
  const query = new URLSearchParams({ name: file.name || "pasted image", thumbnail: true, map: withMap });
  const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
  for (let tries = 1; ; tries++) {
    const response = await ask(`v1/score?${query}`, { method: "POST", body: file, headers: { "Content-Type": type }, signal });
    if ((response.status === 429 || response.status === 503) && tries < MOST_TRIES) {
      await pause(Number(response.headers.get("Retry-After")) || 2, signal);
      continue;
    }
    const answer = await body(response);
    if (answer.results) return answer.results[0];
    throw new Error(answer.error);
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });
}
