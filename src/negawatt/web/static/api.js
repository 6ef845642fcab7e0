// What is asked of the gateway, and how it says no.

/** An answer that is no answer. *status* 0: nobody answered. */
export class ApiError extends Error {
  constructor(status, error) {
    super(error?.message ?? `the gateway answered with ${status}`);
    this.status = status;
    this.param = error?.param ?? null;
    this.code = error?.code ?? null;
  }
}

async function ask(method, path, body, signal) {
  let response;
  try {
    response = await fetch(path, {
      method, signal, cache: "no-store", credentials: "same-origin",
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: "the gateway does not answer" });
  }
  const text = await response.text();
  let value = null;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ApiError(response.status, { message: `the gateway answered ${response.status} with something that is not JSON` });
  }
  if (!response.ok) throw new ApiError(response.status, value.error);
  return value;
}

/** Return the query string of *parameters*; a list stands several times, what is empty not at all. */
export function query(parameters) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters))
    for (const one of Array.isArray(value) ? value : [value])
      if (one !== null && one !== undefined && one !== "") found.append(name, one);
  const text = found.toString();
  return text ? `?${text}` : "";
}

export const get = (name, parameters = {}, signal) => ask("GET", `/admin/api/${name}${query(parameters)}`, undefined, signal);
export const signIn = (key) => ask("POST", "/admin/api/session", { key });
export const signOut = () => ask("DELETE", "/admin/api/session");
