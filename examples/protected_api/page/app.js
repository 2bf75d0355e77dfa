// The page of the demo: signs in with Authorization Code + PKCE, calls the protected API, tries to break in, and watches
// the keys. Whatever came from outside goes into the page as text (`append`, `textContent`), never as HTML.

const PENDING = "portcullis-demo.pending";
const PATIENCE_MS = 20_000;
const POLL_MS = 1_000;
/** How long after a fetch portcullis asks for no unknown key. */
const BUDGET_SECONDS = 5;
const LOG_LENGTH = 40;

/** What `/demo/config` answered. */
let config;
/** The tokens. In memory only: what is in storage, any script on the page can take. */
let session = null;
/** How many sign-ins were begun or forgotten: what a forgotten one brings later is not taken. */
let signIns = 0;

// --- Small tools --------------------------------------------------------------------------------------------------

/** An error whose message is a sentence for the person. */
class Told extends Error {}

const $ = (testid) => document.querySelector(`[data-testid="${testid}"]`);

function el(tag, { testid, ...properties } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  if (testid) node.dataset.testid = testid;
  node.append(...children);
  return node;
}

/** Names and values; each value is text or a node. */
function list(entries) {
  const rows = entries.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  return el("dl", { className: "values" }, ...rows);
}

/** Something that is nobody's business, folded until asked for. */
function folded(title, testid, ...content) {
  return el("details", {}, el("summary", { testid: `${testid}-fold` }, title), ...content);
}

function secret(title, testid, value) {
  return folded(title, testid, el("code", { className: "long", testid }, value));
}

/** Brings `place` into view and the focus to its heading. How it scrolls, the style sheet says: not everybody bears motion. */
function lookAt(place) {
  const heading = place.querySelector("h2, h3");
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
  place.scrollIntoView();
}

function announce(text) {
  // A new node each time, so that the same sentence twice is read out twice.
  $("live").replaceChildren(el("span", {}, text));
}

function badge(node, state, text) {
  node.dataset.state = state;
  node.textContent = text;
}

function sentence(error) {
  if (error instanceof Told) return error.message;
  console.error(error);
  return `Something unexpected happened: ${error.message}.`;
}

/** Shows what went wrong in the panel that `node` is in; an empty text takes it away. */
function trouble(node, text) {
  const place = node.closest("section").querySelector("[data-role=trouble]");
  place.textContent = text;
  place.hidden = !text;
  if (text) announce(text);
}

/** Runs `action` for a button, never twice at once: a refresh token used twice is taken for a stolen one. */
function onPress(button, action) {
  let running = false;
  button.addEventListener("click", async () => {
    if (running) return;
    running = true;
    button.setAttribute("aria-busy", "true");
    trouble(button, "");
    try {
      await action();
    } catch (error) {
      trouble(button, sentence(error));
    } finally {
      running = false;
      button.removeAttribute("aria-busy");
    }
  });
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** A request and its whole answer. No cookies: nothing here rests on them. */
async function ask(url, options, silence) {
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const response = await fetch(url, { credentials: "omit", cache: "no-store", signal, ...options });
    const { ok, status, statusText: phrase, headers } = response;
    const text = await response.text();
    return { ok, status, phrase, headers, text, json: parseJson(text) };
  } catch {
    throw new Told(silence);
  }
}

function askIssuer(url, options) {
  const why = config.embedded ? "Is it stopped?" : "Is it down, or does it not allow this page (CORS)?";
  return ask(url, options, `The issuer does not answer. ${why}`);
}

function askDemo(path, options) {
  return ask(path, options, "The API does not answer. Is the demo still running?");
}

/** Makes the demo do something. The header keeps other sites out: they may not send it. */
async function command(path) {
  const answer = await askDemo(path, { method: "POST", headers: { "X-Demo": "1" } });
  if (!answer.ok || !answer.json) throw new Told(answer.json?.error ?? `The demo answered ${answer.status}.`);
  return answer.json;
}

// --- Encodings and times ------------------------------------------------------------------------------------------

function toBase64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function fromBase64url(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(binary, (c) => c.charCodeAt(0)));
}

function encodeJson(value) {
  return toBase64url(new TextEncoder().encode(JSON.stringify(value)));
}

/** 32 random bytes: 43 characters, what RFC 7636 asks of a verifier. */
function randomText() {
  return toBase64url(crypto.getRandomValues(new Uint8Array(32)));
}

async function sha256(text) {
  return toBase64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))));
}

/** Reads a JWT; null if it is none (an opaque or an encrypted token). */
function decodeToken(token) {
  const parts = token.split(".");
  if (parts.length !== 3) return null;
  try {
    return { header: JSON.parse(fromBase64url(parts[0])), payload: JSON.parse(fromBase64url(parts[1])), parts };
  } catch {
    return null;
  }
}

function shortened(token) {
  return token.length > 40 ? `${token.slice(0, 18)}…${token.slice(-8)}` : token;
}

const DATE_AND_TIME = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const TIME = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

function readableTime(name, seconds) {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return "no such time";
  const past = name === "exp" && date < new Date() ? " (over)" : "";
  return DATE_AND_TIME.format(date) + past;
}

/** Pretty JSON. Readable times stand beside as decoration, so that what is copied stays JSON. */
function jsonLines(value) {
  return JSON.stringify(value, null, 2).split("\n").map((line, index) => {
    const node = el("span", {}, index ? `\n${line}` : line);
    const time = line.match(/^ {2}"(exp|iat|nbf|auth_time)": (-?[\d.]+),?$/);
    if (time) node.dataset.note = readableTime(time[1], Number(time[2]));
    return node;
  });
}

/** A token with its three parts told apart by colour. */
function tokenView(token, testid) {
  const span = (part, index) => el("span", { className: `part-${index + 1}` }, index ? `.${part}` : part);
  return el("code", { className: "long", testid }, ...token.split(".").map(span));
}

// --- WWW-Authenticate (RFC 9110 §11.6.1, RFC 6750 §3) -------------------------------------------------------------

/** Reads one challenge: its scheme and its parameters in order. Null if it is not well-formed, or not one. */
function parseChallenge(text) {
  const start = /^[ \t]*([!#$%&'*+.^_`|~\w-]+)(?:[ \t]+|$)/.exec(text);
  if (!start) return null;
  const name = /[ \t]*([!#$%&'*+.^_`|~\w-]+)[ \t]*=[ \t]*/;
  const value = /(?:([!#$%&'*+.^_`|~\w-]+)|"((?:[^"\\]|\\.)*)")[ \t]*(?:,|$)/;
  const parameter = new RegExp(name.source + value.source, "y");
  const emptyElement = /[ \t]*(?:,|$)/y;
  const parameters = new Map();
  let at = start[0].length;
  while (at < text.length) {
    emptyElement.lastIndex = parameter.lastIndex = at;
    if (emptyElement.test(text)) {
      at = emptyElement.lastIndex;
      continue;
    }
    const found = parameter.exec(text);
    // Each parameter once (RFC 9110 §11.2): which of two would be the right one?
    if (!found || parameters.has(found[1].toLowerCase())) return null;
    parameters.set(found[1].toLowerCase(), found[2] ?? found[3].replace(/\\(.)/g, "$1"));
    at = parameter.lastIndex;
  }
  return { scheme: start[1], parameters };
}

const ERRORS = {
  invalid_request: "The request itself is wrong, for example two tokens in it, or illegal characters.",
  invalid_token: "The token is expired, forged, for somebody else, or otherwise not good. A new one may be.",
  insufficient_scope: "The token is good, but does not allow as much as this route asks for.",
  insufficient_user_authentication: "The token is good, but the person must sign in again, or in a stronger way.",
};

const PARAMETERS = {
  realm: () => "The name of what is protected.",
  error: (value) => ERRORS[value] ?? "An error that this page does not know.",
  error_description: () => "The same in words, for the developer of the app.",
  scope: () => "The scope that this route asks for.",
  acr_values: () => "How the person must have signed in.",
  max_age: () => "How many seconds ago the person may have signed in at the most.",
  resource_metadata: () => "Where the API describes itself (RFC 9728).",
};

/** A token of a key that is not at hand may be as good as any: the key may be newer than the last fetch. */
function explainUnknownKey(nextLook) {
  const until = `Its key may be new, and unknown here until it is looked for again ${nextLook}`;
  return `No key at hand verifies the token. ${until}; within a minute, if it was looked for before in vain.`;
}

/** Each part of the header, and what it means. */
function explainChallenge({ challenge: text, refusedBy, nextLook }) {
  const challenge = parseChallenge(text);
  if (!challenge) return el("p", {}, "This page cannot read the header as one challenge.");
  const entries = [[challenge.scheme, "The scheme: the API wants an access token in the header Authorization."]];
  for (const [name, value] of challenge.parameters) {
    const known = PARAMETERS[name]?.(value) ?? "A parameter that this page does not know.";
    const meaning = name === "error" && refusedBy === "unknown_key" ? explainUnknownKey(nextLook) : known;
    entries.push([name, el("span", {}, el("q", {}, value), ` ${meaning}`)]);
  }
  if (!challenge.parameters.has("error")) {
    entries.push(["no error", "There were no credentials, so there is nothing wrong with them (RFC 6750 §3.1)."]);
  }
  return list(entries);
}

// --- The API ------------------------------------------------------------------------------------------------------

async function callApi(path, token) {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  const { status, phrase, text, json, headers: answered } = await askDemo(path, { headers });
  const challenge = answered.get("WWW-Authenticate");
  const refusedBy = answered.get("X-Demo-Reason");
  const nextLook = refusedBy === "unknown_key" ? await nextLookFor(token) : null;
  if (path === "/private" && session && token === session.accessToken) showVerified(status, json);
  return { path, token, status, phrase, text, json, challenge, refusedBy, nextLook };
}

/** When a key that is not at hand is looked for again, in words. */
async function nextLookFor(token) {
  try {
    const issuers = await askHealth();
    const iss = decodeToken(token)?.payload.iss;
    const budget = budgetOf(issuers.find(({ issuer }) => issuer === iss) ?? issuers[0]);
    return budget === "now" ? "with the next call" : budget;
  } catch {
    // It is known without asking, if less exactly.
    return `within ${BUDGET_SECONDS} s`;
  }
}

const MEANINGS = {
  200: "Let in.",
  400: "Refused: the request is wrong.",
  401: "Refused: a good token is needed.",
  403: "Refused: the token is good, but does not allow this.",
  503: "Not judged: the keys of the issuer cannot be had. Try again in a moment.",
};

/** What each check wants, by the code of its refusal. */
const CHECKS = {
  missing: "There must be a token.",
  invalid_request: "There must be one token, in one place, and spelled as a token.",
  too_large: "It must not be longer than any token needs to be.",
  opaque: "It must be a JWT: only its issuer can read an opaque one.",
  encrypted: "It must be signed, not encrypted.",
  malformed: "It must be a JWT: three parts, with JSON in the first two.",
  unsupported_algorithm: "It must be signed with an algorithm (alg) that this issuer uses, whatever it says of itself.",
  unexpected_type: "It must be an access token (typ), not one for something else.",
  unknown_issuer: "It must come from an issuer (iss) that this API trusts.",
  wrong_audience: "It must be for this API (aud).",
  expired: "Its time (exp) must not be over.",
  not_yet_valid: "Its time (nbf) must have begun.",
  issued_in_the_future: "It must not be from the future (iat).",
  missing_claim: "It must have all the claims that are needed.",
  unknown_key: "It must be signed with a key (kid) of the issuer that is known here.",
  bad_signature: "Its signature must fit, so nothing in it was changed.",
  insufficient_scope: "It must allow what this route asks for (scope).",
  keys_unavailable: "There must be keys of the issuer to check it with. Nothing is known against the token.",
};

/** Which check refused, if the API tells: text and nodes for a line. */
function refusalLine({ refusedBy }) {
  const wants = CHECKS[refusedBy] ?? "A check that this page does not know.";
  return ["Refused by: ", el("code", {}, refusedBy), `. ${wants}`];
}

function refusalView(answer, prefix) {
  const note = el("p", { className: "aside" }, "The demo shows this; a real API tells only its log.");
  return el("div", {}, el("p", { testid: `reason-${prefix}` }, ...refusalLine(answer)), note);
}

function statusText({ status, phrase }) {
  return `${status} ${phrase}`.trim();
}

/** What was sent and what came back, each with a test identifier that begins with `prefix`. */
function answerView(answer, prefix) {
  const view = exchangeView(answer, prefix);
  return answer.refusedBy ? el("div", { className: "refusal" }, refusalView(answer, prefix), view) : view;
}

function exchangeView(answer, prefix) {
  const { path, token, status, challenge, text, json } = answer;
  const authorization = token === null ? "(no Authorization header)" : `Authorization: Bearer ${shortened(token)}`;
  const colour = status < 300 ? "good" : status >= 500 ? "warn" : "bad";
  const shownStatus = el("span", { className: "badge", testid: `${prefix}-status` });
  badge(shownStatus, colour, statusText(answer));
  const entries = [
    ["Request", el("pre", { testid: `${prefix}-request` }, `GET ${path}\n${authorization}`)],
    ["Status", el("span", {}, shownStatus, ` ${MEANINGS[status] ?? ""}`)],
  ];
  if (challenge) {
    const header = el("code", { testid: `${prefix}-challenge` }, challenge);
    const explained = folded("What it says", `${prefix}-explained`, explainChallenge(answer));
    // One answer is read word by word; eight below one another are not.
    explained.open = prefix === "call";
    entries.push(["WWW-Authenticate", el("div", {}, header, explained)]);
  }
  const body = json ? JSON.stringify(json, null, 2) : text || "(empty)";
  entries.push(["Body", el("pre", { testid: `${prefix}-body` }, body)]);
  return list(entries);
}

let calls = 0;

async function showCall(path) {
  const turn = ++calls;
  const answer = await callApi(path, $("send-token").checked && session ? session.accessToken : null);
  // Another button was pressed meanwhile: its answer is the one to show.
  if (turn !== calls) return;
  document.getElementById("call-answer").replaceChildren(answerView(answer, "call"));
  announce(`GET ${path}: ${statusText(answer)}. ${MEANINGS[answer.status] ?? ""}`);
}

// --- The steps ----------------------------------------------------------------------------------------------------

function setStep(number, state, ...shown) {
  const step = $(`step-${number}`);
  step.dataset.state = state;
  badge(step.querySelector("[data-role=state]"), state, state);
  step.querySelector("[data-role=shown]").replaceChildren(...shown);
}

function failStep(number, text, ...shown) {
  setStep(number, "failed", el("p", { className: "trouble" }, text), ...shown);
  announce(`Step ${number} failed. ${text}`);
}

function forget() {
  signIns += 1;
  session = null;
  $("paste-token").value = "";
  sessionStorage.removeItem(PENDING);
  for (let number = 1; number <= 6; number++) setStep(number, "waiting");
  showLink(null);
  showSession();
}

function showLink(url) {
  const link = $("go-to-issuer");
  link.hidden = !url;
  if (url) link.href = url;
  else link.removeAttribute("href");
}

/**
 * The issuer's endpoints (OpenID Connect Discovery §4). Asked for each time: whether the issuer answers is then known before
 * anybody is sent there.
 */
async function issuerMetadata() {
  const answer = await askIssuer(`${config.issuer.replace(/\/$/, "")}/.well-known/openid-configuration`);
  if (!answer.ok || !answer.json) throw new Told(`The issuer gave no metadata: it answered ${answer.status}.`);
  // Exactly, or one issuer could speak for another.
  if (answer.json.issuer !== config.issuer) {
    throw new Told(`The metadata are those of ${answer.json.issuer}, not of ${config.issuer}: they are not used.`);
  }
  for (const name of ["authorization_endpoint", "token_endpoint"]) {
    if (!/^https?:\/\//.test(answer.json[name])) throw new Told(`The metadata of the issuer have no usable ${name}.`);
  }
  return answer.json;
}

/** Steps 1 and 2, and the address of step 3. */
async function prepareSignIn() {
  forget();
  const begun = signIns;
  if (!crypto.subtle) throw new Told("Browsers hash only on https and loopback addresses: open the page at 127.0.0.1.");
  const pending = { verifier: randomText(), state: randomText(), scope: askedScope() };
  pending.challenge = await sha256(pending.verifier);
  if (signIns !== begun) return;
  showVerifier(pending);
  try {
    const { authorization_endpoint, authorization_response_iss_parameter_supported } = await issuerMetadata();
    pending.url = authorizationUrl(authorization_endpoint, pending);
    pending.issPromised = authorization_response_iss_parameter_supported === true;
  } catch (error) {
    if (signIns === begun) failStep(3, sentence(error));
    return;
  }
  if (signIns !== begun) return;
  sessionStorage.setItem(PENDING, JSON.stringify(pending));
  showWayToIssuer(pending);
  $("go-to-issuer").focus();
  announce("Verifier and challenge are made. Next: go to the issuer.");
}

function askedScope() {
  return ["openid", "offline_access", ...($("ask-scope").checked ? [config.scope] : [])].join(" ");
}

function authorizationUrl(endpoint, { scope, state, challenge }) {
  const url = new URL(endpoint);
  const { client_id, redirect_uri, audience } = config;
  const parameters = { response_type: "code", client_id, redirect_uri, audience, scope, state };
  Object.assign(parameters, { code_challenge: challenge, code_challenge_method: "S256" });
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return url.href;
}

function showVerifier({ verifier, challenge }) {
  setStep(1, "done", secret("The code verifier", "verifier", verifier));
  setStep(2, "done", list([["code_challenge", el("code", { className: "long", testid: "challenge" }, challenge)]]));
}

function authorizationView(text) {
  const url = new URL(text);
  const parameters = [...url.searchParams].map(([name, value]) => [name, el("code", {}, value)]);
  const address = el("code", { className: "long", testid: "authorization-url" }, url.href);
  const where = el("p", {}, "The address is ", el("code", {}, url.origin + url.pathname), " with:");
  return el("div", {}, where, list(parameters), folded("The whole address", "authorization-url", address));
}

function showWayToIssuer(pending) {
  showVerifier(pending);
  setStep(3, "waiting", authorizationView(pending.url));
  badge($("step-3").querySelector("[data-role=state]"), "yours", "your turn");
  showLink(pending.url);
}

/** What the issuer sent along; and out of the address bar with it, so that a reload does not use the code again. */
function takeResponse() {
  const query = new URLSearchParams(location.search);
  if (!query.has("code") && !query.has("error")) return null;
  history.replaceState(null, "", location.pathname);
  const names = ["code", "state", "iss", "error", "error_description"];
  return Object.fromEntries(names.map((name) => [name, query.get(name)]));
}

function withDescription({ error, error_description }) {
  return error_description ? `${error} (${error_description})` : error;
}

/** Why the issuer's answer must not be used; null if it may. */
function problemOf({ state, iss, error, error_description }, pending) {
  if (state !== pending.state) return "The state is not the one that was sent: somebody may have slipped the answer in.";
  if (iss === null && pending.issPromised) return "The answer does not say whose it is, as this issuer always does.";
  if (iss !== null && iss !== config.issuer) return `The answer says that it is of another issuer, ${iss}.`;
  if (error !== null) return `The issuer said no: ${withDescription({ error, error_description })}.`;
  return null;
}

/** Back from the issuer: the end of step 3, then steps 4 and 5. */
async function finishSignIn(response) {
  const pending = parseJson(sessionStorage.getItem(PENDING));
  if (!pending && response) failStep(3, "An answer came, but this tab has begun no sign-in. Begin with “Sign in”.");
  if (!pending) return;
  showWayToIssuer(pending);
  if (!response) return;

  if (response.state === pending.state) {
    // Used up, well or not. An answer with a strange state, on the other hand, does not end our own sign-in.
    sessionStorage.removeItem(PENDING);
    showLink(null);
  }
  const shown = (value) => el("code", {}, value ?? "none");
  const compared = [["state sent", shown(pending.state)], ["state received", shown(response.state)]];
  compared.push(["iss expected", shown(config.issuer)], ["iss received", shown(response.iss)]);
  const problem = problemOf(response, pending);
  if (problem) return failStep(3, problem, list(compared));
  const code = secret("The authorization code", "code", response.code);
  const came = el("p", {}, "The issuer answered, and the answer is for this sign-in:");
  setStep(3, "done", authorizationView(pending.url), came, list(compared), code);
  await exchangeCode(response.code, pending.verifier);
}

/** Whoever comes back from the issuer looks at how it went: at the call, or at the step that failed. */
function lookAtOutcome() {
  const failed = document.querySelector(".steps > [data-state=failed]");
  const called = document.querySelector("[data-testid=step-5][data-state=done]");
  if (failed ?? called) lookAt(failed ?? called);
}

/** RFC 6749 §4.1.3 and §6: the answer with the tokens, or a sentence. */
async function requestTokens(form) {
  const { token_endpoint } = await issuerMetadata();
  const body = new URLSearchParams({ client_id: config.client_id, ...form });
  const { ok, status, json } = await askIssuer(token_endpoint, { method: "POST", body });
  if (json?.error) throw new Told(`The issuer refused: ${withDescription(json)}.`);
  if (!ok || !json?.access_token) throw new Told(`The issuer gave no token: it answered ${status}.`);
  // A token of another type (DPoP) asks for more than to be sent along (RFC 6749 §7.1).
  if (!/^bearer$/i.test(json.token_type)) throw new Told(`The token is of the type ${json.token_type}, not Bearer.`);
  return json;
}

async function exchangeCode(code, verifier) {
  const { redirect_uri } = config;
  const begun = signIns;
  let tokens;
  try {
    tokens = await requestTokens({ grant_type: "authorization_code", code, code_verifier: verifier, redirect_uri });
  } catch (error) {
    if (signIns === begun) failStep(4, sentence(error));
    return;
  }
  if (signIns !== begun) return;
  setSession(tokens.access_token, tokens.refresh_token);
  const scope = el("code", { testid: "granted-scope" }, tokens.scope ?? "as asked for");
  const shown = [
    list([["scope", scope], ["expires_in", `${tokens.expires_in ?? "?"} seconds`]]),
    folded("The access token", "access-token", tokenView(tokens.access_token, "access-token")),
  ];
  if (tokens.refresh_token) shown.push(secret("The refresh token", "refresh-token", tokens.refresh_token));
  if (tokens.id_token) shown.push(secret("The ID token: for this page, never for an API", "id-token", tokens.id_token));
  setStep(4, "done", ...shown);
  await firstCall();
}

async function firstCall() {
  const begun = signIns;
  try {
    const answer = await callApi("/private", session.accessToken);
    if (signIns !== begun) return;
    const view = answerView(answer, "first");
    if (answer.status !== 200) return failStep(5, `The API answered ${statusText(answer)}.`, view);
    setStep(5, "done", view);
    announce("There is a token, and the API verified it.");
  } catch (error) {
    if (signIns === begun) failStep(5, sentence(error));
  }
}

async function refresh() {
  const before = session;
  let tokens;
  try {
    tokens = await requestTokens({ grant_type: "refresh_token", refresh_token: before.refreshToken });
  } catch (error) {
    if (session === before) failStep(6, sentence(error));
    return;
  }
  // Signed out while the issuer thought: then nobody wants these tokens any more.
  if (session !== before) return;
  setSession(tokens.access_token, tokens.refresh_token ?? before.refreshToken);
  const replaced = session.refreshToken !== before.refreshToken;
  const old = replaced ? "The refresh token was replaced: the old one is used up." : "The refresh token stays the same.";
  setStep(
    6,
    "done",
    el("p", { testid: "refreshed" }, `Refreshed at ${TIME.format(new Date())}. ${old}`),
    secret("The old refresh token", "old-refresh-token", before.refreshToken),
    secret("The new refresh token", "new-refresh-token", session.refreshToken),
    folded("The new access token", "new-access-token", tokenView(tokens.access_token, "new-access-token")),
  );
  announce("Refreshed: there is a new access token.");
}

function signOut() {
  forget();
  announce("Signed out. The tokens are forgotten.");
  $("sign-in").focus();
}

/** For a tenant without --client-id: a token from elsewhere. */
async function useToken() {
  const token = $("paste-token").value.trim().replace(/^Bearer\s+/i, "");
  if (!/^[\w.~+/-]+=*$/.test(token)) throw new Told("This is no access token: paste it whole, and nothing else.");
  forget();
  setSession(token);
  $("send-token").checked = true;
  await showCall("/private");
  lookAt(document.getElementById("call"));
}

// --- The token ----------------------------------------------------------------------------------------------------

function setSession(accessToken, refreshToken) {
  session = { accessToken, refreshToken };
  showSession();
}

function showSession() {
  const decoded = session && decodeToken(session.accessToken);
  document.getElementById("decoded").hidden = !decoded;
  $("token-none").hidden = Boolean(decoded);
  $("token-none").textContent = session ? "This token is no signed JWT: it cannot be read here." : "No token yet.";
  $("decoded-header").replaceChildren(...(decoded ? jsonLines(decoded.header) : []));
  $("decoded-payload").replaceChildren(...(decoded ? jsonLines(decoded.payload) : []));
  badge($("session"), session ? "good" : "none", session ? "signed in" : "no token");
  $("sign-out").hidden = !session;
  $("refresh").disabled = !session?.refreshToken;
  showVerified(null, null);
  showForgeable();
}

/** What the API made of the token that is held now; a status of null says that it was not asked yet. */
function showVerified(status, json) {
  const claims = status === 200 ? json?.claims : undefined;
  document.documentElement.dataset.gate = claims ? "open" : "shut";
  $("verified-claims").hidden = !claims;
  $("verified-claims").replaceChildren(...(claims ? jsonLines(claims) : []));
  const nothing = session ? "This token was not sent yet: call GET /private." : "Nothing yet.";
  const answered = `The API answered ${status}${claims ? "." : ": it passed nothing on."}`;
  $("verified-note").textContent = status === null ? nothing : answered;
}

// --- Try to break it ----------------------------------------------------------------------------------------------

/** `check` must refuse it. The embedded issuer makes them all; those with `forge` can be made of a good token here as well. */
const CASES = [
  { name: "expired", check: "expired", title: "Expired token", why: "Correctly signed, but its time is over." },
  {
    name: "other-audience",
    check: "wrong_audience",
    title: "Other audience",
    why: "Correctly signed by this issuer, but for another API.",
  },
  {
    name: "other-issuer",
    check: "unknown_issuer",
    title: "Other issuer",
    why: "Names an issuer that this API does not trust.",
  },
  {
    name: "alg-none",
    check: "unsupported_algorithm",
    title: "alg: none",
    why: "Says of itself that it needs no signature.",
    forge: ({ header, parts }) => `${encodeJson({ ...header, alg: "none" })}.${parts[1]}.`,
  },
  {
    name: "hs-confusion",
    check: "unsupported_algorithm",
    title: "RS256 made HS256",
    why: "Signed with the public key, known to all, as a secret.",
  },
  {
    name: "unknown-kid",
    check: "unknown_key",
    title: "Unknown kid",
    why: "Names a key that the issuer does not have.",
    forge: ({ header, parts }) => `${encodeJson({ ...header, kid: "nobody-has-this-key" })}.${parts[1]}.${parts[2]}`,
  },
  {
    name: "tampered",
    check: "bad_signature",
    title: "Tampered payload",
    why: "A good token, changed after it was signed.",
    forge: ({ payload, parts }) => `${parts[0]}.${encodeJson({ ...payload, sub: "somebody-else" })}.${parts[2]}`,
  },
  {
    name: "no-token",
    check: "missing",
    title: "No token at all",
    why: "Nobody in particular asks.",
    forge: () => null,
  },
];

function availableCases() {
  return CASES.filter(({ forge }) => config.embedded || forge);
}

function showCases() {
  for (const attempt of availableCases()) {
    const button = el("button", { type: "button", testid: `break-${attempt.name}` }, attempt.title);
    const why = el("p", { id: `why-${attempt.name}` }, attempt.why);
    button.setAttribute("aria-describedby", why.id);
    const place = el("div", { id: `place-${attempt.name}` });
    document.getElementById("cases").append(el("li", {}, el("div", { className: "row" }, button, why), place));
    onPress(button, async () => announce(`${attempt.title}: ${(await tryCase(attempt, true)).words}`));
  }
}

/** Without an issuer of our own, a forged token needs a good one to start from. */
function showForgeable() {
  const readable = Boolean(session && decodeToken(session.accessToken));
  for (const { name } of availableCases()) {
    $(`break-${name}`).disabled = !(config.embedded || name === "no-token" || readable);
  }
}

async function badToken({ name, forge }) {
  if (name === "no-token") return null;
  if (config.embedded) return (await command(`/demo/token/${name}`)).token;
  return forge(decodeToken(session.accessToken));
}

function verdictOf(status) {
  if (status === 400 || status === 401) return ["refused", "refused, as it must be"];
  if (status === 503) return ["unanswered", "not let in, but not judged either: the keys of the issuer cannot be had"];
  return ["accepted", status < 300 ? "ACCEPTED: this is a bug" : `NOT REFUSED, but answered ${status}: this is a bug`];
}

/** Sends it and shows the answer; returns the verdict, in words as well. Eight answers one below another stay folded. */
async function tryCase(attempt, unfolded) {
  const place = document.getElementById(`place-${attempt.name}`);
  place.replaceChildren();
  const token = await badToken(attempt);
  const answer = await callApi("/private", token);
  const [verdict, words] = verdictOf(answer.status);
  const card = el("div", { className: "result", testid: `result-${attempt.name}` });
  Object.assign(card.dataset, { status: answer.status, verdict });
  card.append(el("p", { className: "verdict", testid: `verdict-${attempt.name}` }, words));
  if (answer.refusedBy) {
    card.dataset.reason = answer.refusedBy;
    card.append(caseReasonView(attempt, answer));
  }
  const sentAndAnswered = [...sentView(attempt.name, token), exchangeView(answer, attempt.name)];
  const exchange = folded("What was sent, and what came back", `exchange-${attempt.name}`, ...sentAndAnswered);
  exchange.open = unfolded || verdict === "accepted";
  card.append(exchange);
  place.replaceChildren(card);
  return { verdict, words };
}

/** Refused is not enough: a case shows something only if the check that it is about refused it. */
function caseReasonView({ name, check }, answer) {
  const line = refusalLine(answer);
  if (answer.refusedBy !== check) line.push(` Not by ${check}, which this case is about: the other check came first.`);
  return el("p", { testid: `reason-${name}` }, ...line);
}

function sentView(name, token) {
  const decoded = token && decodeToken(token);
  if (!decoded) return [];
  const both = [decoded.header, decoded.payload].map((part) => el("pre", {}, ...jsonLines(part)));
  return [folded("What was sent, decoded", `sent-${name}`, ...both, tokenView(token, `sent-token-${name}`))];
}

async function tryAll() {
  const cases = availableCases().filter(({ name }) => !$(`break-${name}`).disabled);
  $("break-summary").textContent = "";
  const verdicts = [];
  for (const attempt of cases) verdicts.push((await tryCase(attempt, false)).verdict);
  $("break-summary").textContent = summary(verdicts);
  announce($("break-summary").textContent);
}

function summary(verdicts) {
  const count = (verdict) => verdicts.filter((one) => one === verdict).length;
  const [refused, unanswered, accepted] = ["refused", "unanswered", "accepted"].map(count);
  if (refused === verdicts.length) return `${refused} of ${refused} refused.`;
  const unjudged = unanswered ? `, ${unanswered} not judged (503)` : "";
  return `${refused} refused${unjudged}, ${accepted || "none"} let in.`;
}

// --- Operator -----------------------------------------------------------------------------------------------------

/** The last health of each issuer, by its name. */
const lastHealth = new Map();
let polling = false;

function keyState({ keys, fetching, stale }) {
  if (!keys) return fetching ? ["fetching", "warn"] : ["none", "bad"];
  if (stale) return ["stale", "warn"];
  return fetching ? ["fetching", "warn"] : ["fresh", "good"];
}

/** When portcullis would ask the issuer for a key that it does not know. */
function budgetOf({ keys, unknown_key_after_seconds: left }) {
  return keys && left > 0 ? `in ${left} s` : "now";
}

/** How the keys of each issuer are doing. What the demo's own issuer publishes is known only if there is one. */
async function askHealth() {
  const { ok, status, json } = await askDemo("/demo/health");
  if (!ok || !json?.issuers?.length) throw new Told(`The demo tells nothing about the keys: it answered ${status}.`);
  const own = config.embedded ? { running: json.issuer_running, published: json.published_kids?.join(", ") } : {};
  return json.issuers.map((health) => ({ ...health, ...own }));
}

async function poll() {
  if (polling) return;
  polling = true;
  const place = $("health-trouble");
  try {
    const issuers = await askHealth();
    showIssuers(issuers);
    for (const health of issuers) logEvents(health, issuers.length > 1);
    place.hidden = true;
  } catch (error) {
    place.textContent = sentence(error);
    place.hidden = false;
  } finally {
    polling = false;
  }
}

/** Every second; a hidden tab asks for nothing. */
function watchHealth() {
  const look = () => document.hidden || poll();
  document.addEventListener("visibilitychange", look);
  setInterval(look, POLL_MS);
  look();
}

/** One block of facts for each issuer; with its name, if there are several. */
function showIssuers(issuers) {
  const blocks = document.getElementById("issuers");
  while (blocks.children.length < issuers.length) blocks.append(blocks.firstElementChild.cloneNode(true));
  issuers.forEach((health, index) => showHealth(blocks.children[index], health, issuers.length > 1));
  if (issuers.length > 1) $("config-issuer").textContent = issuers.map(({ issuer }) => issuer).join(", ");
}

function showHealth(block, health, named) {
  const name = block.querySelector("[data-role=issuer]");
  name.textContent = health.issuer;
  name.hidden = !named;
  const place = (fact) => block.querySelector(`[data-testid="health-${fact}"]`);
  const seconds = (value, before = "") => (value === null ? "–" : `${before}${value} s`);
  const [state, colour] = keyState(health);
  badge(place("state"), colour, state);
  badge(place("issuer"), health.running ? "good" : "bad", health.running ? "running" : "stopped");
  const values = {
    keys: health.keys,
    published: health.published || "none",
    age: seconds(health.age_seconds),
    "next-fetch": seconds(health.next_fetch_seconds, "in "),
    fetches: health.fetches,
    failed: health.failed_fetches,
    "stale-serves": health.stale_serves,
    "unknown-kids": health.unknown_kids,
    budget: budgetOf(health),
    ignored: health.ignored_keys?.join(", ") || "none",
    "last-error": health.last_error ?? "none",
  };
  for (const [fact, value] of Object.entries(values)) place(fact).textContent = String(value ?? "–");
}

/** What must have happened between two looks: what caused something before what came of it. */
function events(before, now) {
  const keys = `${now.keys ?? 0} ${now.keys === 1 ? "key" : "keys"}`;
  if (!before) return [`Watching: ${keys} at hand.`];
  const found = [];
  const failed = now.failed_fetches - before.failed_fetches;
  const fetched = now.fetches - before.fetches - failed;
  if (before.running !== now.running) found.push(now.running ? "The issuer runs." : "The issuer is stopped.");
  if (before.published !== now.published) found.push(`The issuer publishes: ${now.published || "nothing"}.`);
  if (now.unknown_kids > before.unknown_kids) found.push("A token came that no key at hand verifies.");
  if (now.stale && !before.stale) found.push("The keys are past their lifetime.");
  if (failed > 0) found.push(`Fetch failed: ${now.last_error ?? "no reason given"}.`);
  if (fetched > 0) found.push(`Fetched: ${keys}.`);
  if (now.stale_serves > before.stale_serves) found.push("A token was checked against stale keys.");
  return found;
}

function logEvents(health, named) {
  const of = named ? `${health.issuer}: ` : "";
  for (const event of events(lastHealth.get(health.issuer), health)) log(of + event);
  lastHealth.set(health.issuer, health);
}

function log(text) {
  const entries = $("event-log");
  entries.prepend(el("li", {}, el("time", {}, TIME.format(new Date())), ` ${text}`));
  while (entries.children.length > LOG_LENGTH) entries.lastChild.remove();
}

async function operate(action) {
  const { said } = await command(`/demo/issuer/${action}`);
  $("op-said").textContent = said;
  $("op-said").hidden = false;
  announce(said);
  await poll();
}

// --- Start --------------------------------------------------------------------------------------------------------

function showConfig() {
  for (const name of ["api", "issuer", "audience", "scope"]) $(`config-${name}`).textContent = config[name];
  document.getElementById("scope-name").textContent = config.scope;
  const shown = { embedded: config.embedded, client: config.client_id !== null, "no-client": config.client_id === null };
  for (const node of document.querySelectorAll("[data-only]")) node.hidden = !shown[node.dataset.only];
  // There are no levers at an issuer that is not the demo's own.
  if (!config.embedded) for (const name of [$("nav-operator"), $("operator-title")]) name.textContent = "Keys";
}

function listen() {
  onPress($("sign-in"), prepareSignIn);
  onPress($("sign-out"), signOut);
  onPress($("refresh"), refresh);
  onPress($("forget-token"), forget);
  onPress($("use-token"), useToken);
  // An address that was made already asks for the other scope: it must be made again.
  $("ask-scope").addEventListener("change", () => session || forget());
  for (const route of ["public", "private", "scoped"]) onPress($(`call-${route}`), () => showCall(`/${route}`));
  onPress($("break-all"), tryAll);
  for (const action of ["rotate", "withdraw", "stop", "start"]) onPress($(`op-${action}`), () => operate(action));
}

async function start() {
  const response = takeResponse();
  const answer = await askDemo("/demo/config");
  if (!answer.ok || !answer.json) throw new Told(`The demo gave no configuration: it answered ${answer.status}.`);
  config = answer.json;
  // The issuer sends people back to one address, byte by byte: localhost is another.
  if (location.origin !== new URL(config.redirect_uri).origin) return location.replace(config.redirect_uri);
  showConfig();
  showCases();
  showSession();
  listen();
  watchHealth();
  const begun = signIns;
  await finishSignIn(response);
  // Whoever has gone elsewhere meanwhile stays there.
  if (response && signIns === begun && document.activeElement === document.body) lookAtOutcome();
}

start().catch((error) => {
  const fatal = document.getElementById("fatal");
  fatal.textContent = sentence(error);
  fatal.hidden = false;
});
