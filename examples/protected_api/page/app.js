// The demo's page: signs in with Authorization Code + PKCE, calls the protected API, tries to break
// in, tries to use a copy of its token, and shows the state of the keys. Data from outside is
// inserted as text (`append`, `textContent`), never as HTML.

import { ALGORITHM, createKey, makeProof, noteNonce, storeKey, takeKey } from "./dpop.js";
import { decodeToken, encodeJson, randomText, sha256 } from "./encoding.js";

const PENDING = "portcullis-demo.pending";
const PATIENCE_MS = 20_000;
const POLL_MS = 1_000;
/** After three fetches for unknown keys, portcullis allows one more per this many seconds. */
const BUDGET_SECONDS = 5;
/** How long the page waits until the API rejects a token after the sign-out, and between two calls. */
const REJECTION_MS = 5_000;
const REJECTION_POLL_MS = 50;
const LOG_LENGTH = 40;

/** The response of `/demo/config`. */
let config;
/**
 * The tokens, and the key that they are bound to, if any. In memory only, because any script on the
 * page can read storage. The ID token is for signing out.
 */
let session = null;
/** Counts sign-ins that were started or discarded, to ignore late results of discarded ones. */
let signIns = 0;

// --- Small tools ---------------------------------------------------------------------------------

/** An error whose message is shown to the user. */
class Told extends Error {}

const $ = (testid) => document.querySelector(`[data-testid="${testid}"]`);

function el(tag, { testid, ...properties } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  if (testid) node.dataset.testid = testid;
  node.append(...children);
  return node;
}

/** A definition list; each value is text or a node. */
function list(entries) {
  const rows = entries.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  return el("dl", { className: "values" }, ...rows);
}

/** Content that is collapsed until the user opens it. */
function folded(title, testid, ...content) {
  return el("details", {}, el("summary", { testid: `${testid}-fold` }, title), ...content);
}

function secret(title, testid, value) {
  return folded(title, testid, el("code", { className: "long", testid }, value));
}

/**
 * Scrolls `place` into view and focuses its heading. The style sheet sets the scroll behavior, as
 * some users prefer reduced motion.
 */
function lookAt(place) {
  const heading = place.querySelector("h2, h3");
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
  place.scrollIntoView();
}

function announce(text) {
  // A new node each time, so that screen readers also announce a repeated sentence.
  $("live").replaceChildren(el("span", {}, text));
}

function badge(node, state, text) {
  node.dataset.state = state;
  node.textContent = text;
}

function sentence(error) {
  if (error instanceof Told) return error.message;
  console.error(error);
  return `Unexpected error: ${error.message}.`;
}

/** Shows an error in the panel of `node`; an empty text removes it. */
function trouble(node, text) {
  const place = node.closest("section").querySelector("[data-role=trouble]");
  place.textContent = text;
  place.hidden = !text;
  if (text) announce(text);
}

/**
 * Runs `action` for a button, never twice at the same time: a refresh token that is used twice
 * counts as stolen.
 */
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

/** Sends a request and reads the whole response. Without cookies, which nothing here needs. */
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

/** Runs a command of the demo. Other sites cannot send the header. */
async function command(path) {
  const answer = await askDemo(path, { method: "POST", headers: { "X-Demo": "1" } });
  if (!answer.ok || !answer.json) throw new Told(answer.json?.error ?? `The demo responded with ${answer.status}.`);
  return answer.json;
}

// --- Tokens and times ----------------------------------------------------------------------------

function shortened(token) {
  return token.length > 40 ? `${token.slice(0, 18)}…${token.slice(-8)}` : token;
}

const DATE_AND_TIME = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const TIME = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

function readableTime(name, seconds) {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return "invalid time";
  const past = name === "exp" && date < new Date() ? " (expired)" : "";
  return DATE_AND_TIME.format(date) + past;
}

/** Formatted JSON. Readable times are generated content, so that copied text remains JSON. */
function jsonLines(value) {
  return JSON.stringify(value, null, 2).split("\n").map((line, index) => {
    const node = el("span", {}, index ? `\n${line}` : line);
    const time = line.match(/^ {2}"(exp|iat|nbf|auth_time)": (-?[\d.]+),?$/);
    if (time) node.dataset.note = readableTime(time[1], Number(time[2]));
    return node;
  });
}

/** A token with each of its three parts in a different color. */
function tokenView(token, testid) {
  const span = (part, index) => el("span", { className: `part-${index + 1}` }, index ? `.${part}` : part);
  return el("code", { className: "long", testid }, ...token.split(".").map(span));
}

// --- WWW-Authenticate (RFC 9110 §11.6.1, RFC 6750 §3) --------------------------------------------

/**
 * Parses the challenges of a response: the scheme of each, and its parameters in order. Null if the
 * header is malformed.
 */
function parseChallenges(text) {
  const token = "[!#$%&'*+.^_`|~\\w-]+";
  const value = `(?:(${token})|"((?:[^"\\\\]|\\\\.)*)")`;
  const parameter = new RegExp(`[ \\t]*(${token})[ \\t]*=[ \\t]*${value}[ \\t]*(?:,|$)`, "y");
  // A scheme is followed by its parameters or by nothing; a name, by an equals sign.
  const scheme = new RegExp(`[ \\t]*(${token})(?:[ \\t]+(?=${token}[ \\t]*=)|[ \\t]*(?:,|$))`, "y");
  const emptyElement = /[ \t]*(?:,|$)/y;
  const challenges = [];
  let at = 0;
  const next = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at = pattern.lastIndex;
    return found;
  };
  while (at < text.length) {
    if (next(emptyElement)) continue;
    const found = next(parameter);
    if (!found) {
      const began = next(scheme);
      if (!began) return null;
      challenges.push({ scheme: began[1], parameters: new Map() });
      continue;
    }
    const parameters = challenges.at(-1)?.parameters;
    // Each parameter at most once (RFC 9110 §11.2): the right one of two values is unknown.
    if (!parameters || parameters.has(found[1].toLowerCase())) return null;
    parameters.set(found[1].toLowerCase(), found[2] ?? found[3].replace(/\\(.)/g, "$1"));
  }
  return challenges;
}

const SCHEMES = {
  bearer: "an access token in the Authorization header",
  dpop: "an access token that is bound to a key, and a proof of that key in the DPoP header",
};

const ERRORS = {
  invalid_request: "The request is malformed: for example, it has two tokens or illegal characters.",
  invalid_token: "The token is expired, forged, for another API, or otherwise invalid. A new one may be valid.",
  insufficient_scope: "The token is valid, but does not have the scope that this route requires.",
  insufficient_user_authentication: "The token is valid, but the user must sign in again, or with a stronger method.",
  invalid_dpop_proof: "The proof is used, too old, or not for this request and this token. A new one may be valid.",
  use_dpop_nonce: "The proof needs the nonce in the DPoP-Nonce header of this response.",
};

const PARAMETERS = {
  realm: () => "The name of the protection space.",
  error: (value) => ERRORS[value] ?? "An error code that this page does not know.",
  error_description: () => "A description of the error, for the developer of the app.",
  scope: () => "The scope that this route requires.",
  acr_values: () => "How the user must have signed in.",
  max_age: () => "The maximum time in seconds since the user signed in.",
  resource_metadata: () => "The URL of the API's metadata (RFC 9728).",
  algs: () => "The algorithms that a proof may be signed with.",
};

/** A token with an unknown key may be valid: the key may be newer than the last fetch. */
function explainUnknownKey(nextLook) {
  const until = `Its key may be new. The API fetches the key set for it again ${nextLook}`;
  return `No cached key verifies the token. ${until}, or within a minute if the last set did not have the key.`;
}

/** Explains each part of the header. */
function explainChallenge({ challenge: text, refusedBy, nextLook }) {
  const challenges = parseChallenges(text);
  if (!challenges) return el("p", {}, "This page cannot parse the header.");
  const entries = [];
  for (const { scheme, parameters } of challenges) {
    const lead = entries.length ? "Another scheme: the API also accepts" : "The scheme: the API expects";
    const expected = SCHEMES[scheme.toLowerCase()];
    entries.push([scheme, expected ? `${lead} ${expected}.` : "A scheme that this page does not know."]);
    for (const [name, value] of parameters) {
      const known = PARAMETERS[name]?.(value) ?? "A parameter that this page does not know.";
      const meaning = name === "error" && refusedBy === "unknown_key" ? explainUnknownKey(nextLook) : known;
      entries.push([name, el("span", {}, el("q", {}, value), ` ${meaning}`)]);
    }
  }
  if (!challenges.some(({ parameters }) => parameters.has("error"))) {
    entries.push(["no error", "The request had no credentials, so there is no error to report (RFC 6750 §3.1)."]);
  }
  return list(entries);
}

// --- The API -------------------------------------------------------------------------------------

/** The URL of a route as a proof names it: as clients write it, whatever a proxy makes of it. */
function publicUrl(path) {
  return config.public_url.replace(/\/$/, "") + path;
}

/** What a request sends: `scheme`, `token` and, with DPoP, `proof`. */
async function present({ accessToken: token, key }, path) {
  if (!key) return { scheme: "Bearer", token };
  return { scheme: "DPoP", token, proof: await makeProof(key, "GET", publicUrl(path), token) };
}

/** Sends a request; `sent` is null for one without a token. */
async function send(path, sent) {
  const headers = sent ? { Authorization: `${sent.scheme} ${sent.token}` } : {};
  if (sent?.proof) headers.DPoP = sent.proof;
  const { status, phrase, text, json, headers: answered } = await askDemo(path, { headers });
  const challenge = answered.get("WWW-Authenticate");
  const refusedBy = answered.get("X-Demo-Reason");
  const nonceNeeded = noteNonce(publicUrl(path), { headers: answered, json });
  const nextLook = refusedBy === "unknown_key" ? await nextLookFor(sent.token) : null;
  return { path, sent, status, phrase, text, json, challenge, refusedBy, nextLook, nonceNeeded };
}

/**
 * Calls the API with the token of `from`, a session, or null. If the API wants its nonce in the
 * proof, sends the request again with it.
 */
async function callApi(path, from) {
  let answer = await send(path, from && (await present(from, path)));
  if (answer.nonceNeeded) answer = { ...(await send(path, await present(from, path))), repeated: true };
  if (path === "/private" && session && from === session) showVerified(answer.status, answer.json);
  return answer;
}

/** When the key set is fetched for an unknown key again, in words. */
async function nextLookFor(token) {
  try {
    const issuers = await askHealth();
    const iss = decodeToken(token)?.payload.iss;
    const budget = budgetOf(issuers.find(({ issuer }) => issuer === iss) ?? issuers[0]);
    return budget === "now" ? "with the next call" : budget;
  } catch {
    // The upper bound is known without the state of the keys.
    return `within ${BUDGET_SECONDS} s`;
  }
}

const MEANINGS = {
  200: "Accepted.",
  400: "Rejected: the request is malformed.",
  401: "Rejected: a valid token is required.",
  403: "Rejected: the token is valid, but does not allow this.",
  429: "Rejected: too many requests with this key. Try again in a minute.",
  503: "Not verified: a service that the API needs, such as the issuer, is unavailable. Try again in a moment.",
};

/** What each check requires, by its error code. */
const CHECKS = {
  missing: "The request must have a token.",
  invalid_request: "The request must have exactly one token, in valid syntax.",
  too_large: "The token must not exceed the maximum size.",
  opaque: "The token must be a JWT, or an opaque token of an issuer that the API asks.",
  inactive: "The issuer, asked about the token, must answer that it is active.",
  introspection_unavailable: "The issuer must answer about the token. The token itself may be valid.",
  encrypted: "The token must be signed, not encrypted.",
  malformed: "The token must be a JWT: three parts, with JSON in the first two.",
  unsupported_algorithm: "The algorithm (alg) must be one that this issuer uses.",
  unexpected_type: "The token must be an access token (typ), not another kind of JWT.",
  unknown_issuer: "The issuer (iss) must be one that this API trusts.",
  wrong_audience: "The audience (aud) must be this API.",
  expired: "The token must not be expired (exp).",
  not_yet_valid: "The token must already be valid (nbf).",
  issued_in_the_future: "The token must not be issued in the future (iat).",
  missing_claim: "The token must have all required claims.",
  unknown_key: "The token must be signed with a known key (kid) of the issuer.",
  bad_signature: "The signature must be valid: the token was not changed.",
  revoked: "The token, its session and its user must not be revoked. The issuer has told the API that one is.",
  revocations_unavailable: "The API must know what is revoked. The token itself may be valid.",
  insufficient_scope: "The token must have the scope that this route requires.",
  keys_unavailable: "The keys of the issuer must be available. The token itself may be valid.",
  sender_constrained: "A token that is bound to a key (cnf) must come with a proof of that key.",
  not_bound: "The token must be bound to a key (cnf).",
  other_key: "The key of the proof must be the one that the token is bound to (cnf).",
  proof_missing: "A token that is bound to a key must come with a proof of that key.",
  certificate_missing: "A token that is bound to a certificate (cnf) must come over a connection with it.",
  other_certificate: "The certificate of the connection must be the one that the token is bound to (cnf).",
  proof_repeated: "The request must have one proof.",
  proof_malformed: "The proof must be a JWT with the public key in its header.",
  proof_unsupported_algorithm: "The algorithm of the proof (alg) must be one that the API accepts.",
  proof_private_key: "The proof must have the public half of the key only.",
  proof_missing_claim: "The proof must have jti, htm, htu, iat and ath.",
  proof_wrong_method: "The proof must be for this method (htm).",
  proof_wrong_url: "The proof must be for this URL (htu).",
  proof_wrong_token: "The proof must be for this token (ath).",
  proof_wrong_time: "The proof must be new (iat).",
  proof_nonce_needed: "The proof must have a recent nonce of the API.",
  proof_bad_signature: "The proof must be signed with the key in its header.",
  proof_used: "The proof must be used for one request only (jti).",
  too_many_proofs: "One key must not send too many requests in a minute.",
  replays_unavailable: "The API must be able to record that the proof was used. The proof itself may be valid.",
};

/** The check that rejected the request, if the API tells: text and nodes for a line. */
function refusalLine({ refusedBy }) {
  const wants = CHECKS[refusedBy] ?? "A check that this page does not know.";
  return ["Rejected by: ", el("code", {}, refusedBy), `. ${wants}`];
}

function refusalView(answer, prefix) {
  const note = el("p", { className: "aside" }, "Only the demo shows this; a real API writes it to its log.");
  return el("div", {}, el("p", { testid: `reason-${prefix}` }, ...refusalLine(answer)), note);
}

function statusText({ status, phrase }) {
  return `${status} ${phrase}`.trim();
}

/** The request and the response, each with a test identifier that starts with `prefix`. */
function answerView(answer, prefix) {
  const view = exchangeView(answer, prefix);
  return answer.refusedBy ? el("div", { className: "refusal" }, refusalView(answer, prefix), view) : view;
}

function exchangeView(answer, prefix) {
  const { path, sent, status, challenge, text, json, repeated } = answer;
  const lines = [`GET ${path}`];
  lines.push(sent ? `Authorization: ${sent.scheme} ${shortened(sent.token)}` : "(no Authorization header)");
  if (sent?.proof) lines.push(`DPoP: ${shortened(sent.proof)}`);
  const colour = status < 300 ? "good" : status >= 500 ? "warn" : "bad";
  const shownStatus = el("span", { className: "badge", testid: `${prefix}-status` });
  badge(shownStatus, colour, statusText(answer));
  const entries = [
    ["Request", el("pre", { testid: `${prefix}-request` }, lines.join("\n"))],
    ["Status", el("span", {}, shownStatus, ` ${MEANINGS[status] ?? ""}`)],
  ];
  if (sent?.proof) {
    const proof = proofView(sent.proof, `${prefix}-proof`);
    proof.open = prefix === "call";
    entries.splice(1, 0, ["Proof", proof]);
  }
  if (repeated) {
    const why = "The API first responded with use_dpop_nonce. The page sent the request again, with the nonce in a new proof.";
    entries.splice(-1, 0, ["Nonce", el("span", { testid: `${prefix}-nonce` }, why)]);
  }
  if (challenge) {
    const header = el("code", { testid: `${prefix}-challenge` }, challenge);
    const explained = folded("Explanation", `${prefix}-explained`, explainChallenge(answer));
    // Open for a single call, collapsed in a list of eight.
    explained.open = prefix === "call";
    entries.push(["WWW-Authenticate", el("div", {}, header, explained)]);
  }
  const body = json ? JSON.stringify(json, null, 2) : text || "(empty)";
  entries.push(["Body", el("pre", { testid: `${prefix}-body` }, body)]);
  return list(entries);
}

/** A proof, decoded: its header with the public key, and its claims. */
function proofView(proof, testid) {
  const { header, payload } = decodeToken(proof);
  const part = (name, value) => el("pre", { testid: `${testid}-${name}` }, ...jsonLines(value));
  const parts = [["Header", part("header", header)], ["Claims", part("claims", payload)]];
  return folded("The proof, decoded", testid, list(parts));
}

let calls = 0;

async function showCall(path) {
  const turn = ++calls;
  const answer = await callApi(path, $("send-token").checked ? session : null);
  // Another button was pressed meanwhile: show the response of that one.
  if (turn !== calls) return;
  document.getElementById("call-answer").replaceChildren(answerView(answer, "call"));
  announce(`GET ${path}: ${statusText(answer)}. ${MEANINGS[answer.status] ?? ""}`);
}

// --- The steps -----------------------------------------------------------------------------------

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
  document.getElementById("signed-out").hidden = true;
  discardPending();
  for (let number = 1; number <= 6; number++) setStep(number, "waiting");
  showLink(null);
  showSession();
}

/** Ends a sign-in that is under way, and deletes its key. */
function discardPending() {
  const pending = parseJson(sessionStorage.getItem(PENDING));
  sessionStorage.removeItem(PENDING);
  if (pending?.jkt) storedKey(pending.state);
}

function showLink(url) {
  const link = $("go-to-issuer");
  link.hidden = !url;
  if (url) link.href = url;
  else link.removeAttribute("href");
}

/**
 * The issuer's endpoints (OpenID Connect Discovery §4). Fetched each time, to find out whether the
 * issuer responds before the user is sent there.
 */
async function issuerMetadata() {
  const answer = await askIssuer(`${config.issuer.replace(/\/$/, "")}/.well-known/openid-configuration`);
  if (!answer.ok || !answer.json) throw new Told(`No metadata from the issuer: it responded with ${answer.status}.`);
  // An exact comparison: otherwise one issuer could impersonate another.
  if (answer.json.issuer !== config.issuer) {
    throw new Told(`The metadata is that of ${answer.json.issuer}, not of ${config.issuer}, and is not used.`);
  }
  for (const name of ["authorization_endpoint", "token_endpoint"]) {
    if (!/^https?:\/\//.test(answer.json[name])) throw new Told(`The metadata of the issuer has no usable ${name}.`);
  }
  return answer.json;
}

/** Steps 1 and 2, and the URL of step 3. */
async function prepareSignIn() {
  forget();
  const begun = signIns;
  if (!crypto.subtle) throw new Told("Browsers provide SHA-256 only on https and loopback origins: open the page at 127.0.0.1.");
  const pending = { verifier: randomText(), state: randomText(), scope: askedScope(), opaque: $("ask-opaque").checked };
  pending.challenge = await sha256(pending.verifier);
  if (signIns !== begun) return;
  showVerifier(pending);
  try {
    const metadata = await issuerMetadata();
    if (wantsKey()) await addKey(pending, metadata);
    pending.url = authorizationUrl(metadata.authorization_endpoint, pending);
    pending.issPromised = metadata.authorization_response_iss_parameter_supported === true;
  } catch (error) {
    if (signIns === begun) failStep(3, sentence(error));
    return;
  }
  if (signIns !== begun) return;
  sessionStorage.setItem(PENDING, JSON.stringify(pending));
  showWayToIssuer(pending);
  $("go-to-issuer").focus();
  announce("Verifier and challenge are created. Next: go to the issuer.");
}

function wantsKey() {
  return config.dpop !== "off" && $("ask-key").checked;
}

/**
 * Creates the key that the tokens will be bound to, if the issuer supports that. An issuer without
 * DPoP may not allow this page to send the header with the proof (CORS).
 */
async function addKey(pending, { dpop_signing_alg_values_supported: algorithms }) {
  if (!algorithms?.includes(ALGORITHM)) {
    pending.noKey = true;
    return;
  }
  const key = await createKey();
  try {
    await storeKey(pending.state, key);
  } catch (error) {
    console.error(error);
    throw new Told("This browser cannot store a key while you are at the issuer. Sign in without “bound to a key”.");
  }
  pending.jwk = key.jwk;
  pending.jkt = key.thumbprint;
}

function askedScope() {
  return ["openid", "offline_access", ...($("ask-scope").checked ? [config.scope] : [])].join(" ");
}

function authorizationUrl(endpoint, { scope, state, challenge, jkt }) {
  const url = new URL(endpoint);
  const { client_id, redirect_uri, audience } = config;
  const parameters = { response_type: "code", client_id, redirect_uri, audience, scope, state };
  Object.assign(parameters, { code_challenge: challenge, code_challenge_method: "S256" });
  // RFC 9449 §10: a code that is stolen on its way is useless without the key as well.
  if (jkt) parameters.dpop_jkt = jkt;
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return url.href;
}

function showVerifier({ verifier, challenge, jwk, jkt, noKey }) {
  const shown = [secret("The code verifier", "verifier", verifier)];
  if (noKey) shown.push(el("p", { testid: "no-key" }, "The issuer does not support DPoP: the tokens will be bearer tokens."));
  if (jwk) shown.push(...keyView(jwk, jkt));
  setStep(1, "done", ...shown);
  setStep(2, "done", list([["code_challenge", el("code", { className: "long", testid: "challenge" }, challenge)]]));
}

function keyView(jwk, jkt) {
  const why = "And a key, to which the tokens will be bound. Its private half cannot be copied, not even by this page.";
  const hash = list([["SHA-256 thumbprint", el("code", { className: "long", testid: "jkt" }, jkt)]]);
  const half = el("pre", {}, JSON.stringify(jwk, null, 2));
  return [el("p", {}, why), folded("The public half of the key", "jwk", half, hash)];
}

function authorizationView(text) {
  const url = new URL(text);
  const parameters = [...url.searchParams].map(([name, value]) => [name, el("code", {}, value)]);
  const address = el("code", { className: "long", testid: "authorization-url" }, url.href);
  const where = el("p", {}, "The URL is ", el("code", {}, url.origin + url.pathname), " with:");
  return el("div", {}, where, list(parameters), folded("The complete URL", "authorization-url", address));
}

function showWayToIssuer(pending) {
  showVerifier(pending);
  setStep(3, "waiting", authorizationView(pending.url));
  badge($("step-3").querySelector("[data-role=state]"), "yours", "your turn");
  showLink(pending.url);
}

/**
 * Takes the issuer's response from the query, and removes it from the address bar, so that a reload
 * does not use the code again.
 */
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

/** Why the issuer's response must not be used; null if it is valid. */
function problemOf({ state, iss, error, error_description }, pending) {
  if (state !== pending.state) return "The state is not the one that was sent: the response may be forged.";
  if (iss === null && pending.issPromised) return "The response has no iss, which this issuer always sends.";
  if (iss !== null && iss !== config.issuer) return `The response is from another issuer, ${iss}.`;
  if (error !== null) return `The issuer returned an error: ${withDescription({ error, error_description })}.`;
  return null;
}

/** After the redirect from the issuer: completes step 3, then runs steps 4 and 5. */
async function finishSignIn(response) {
  const pending = parseJson(sessionStorage.getItem(PENDING));
  if (!pending && response) failStep(3, "A response arrived, but this tab has not started a sign-in. Start with “Sign in”.");
  if (!pending) return;
  $("ask-opaque").checked = pending.opaque;
  $("ask-key").checked = Boolean(pending.jkt ?? pending.noKey);
  showWayToIssuer(pending);
  if (!response) return;

  let key = null;
  if (response.state === pending.state) {
    // Used up, successful or not. A response with another state does not end this sign-in.
    sessionStorage.removeItem(PENDING);
    showLink(null);
    if (pending.jkt) key = await storedKey(pending.state);
  }
  const shown = (value) => el("code", {}, value ?? "none");
  const compared = [["state sent", shown(pending.state)], ["state received", shown(response.state)]];
  compared.push(["iss expected", shown(config.issuer)], ["iss received", shown(response.iss)]);
  const problem = problemOf(response, pending);
  if (problem) return failStep(3, problem, list(compared));
  const code = secret("The authorization code", "code", response.code);
  const came = el("p", {}, "The issuer responded, and the response belongs to this sign-in:");
  setStep(3, "done", authorizationView(pending.url), came, list(compared), code);
  if (pending.jkt && !key) return failStep(4, "The key of this sign-in is no longer in this browser. Sign in again.");
  await exchangeCode(response.code, pending.verifier, key);
}

/** The key of a sign-in, which is removed from the store; null if it is gone. */
async function storedKey(name) {
  try {
    return (await takeKey(name)) ?? null;
  } catch (error) {
    console.error(error);
    return null;
  }
}

/** After the redirect, shows the result: the call, or the step that failed. */
function lookAtOutcome() {
  const failed = document.querySelector(".steps > [data-state=failed]");
  const called = document.querySelector("[data-testid=step-5][data-state=done]");
  if (failed ?? called) lookAt(failed ?? called);
}

/**
 * RFC 6749 §4.1.3 and §6, with a proof of the key, if any (RFC 9449 §5): returns the token response
 * and the proof, or throws an error with a sentence.
 */
async function requestTokens(form, key) {
  const { token_endpoint } = await issuerMetadata();
  // A parameter of the embedded issuer.
  const format = $("ask-opaque").checked ? { token_format: "opaque" } : {};
  const body = new URLSearchParams({ client_id: config.client_id, ...format, ...form });
  const post = async () => {
    const proof = key && (await makeProof(key, "POST", token_endpoint));
    const answer = await askIssuer(token_endpoint, { method: "POST", body, headers: proof ? { DPoP: proof } : {} });
    return { ...answer, proof, nonceNeeded: noteNonce(token_endpoint, answer) };
  };
  let answer = await post();
  if (key && answer.nonceNeeded) answer = await post();
  const { ok, status, json, proof } = answer;
  if (json?.error) throw new Told(`The issuer rejected the request: ${withDescription(json)}.`);
  if (!ok || !json?.access_token) throw new Told(`No token from the issuer: it responded with ${status}.`);
  // A token of another type requires more than sending the token (RFC 6749 §7.1).
  const isBound = /^dpop$/i.test(json.token_type);
  if (!(isBound && key) && !/^bearer$/i.test(json.token_type)) {
    throw new Told(`token_type: expected ${key ? "DPoP or Bearer" : "Bearer"}, found ${json.token_type}.`);
  }
  return { ...json, key: isBound ? key : null, proof };
}

async function exchangeCode(code, verifier, key) {
  const { redirect_uri } = config;
  const begun = signIns;
  let tokens;
  try {
    tokens = await requestTokens({ grant_type: "authorization_code", code, code_verifier: verifier, redirect_uri }, key);
  } catch (error) {
    if (signIns === begun) failStep(4, sentence(error));
    return;
  }
  if (signIns !== begun) return;
  setSession(tokens.access_token, tokens.refresh_token, tokens.key, tokens.id_token);
  const scope = el("code", { testid: "granted-scope" }, tokens.scope ?? "as requested");
  const type = el("span", { testid: "token-type" }, tokens.token_type);
  if (key && !tokens.key) type.append(" (the issuer ignored the proof: the tokens are not bound to the key)");
  const shown = [
    list([["token_type", type], ["scope", scope], ["expires_in", `${tokens.expires_in ?? "?"} seconds`]]),
    folded("The access token", "access-token", tokenView(tokens.access_token, "access-token")),
  ];
  if (tokens.proof) shown.unshift(proofView(tokens.proof, "token-proof"));
  if (tokens.refresh_token) shown.push(secret("The refresh token", "refresh-token", tokens.refresh_token));
  if (tokens.id_token) shown.push(secret("The ID token: for this page, never for an API", "id-token", tokens.id_token));
  setStep(4, "done", ...shown);
  await firstCall();
}

async function firstCall() {
  const begun = signIns;
  try {
    const answer = await callApi("/private", session);
    if (signIns !== begun) return;
    const view = answerView(answer, "first");
    if (answer.status !== 200) return failStep(5, `The API responded with ${statusText(answer)}.`, view);
    setStep(5, "done", view);
    announce("The API verified the new token.");
  } catch (error) {
    if (signIns === begun) failStep(5, sentence(error));
  }
}

async function refresh() {
  const before = session;
  let tokens;
  try {
    tokens = await requestTokens({ grant_type: "refresh_token", refresh_token: before.refreshToken }, before.key);
  } catch (error) {
    if (session === before) failStep(6, sentence(error));
    return;
  }
  // The user has signed out meanwhile: discard the tokens.
  if (session !== before) return;
  const { id_token: idToken = before.idToken, refresh_token: refreshToken = before.refreshToken } = tokens;
  setSession(tokens.access_token, refreshToken, tokens.key, idToken);
  const replaced = session.refreshToken !== before.refreshToken;
  const old = replaced ? "The refresh token was replaced: the old one is invalid." : "The refresh token did not change.";
  setStep(
    6,
    "done",
    el("p", { testid: "refreshed" }, `Refreshed at ${TIME.format(new Date())}. ${old}`),
    secret("The old refresh token", "old-refresh-token", before.refreshToken),
    secret("The new refresh token", "new-refresh-token", session.refreshToken),
    folded("The new access token", "new-access-token", tokenView(tokens.access_token, "new-access-token")),
  );
  announce("Refreshed: new access token.");
}

/** RFC 7009 §2.1: revokes the opaque access token. */
async function revoke() {
  const { revocation_endpoint } = await issuerMetadata();
  const body = new URLSearchParams({ client_id: config.client_id, token: session.accessToken });
  const { ok, status } = await askIssuer(revocation_endpoint, { method: "POST", body });
  if (!ok) throw new Told(`Not revoked: the issuer responded with ${status}.`);
  const text = "The token is revoked. The API rejects it when its cached answer ends: within 5 seconds.";
  $("revoked").textContent = text;
  $("revoked").hidden = false;
  announce(text);
}

function signOut() {
  forget();
  announce("Signed out. The tokens are discarded.");
  $("sign-in").focus();
}

/**
 * Ends all sessions of the user, and measures how long the API still accepts the token of this one.
 * OpenID Connect RP-Initiated Logout 1.0 §2, without leaving the page; `everywhere` is a parameter of
 * the embedded issuer.
 */
async function signOutEverywhere() {
  const before = session;
  const { end_session_endpoint: url } = await issuerMetadata();
  const { status } = await callApi("/private", before);
  if (status !== 200) throw new Told(`There is nothing to measure: the API responded with ${status} to this token.`);
  const form = { client_id: config.client_id, id_token_hint: before.idToken, everywhere: "true" };
  const began = performance.now();
  const { ok, json, ...ended } = await askIssuer(url, { method: "POST", body: new URLSearchParams(form) });
  if (json?.error) throw new Told(`Not signed out: ${withDescription(json)}.`);
  if (!ok || !json) throw new Told(`Not signed out: the issuer responded with ${ended.status}.`);
  const { answer, took } = await callUntilRejected(before, began);
  // The tokens of another sign-in, started meanwhile, are kept.
  if (session !== before) return;
  forget();
  showSignedOut({ url, form, told: json, answer, took });
}

/** Calls the API until it rejects the token. Returns its last response, and the time since `began`. */
async function callUntilRejected(from, began) {
  for (;;) {
    const answer = await callApi("/private", from);
    const took = performance.now() - began;
    if (answer.status !== 200 || took > REJECTION_MS) return { answer, took: Math.max(1, Math.round(took)) };
    await new Promise((resolve) => setTimeout(resolve, REJECTION_POLL_MS));
  }
}

function showSignedOut({ url, form, told, answer, took }) {
  const rejected = answer.status === 401;
  const after = `${took} ms after the sign-out`;
  const words = rejected
    ? `The API rejects the token that it accepted a moment ago: ${after}.`
    : `The API still responded with ${statusText(answer)}, ${after}.`;
  const sent = Object.entries(form).map(([name, value]) => `${name}=${shortened(value)}`);
  const entries = [["Sign-out", el("pre", { testid: "everywhere-sign-out" }, [`POST ${url}`, ...sent].join("\n"))]];
  if (told.logout) entries.push(["Logout token", toldView(told.logout, "everywhere-logout")]);
  if (told.event) entries.push(["Security event", toldView(told.event, "everywhere-event")]);
  const place = document.getElementById("signed-out");
  place.dataset.verdict = rejected ? "refused" : "unanswered";
  place.replaceChildren(
    el("h3", {}, "Signed out everywhere"),
    el("p", { className: "verdict", testid: "everywhere-time" }, words),
    list(entries),
    answerView(answer, "everywhere"),
  );
  place.hidden = false;
  announce(words);
  lookAt(place);
}

/** What the issuer sent to an endpoint of the API, and the response. */
function toldView({ url, token, status }, testid) {
  const { header, payload } = decodeToken(token);
  const parts = [header, payload].map((part) => el("pre", {}, ...jsonLines(part)));
  const answered = status ? `the API responded with ${status}` : "no response";
  const line = el("p", { testid }, el("code", {}, `POST ${url}`), `: ${answered}.`);
  return el("div", {}, line, folded("The token, decoded", `${testid}-token`, ...parts));
}

/** For a tenant without --client-id: uses a pasted token. */
async function useToken() {
  const token = $("paste-token").value.trim().replace(/^Bearer\s+/i, "");
  if (!/^[\w.~+/-]+=*$/.test(token)) throw new Told("This is not an access token: paste the complete token and nothing else.");
  forget();
  setSession(token, undefined, null, undefined);
  $("send-token").checked = true;
  await showCall("/private");
  lookAt(document.getElementById("call"));
}

// --- The token -----------------------------------------------------------------------------------

function setSession(accessToken, refreshToken, key, idToken) {
  session = { accessToken, refreshToken, key, idToken };
  showSession();
}

function showSession() {
  const decoded = session && decodeToken(session.accessToken);
  document.getElementById("decoded").hidden = !decoded;
  $("token-none").hidden = Boolean(decoded);
  $("token-none").textContent = session ? "This token is not a signed JWT: only its issuer can read it." : "No token yet.";
  $("decoded-header").replaceChildren(...(decoded ? jsonLines(decoded.header) : []));
  $("decoded-payload").replaceChildren(...(decoded ? jsonLines(decoded.payload) : []));
  badge($("session"), session ? "good" : "none", session ? "signed in" : "no token");
  $("sign-out").hidden = !session;
  $("sign-out-everywhere").hidden = !config.embedded || !session?.idToken;
  $("revoke").hidden = !config.embedded || !session || Boolean(decoded);
  $("revoked").hidden = true;
  $("refresh").disabled = !session?.refreshToken;
  showVerified(null, null);
  showForgeable();
  showBound();
}

/** Shows the API's response to the current token; status null means that it was not sent yet. */
function showVerified(status, json) {
  const claims = status === 200 ? json?.claims : undefined;
  document.documentElement.dataset.gate = claims ? "open" : "shut";
  $("verified-claims").hidden = !claims;
  $("verified-claims").replaceChildren(...(claims ? jsonLines(claims) : []));
  const nothing = session ? "This token has not been sent yet: call GET /private." : "Nothing yet.";
  const answered = `The API responded with ${status}${claims ? "." : ": the handler was not called."}`;
  $("verified-note").textContent = status === null ? nothing : answered;
}

// --- Try to break it -----------------------------------------------------------------------------

/**
 * `check` must reject the case. The embedded issuer creates all tokens; cases with `forge` can also
 * derive one from a valid token on this page.
 */
const CASES = [
  { name: "expired", check: "expired", title: "Expired token", why: "Correctly signed, but expired." },
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
    why: "From an issuer that this API does not trust.",
  },
  {
    name: "alg-none",
    check: "unsupported_algorithm",
    title: "alg: none",
    why: "Claims to need no signature.",
    forge: ({ header, parts }) => `${encodeJson({ ...header, alg: "none" })}.${parts[1]}.`,
  },
  {
    name: "hs-confusion",
    check: "unsupported_algorithm",
    title: "RS256 as HS256",
    why: "Signed with the public key as the shared secret.",
  },
  {
    name: "unknown-kid",
    check: "unknown_key",
    title: "Unknown kid",
    why: "Refers to a key that the issuer does not have.",
    forge: ({ header, parts }) => `${encodeJson({ ...header, kid: "unknown-key" })}.${parts[1]}.${parts[2]}`,
  },
  {
    name: "tampered",
    check: "bad_signature",
    title: "Tampered payload",
    why: "A valid token that was changed after signing.",
    forge: ({ payload, parts }) => `${parts[0]}.${encodeJson({ ...payload, sub: "another-user" })}.${parts[2]}`,
  },
  {
    name: "no-token",
    check: "missing",
    title: "No token",
    why: "An anonymous request.",
    forge: () => null,
  },
];

function availableCases() {
  return CASES.filter(({ forge }) => config.embedded || forge);
}

/** Adds a button for each case to the list with this identifier. */
function showCases(cases, id) {
  for (const attempt of cases) {
    const button = el("button", { type: "button", testid: `break-${attempt.name}` }, attempt.title);
    const why = el("p", { id: `why-${attempt.name}` }, attempt.why);
    button.setAttribute("aria-describedby", why.id);
    const place = el("div", { id: `place-${attempt.name}` });
    document.getElementById(id).append(el("li", {}, el("div", { className: "row" }, button, why), place));
    onPress(button, async () => announce(`${attempt.title}: ${(await tryCase(attempt, true)).words}`));
  }
}

/** Without the embedded issuer, a forged token is derived from a valid one. */
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

function bearer(token) {
  return token === null ? null : { scheme: "Bearer", token };
}

function verdictOf(status) {
  if (status === 400 || status === 401) return ["refused", "rejected, as expected"];
  if (status === 503) return ["unanswered", "not verified: a service that the API needs is unavailable"];
  return ["accepted", status < 300 ? "ACCEPTED: this is a bug" : `NOT REJECTED, responded with ${status}: this is a bug`];
}

/** Sends a case and shows the response; returns the verdict. Collapsed in a list of eight. */
async function tryCase(attempt, unfolded) {
  const place = document.getElementById(`place-${attempt.name}`);
  place.replaceChildren();
  const sent = attempt.copy ? await attempt.copy(session) : bearer(await badToken(attempt));
  const answer = await send("/private", sent);
  const [verdict, words] = verdictOf(answer.status);
  const card = el("div", { className: "result", testid: `result-${attempt.name}` });
  Object.assign(card.dataset, { status: answer.status, verdict });
  card.append(el("p", { className: "verdict", testid: `verdict-${attempt.name}` }, words));
  if (answer.refusedBy) {
    card.dataset.reason = answer.refusedBy;
    card.append(caseReasonView(attempt, answer));
  }
  const sentAndAnswered = [...sentView(attempt.name, sent?.token), exchangeView(answer, attempt.name)];
  const exchange = folded("Request and response", `exchange-${attempt.name}`, ...sentAndAnswered);
  exchange.open = unfolded || verdict === "accepted";
  card.append(exchange);
  place.replaceChildren(card);
  return { verdict, words };
}

/** A case is meaningful only if it was rejected by the check that it is about. */
function caseReasonView({ name, check, explained }, answer) {
  const line = refusalLine(answer);
  if (answer.refusedBy !== check) line.push(` Expected ${check}: another check came first.`);
  else if (explained) line.push(` ${explained}`);
  return el("p", { testid: `reason-${name}` }, ...line);
}

function sentView(name, token) {
  const decoded = token && decodeToken(token);
  if (!decoded) return [];
  const both = [decoded.header, decoded.payload].map((part) => el("pre", {}, ...jsonLines(part)));
  return [folded("The token, decoded", `sent-${name}`, ...both, tokenView(token, `sent-token-${name}`))];
}

/** Tries the cases whose button is not disabled, and shows the result in `place`. */
async function tryAll(cases, place, unfolded) {
  const possible = cases.filter(({ name }) => !$(`break-${name}`).disabled);
  place.textContent = "";
  const verdicts = [];
  for (const attempt of possible) verdicts.push((await tryCase(attempt, unfolded)).verdict);
  place.textContent = summary(verdicts);
  announce(place.textContent);
}

function summary(verdicts) {
  const count = (verdict) => verdicts.filter((one) => one === verdict).length;
  const [refused, unanswered, accepted] = ["refused", "unanswered", "accepted"].map(count);
  if (refused === verdicts.length) return `${refused} of ${refused} rejected.`;
  const unjudged = unanswered ? `, ${unanswered} not verified (503)` : "";
  return `${refused} rejected${unjudged}, ${accepted || "none"} accepted.`;
}

// --- Steal this token ----------------------------------------------------------------------------

/** What an attacker can send who has a copy of the token, but not the key. */
const COPIES = [
  {
    name: "copy-bearer",
    check: "sender_constrained",
    title: "Without the key",
    why: "The token alone, as a bearer token.",
    explained: "So a copy is useless as a bearer token.",
    copy: async ({ accessToken }) => bearer(accessToken),
  },
  {
    name: "copy-other-key",
    check: "other_key",
    title: "Another key",
    why: "The token, with a proof by a key of the attacker.",
    explained: "Anyone can create a key and a valid proof, but this token is bound to the key of this tab.",
    copy: async ({ accessToken }) => present({ accessToken, key: await createKey() }, "/private"),
  },
  {
    name: "copy-replay",
    check: "proof_used",
    title: "A recorded proof",
    why: "The token, with a proof of this tab that was recorded on its way and is sent a second time.",
    explained: "The request of this tab with the same proof was accepted a moment ago.",
    copy: recordCall,
  },
];

/** Calls the API as the user does, and returns what was sent. */
async function recordCall(from) {
  const { status, sent } = await callApi("/private", from);
  if (status !== 200) throw new Told(`There is nothing to record: the API responded with ${status} to the request of this tab.`);
  return sent;
}

/** A copy of a token that is not bound to a key cannot be told from the token. */
function showBound() {
  const isBound = Boolean(session?.key);
  for (const { name } of COPIES) $(`break-${name}`).disabled = !isBound;
  $("copy-all").disabled = !isBound;
  $("copy-none").hidden = isBound;
  const why = "This token is not bound to a key: a copy of it is accepted from anyone. Sign in with “bound to a key”.";
  $("copy-none").textContent = session ? why : "No token yet: sign in with “bound to a key”.";
}

// --- Operator ------------------------------------------------------------------------------------

/** The last state of each issuer, by its `iss`. */
const lastHealth = new Map();
let polling = false;

function keyState({ keys, fetching, stale }) {
  if (!keys) return fetching ? ["fetching", "warn"] : ["none", "bad"];
  if (stale) return ["stale", "warn"];
  return fetching ? ["fetching", "warn"] : ["fresh", "good"];
}

/** When portcullis can fetch the key set for an unknown key. */
function budgetOf({ keys, unknown_key_after_seconds: left }) {
  return keys && left > 0 ? `in ${left} s` : "now";
}

/** The state of the keys of each issuer, and what the embedded issuer publishes. */
async function askHealth() {
  const { ok, status, json } = await askDemo("/demo/health");
  if (!ok || !json?.issuers?.length) throw new Told(`No state of the keys from the demo: it responded with ${status}.`);
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

/** Polls every second while the tab is visible. */
function watchHealth() {
  const look = () => document.hidden || poll();
  document.addEventListener("visibilitychange", look);
  setInterval(look, POLL_MS);
  look();
}

/** Shows one block per issuer, with its `iss` if there are several. */
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

/** The events between two polls, causes before effects. */
function events(before, now) {
  const keys = `${now.keys ?? 0} ${now.keys === 1 ? "key" : "keys"}`;
  if (!before) return [`Watching: ${keys} cached.`];
  const found = [];
  const failed = now.failed_fetches - before.failed_fetches;
  const fetched = now.fetches - before.fetches - failed;
  if (before.running !== now.running) found.push(now.running ? "The issuer is running." : "The issuer is stopped.");
  if (before.published !== now.published) found.push(`The issuer publishes: ${now.published || "nothing"}.`);
  if (now.unknown_kids > before.unknown_kids) found.push("A token arrived that no cached key verifies.");
  if (now.stale && !before.stale) found.push("The keys are past their lifetime.");
  if (failed > 0) found.push(`Fetch failed: ${now.last_error ?? "no reason given"}.`);
  if (fetched > 0) found.push(`Fetched: ${keys}.`);
  if (now.stale_serves > before.stale_serves) found.push("A token was verified with stale keys.");
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

// --- Start ---------------------------------------------------------------------------------------

function showConfig() {
  for (const name of ["api", "issuer", "audience", "scope"]) $(`config-${name}`).textContent = config[name];
  document.getElementById("scope-name").textContent = config.scope;
  const [client, dpop] = [config.client_id !== null, config.dpop !== "off"];
  const shown = { embedded: config.embedded, client, "no-client": !client, dpop: client && dpop };
  for (const node of document.querySelectorAll("[data-only]")) node.hidden = !shown[node.dataset.only];
  // Only the embedded issuer can be operated.
  if (!config.embedded) for (const name of [$("nav-operator"), $("operator-title")]) name.textContent = "Keys";
}

function listen() {
  onPress($("sign-in"), prepareSignIn);
  onPress($("sign-out"), signOut);
  onPress($("sign-out-everywhere"), signOutEverywhere);
  onPress($("revoke"), revoke);
  onPress($("refresh"), refresh);
  onPress($("forget-token"), forget);
  onPress($("use-token"), useToken);
  // An existing authorization URL has the other scope: discard it.
  for (const name of ["ask-scope", "ask-key"]) $(name).addEventListener("change", () => session || forget());
  if (!config.embedded) $("ask-opaque").checked = false;
  for (const route of ["public", "private", "scoped"]) onPress($(`call-${route}`), () => showCall(`/${route}`));
  onPress($("break-all"), () => tryAll(availableCases(), $("break-summary"), false));
  onPress($("copy-all"), () => tryAll(COPIES, $("copy-summary"), true));
  for (const action of ["rotate", "withdraw", "stop", "start"]) onPress($(`op-${action}`), () => operate(action));
}

async function start() {
  const response = takeResponse();
  const answer = await askDemo("/demo/config");
  if (!answer.ok || !answer.json) throw new Told(`No configuration from the demo: it responded with ${answer.status}.`);
  config = answer.json;
  // The issuer redirects to exactly one URI, and localhost differs from 127.0.0.1.
  if (location.origin !== new URL(config.redirect_uri).origin) return location.replace(config.redirect_uri);
  showConfig();
  showCases(availableCases(), "cases");
  showCases(COPIES, "copies");
  showSession();
  listen();
  watchHealth();
  const begun = signIns;
  await finishSignIn(response);
  // Do not move the focus if the user has already moved it.
  if (response && signIns === begun && document.activeElement === document.body) lookAtOutcome();
}

start().catch((error) => {
  const fatal = document.getElementById("fatal");
  fatal.textContent = sentence(error);
  fatal.hidden = false;
});
