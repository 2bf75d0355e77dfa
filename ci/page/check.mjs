// Tests the demo's page in a real browser: what it shows while a user signs in, calls the API,
// tries to break in, uses copies of the token, signs out everywhere and operates the issuer; with a
// keyboard, on a phone, in dark mode; and that it sends requests only to the demo. `--nonces` is the
// page of a demo that requires tokens bound to a key, and nonces; `--off`, of one without DPoP.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values: flags } = parseArgs({
  options: Object.fromEntries(["page", "nonces", "off", "browser", "screenshots"].map((name) => [name, { type: "string" }])),
});
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({ executablePath: flags.browser, args: ["--no-sandbox"] });
const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
context.setDefaultTimeout(15_000);
let page = await context.newPage();

const configOf = async (url) => (await fetch(new URL("/demo/config", url))).json();
let config = await configOf(flags.page);
const configs = [config, await configOf(flags.nonces), await configOf(flags.off)];
const origins = configs.flatMap(({ api, issuer }) => [api, issuer, api.replace("127.0.0.1", "localhost")]);
const own = origins.map((url) => new URL(url).origin);

/**
 * Errors and warnings of the browser, and requests to other origins. Chromium also reports each
 * rejected request as a console error, which does not count.
 */
const complaints = [];
const foreignRequests = [];
context.on("weberror", (error) => complaints.push(String(error.error())));
context.on("console", (message) => {
  const isAnswer = /Failed to load resource/.test(message.text());
  if (["error", "warning"].includes(message.type()) && !isAnswer) complaints.push(message.text());
});
context.on("request", (request) => {
  const url = new URL(request.url());
  if (url.protocol !== "data:" && !own.includes(url.origin)) foreignRequests.push(request.url());
});

const $ = (testid) => page.getByTestId(testid);
const text = async (testid) => (await $(testid).textContent()).trim();
const attribute = (testid, name) => $(testid).getAttribute(name);
const screenshot = (name) => page.screenshot({ path: `${flags.screenshots}/${name}.png`, fullPage: true });

/** A screenshot of the viewport, scrolled to `selector`. */
async function part(name, selector) {
  await page.evaluate((selector) => document.querySelector(selector).scrollIntoView({ behavior: "instant" }), selector);
  await page.screenshot({ path: `${flags.screenshots}/${name}.png` });
}

let checks = 0;
let failures = 0;
async function check(name, work) {
  try {
    await work();
    checks += 1;
    console.log(`ok  ${name}`);
  } catch (error) {
    failures += 1;
    console.error(`FAILED  ${name}: ${error.message}`);
    await screenshot(`failed-${failures}`);
  }
}

/** Polls `probe` until it returns the expected value. Returns its last value in any case. */
async function until(probe, expected, seconds = 15) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const came = await probe();
    if (Date.now() > end || (expected instanceof RegExp ? expected.test(came) : came === expected)) return came;
    await page.waitForTimeout(100);
  }
}

async function state(testid, expected) {
  assert.equal(await until(() => attribute(testid, "data-state"), expected), expected, testid);
}

async function call(route) {
  await $("call-status").evaluateAll((nodes) => nodes.forEach((node) => node.remove()));
  await $(`call-${route}`).click();
  await $("call-status").waitFor();
  const challenge = (await $("call-challenge").count()) ? await text("call-challenge") : "";
  return { status: Number((await text("call-status")).match(/\d{3}/)[0]), challenge, body: await text("call-body") };
}

/** Whether the top of the element is in the viewport. */
function inView(testid) {
  return $(testid).evaluate((node) => {
    const { top } = node.getBoundingClientRect();
    return top >= 0 && top < innerHeight;
  });
}

async function signIn({ scope, opaque = false, key = true }) {
  await $("ask-scope").setChecked(scope);
  await $("ask-opaque").setChecked(opaque);
  if (config.dpop !== "off") await $("ask-key").setChecked(key);
  await $("sign-in").click();
  await state("step-2", "done");
  const verifier = await until(() => text("verifier"), /./);
  const challenge = await text("challenge");
  assert.equal(challenge, createHash("sha256").update(verifier).digest("base64url"), "S256");
  await $("go-to-issuer").click();
  await page.getByRole("button", { name: "Allow" }).waitFor();
  assert.ok(page.url().startsWith(config.issuer), page.url());
  return { verifier, challenge };
}

async function allow() {
  await page.getByRole("button", { name: "Allow" }).click();
  await state("step-5", "done");
}

/** Runs `work` in another tab, at the page of another demo or at this one. */
async function inTab(url, work) {
  const [outer, outerConfig] = [page, config];
  page = await context.newPage();
  config = await configOf(url);
  try {
    await page.goto(url);
    await $("sign-in").waitFor();
    await work();
  } finally {
    await page.close();
    [page, config] = [outer, outerConfig];
  }
}

/** Signs in in another tab, and checks the type of the token. */
async function signInAs(type, options) {
  await signIn({ scope: true, ...options });
  await page.getByRole("button", { name: "Allow" }).click();
  assert.equal(await until(() => text("token-type"), type), type);
}

/** The keys that the browser stores for the page: the algorithm, and whether scripts can copy it. */
function storedKeys() {
  return page.evaluate(async () => {
    // To open a database that does not exist would create it.
    if (!(await indexedDB.databases()).some(({ name }) => name === "portcullis-demo")) return [];
    const result = (request) =>
      new Promise((resolve, reject) => Object.assign(request, { onsuccess: () => resolve(request.result), onerror: reject }));
    const database = await result(indexedDB.open("portcullis-demo"));
    const all = await result(database.transaction("keys").objectStore("keys").getAll());
    database.close();
    return all.map(({ key: { privateKey } }) => [privateKey.algorithm.namedCurve, privateKey.extractable]);
  });
}

/** In a separate tab, because starting a sign-in discards the previous one. */
async function noWayToStoppedIssuer() {
  const tab = await context.newPage();
  await tab.goto(flags.page);
  await tab.getByTestId("sign-in").click();
  const step = tab.getByTestId("step-3");
  await tab.locator("[data-testid=step-3][data-state=failed]").waitFor({ timeout: 15_000 });
  assert.match(await step.textContent(), /issuer does not answer/i);
  assert.ok(!(await tab.getByTestId("go-to-issuer").isVisible()), "the link to the issuer stays hidden");
  await tab.close();
}

/** Asserts that axe finds no violation of WCAG 2.2 AA, contrast included. */
async function accessible(where) {
  await page.evaluate(axe);
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const found = await page.evaluate((tags) => axe.run({ runOnly: tags }), tags);
  const told = found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
  assert.deepEqual(told, [], where);
}

/** Signs out everywhere, with another session `sid` of the same user, and checks what the page shows. */
async function signOutEverywhere(sid) {
  // A tab in the background is not painted completely, which the screenshot would show.
  await page.bringToFront();
  const claims = JSON.parse(await text("verified-claims"));
  assert.match(claims.sid, /^[\w-]{43}$/);
  assert.notEqual(claims.sid, sid, "a session for each sign-in");
  await $("sign-out-everywhere").click();
  await $("signed-out").waitFor();
  const [, took] = (await text("everywhere-time")).match(/rejects the token .* (\d+) ms after the sign-out/);
  assert.ok(Number(took) < 2_000, `${took} ms`);
  const form = `client_id=single-page-app\nid_token_hint=\\S+\neverywhere=true`;
  assert.match(await text("everywhere-sign-out"), new RegExp(`^POST ${config.issuer}oauth/logout\n${form}$`));
  assert.match(await text("everywhere-logout"), /\/backchannel-logout: the API responded with 200/);
  assert.match(await text("everywhere-event"), /\/events: the API responded with 202/);
  assert.match(await text("everywhere-request"), /^GET \/private\nAuthorization: DPoP \S+/);
  assert.match(await text("everywhere-status"), /^401/);
  assert.match(await text("everywhere-challenge"), /error="invalid_token"/);
  assert.match(await text("reason-everywhere"), /^Rejected by: revoked\. .+\.$/);
  assert.ok(await $("signed-out").evaluate((place) => place.contains(document.activeElement)), "the focus leads there");
  assert.equal(await text("session"), "no token");
  assert.ok(!(await $("sign-out-everywhere").isVisible()));
  await accessible("signed out everywhere");
  await part("signed-out", "#signed-out");
}

const sha256 = (text) => createHash("sha256").update(text).digest("base64url");
const decoded = (jwt) => jwt.split(".").slice(0, 2).map((part) => JSON.parse(Buffer.from(part, "base64url")));

await page.goto(flags.page);

await check("the page opens at its address", async () => {
  assert.equal(await page.title(), "portcullis demo");
  await page.goto(flags.page.replace("127.0.0.1", "localhost"));
  await page.waitForURL(flags.page);
  assert.equal(await until(() => text("config-issuer"), config.issuer), config.issuer);
});

await check("without a token: /public is open, /private is not", async () => {
  assert.equal((await call("public")).status, 200);
  const { status, challenge } = await call("private");
  assert.equal(status, 401);
  assert.match(challenge, /Bearer realm="api"/);
  assert.doesNotMatch(challenge, /error=/);
});

await check("the user denies the sign-in", async () => {
  await signIn({ scope: true });
  await part("consent", "body");
  await accessible("the consent page");
  await page.getByRole("button", { name: "Deny" }).click();
  await state("step-3", "failed");
  assert.match(await text("step-3"), /access_denied/);
  assert.deepEqual(await storedKeys(), [], "the key of this sign-in is deleted");
});

await check("an unsolicited authorization response is rejected, during a sign-in and without one", async () => {
  const exchanges = [];
  const count = (request) => request.method() === "POST" && request.url().includes("/oauth/") && exchanges.push(request.url());
  page.on("request", count);
  for (const underWay of [false, true]) {
    for (const query of ["code=stolen&state=guessed", "code=stolen", "code=stolen&state=", "error=access_denied&state=guessed"]) {
      await page.evaluate(() => sessionStorage.clear());
      await page.goto(flags.page);
      await state("step-2", "waiting");
      if (underWay) {
        await $("sign-in").click();
        await $("go-to-issuer").waitFor();
      }
      await page.goto(`${flags.page}?${query}`);
      await state("step-3", "failed");
      assert.match(await text("step-3"), underWay ? /state is not the one that was sent/ : /has not started a sign-in/, query);
      await state("step-4", "waiting");
      assert.equal(await text("session"), "no token", query);
      assert.equal(page.url(), flags.page, "the query is gone from the address");
      assert.equal(await $("go-to-issuer").isVisible(), underWay, "an unsolicited response does not end the sign-in");
    }
  }
  page.off("request", count);
  assert.deepEqual(exchanges, [], "no code was exchanged");
  // The keys of the sign-ins that were cut off here.
  await page.evaluate(() => (sessionStorage.clear(), indexedDB.deleteDatabase("portcullis-demo"), null));
  await page.goto(flags.page);
});

await check("six steps of Authorization Code + PKCE, without the scope", async () => {
  const made = await signIn({ scope: false });
  await allow();
  for (const step of [1, 2, 3, 4, 5]) await state(`step-${step}`, "done");
  await state("step-6", "waiting");
  assert.ok(await until(() => inView("step-5"), true), "the way leads to step 5");
  assert.ok(await $("step-5").evaluate((step) => step.contains(document.activeElement)), "and so does the focus");
  assert.equal(await text("session"), "signed in");
  assert.equal(page.url(), flags.page, "the code is gone from the address");
  assert.equal(await text("verifier"), made.verifier, "what was made before leaving is shown");
  assert.match(await text("code"), /^[\w-]{43}$/);
  assert.ok(!(await $("verifier").isVisible()), "secrets are folded");
  const [header, payload] = decoded(await text("access-token"));
  assert.equal(header.alg, "RS256");
  assert.equal(payload.azp, "single-page-app");
  for (const word of [payload.jti, payload.sub, String(payload.exp)]) {
    assert.ok((await text("decoded-payload")).includes(word), word);
    assert.ok((await text("verified-claims")).includes(word), word);
  }
});

await check("/private accepts the token; /scoped requires a scope", async () => {
  const open = await call("private");
  assert.equal(open.status, 200);
  assert.match(open.body, /"sub"/);
  const { status, challenge } = await call("scoped");
  assert.equal(status, 403);
  assert.match(challenge, /error="insufficient_scope"/);
  assert.match(challenge, /scope="read:messages"/);
  assert.match(await text("reason-call"), /^Rejected by: insufficient_scope\./);
  await $("send-token").uncheck();
  assert.equal((await call("private")).status, 401);
  await $("send-token").check();
});

await check("/scoped accepts a token with the scope", async () => {
  await $("sign-out").click();
  await state("step-1", "waiting");
  await signIn({ scope: true });
  await allow();
  assert.equal((await call("scoped")).status, 200);
});

await check("the tokens are bound to a key, of which each request has a proof", async () => {
  const jkt = await text("jkt");
  assert.equal(new URL(await text("authorization-url")).searchParams.get("dpop_jkt"), jkt);
  assert.equal(await text("token-type"), "DPoP");
  const token = await text("access-token");
  assert.equal(decoded(token)[1].cnf.jkt, jkt);
  const requested = JSON.parse(await text("token-proof-claims"));
  assert.deepEqual([requested.htm, requested.htu, requested.ath], ["POST", `${config.issuer}oauth/token`, undefined]);
  assert.equal((await call("private")).status, 200);
  assert.match(await text("call-request"), /^GET \/private\nAuthorization: DPoP \S+\nDPoP: \S+$/);
  const [header, claims] = [await text("call-proof-header"), await text("call-proof-claims")].map((part) => JSON.parse(part));
  const { crv, kty, x, y } = header.jwk;
  assert.deepEqual(Object.keys(header.jwk), ["crv", "kty", "x", "y"], "the public half only");
  assert.equal(sha256(JSON.stringify({ crv, kty, x, y })), jkt);
  assert.deepEqual([header.typ, header.alg], ["dpop+jwt", "ES256"]);
  assert.deepEqual([claims.htm, claims.htu, claims.ath], ["GET", `${config.api}/private`, sha256(token)]);
  assert.ok(await $("call-proof-claims").isVisible(), "shown beside the request");
  await call("private");
  assert.notEqual(JSON.parse(await text("call-proof-claims")).jti, claims.jti, "a new proof for each request");
  assert.deepEqual(await storedKeys(), [], "the key is in memory now");
});

await check("while the user is at the issuer, the key is stored, and no script can copy it", async () => {
  await inTab(flags.page, async () => {
    await $("sign-in").click();
    await $("go-to-issuer").waitFor();
    assert.deepEqual(await storedKeys(), [["P-256", false]]);
    await $("ask-scope").uncheck();
    assert.deepEqual(await until(async () => (await storedKeys()).length, 0), 0, "discarded with the sign-in");
  });
});

await check("if the key is gone, the code is not used", async () => {
  await inTab(flags.page, async () => {
    await $("sign-in").click();
    await $("go-to-issuer").waitFor();
    await page.evaluate(() => indexedDB.deleteDatabase("portcullis-demo"));
    await $("go-to-issuer").click();
    await page.getByRole("button", { name: "Allow" }).click();
    await state("step-4", "failed");
    assert.match(await text("step-4"), /key of this sign-in is no longer/);
  });
});

await check("refresh: a new access token and a new refresh token", async () => {
  const before = await text("access-token");
  await $("refresh").click();
  await state("step-6", "done");
  const after = await text("new-access-token");
  assert.notEqual(after, before);
  assert.notEqual(await text("new-refresh-token"), await text("old-refresh-token"));
  assert.ok((await text("decoded-payload")).includes(decoded(after)[1].jti), "the new one is shown");
  assert.equal(decoded(after)[1].cnf.jkt, decoded(before)[1].cnf.jkt, "bound to the same key");
  assert.equal((await call("private")).status, 200);
});

await check("an opaque token: the API asks the issuer, and rejects it once it is revoked", async () => {
  await signIn({ scope: true, opaque: true });
  await allow();
  assert.match(await text("access-token"), /^demo_at_[\w-]{43}$/);
  assert.match(await text("token-none"), /only its issuer can read it/);
  const claims = JSON.parse(await text("verified-claims"));
  assert.equal(claims.active, true);
  assert.equal(claims.azp, "single-page-app");
  assert.equal((await call("scoped")).status, 200);
  await part("opaque", "#token");
  await $("revoke").click();
  assert.match(await until(() => text("revoked"), /revoked/), /within 5 seconds/);
  const status = async () => (await call("private")).status;
  assert.equal(await until(status, 401), 401);
  assert.match(await text("reason-call"), /inactive/);
  // For the checks that follow.
  await $("refresh").click();
  await state("step-6", "done");
  assert.equal((await call("private")).status, 200, "the refresh token is not revoked");
  await signIn({ scope: true });
  await allow();
});

await check("sign out everywhere: the API rejects the token that it accepted, and the tokens of other tabs", async () => {
  await inTab(flags.page, async () => {
    await signInAs("Bearer", { key: false });
    await state("step-5", "done");
    const { sid } = decoded(await text("access-token"))[1];
    const other = page;
    [page] = context.pages();
    try {
      await signOutEverywhere(sid);
    } finally {
      page = other;
    }
    assert.equal((await call("private")).status, 401, "the other tab");
    assert.match(await text("reason-call"), /^Rejected by: revoked\./);
    await $("refresh").click();
    await state("step-6", "failed");
  });
  // What is issued in the second of the sign-out is revoked as well.
  const second = () => Math.floor(Date.now() / 1000);
  const last = second();
  await until(() => second() > last, true);
  await signIn({ scope: true });
  await allow();
  assert.ok(!(await $("signed-out").isVisible()), "the result is shown until the next sign-in");
  assert.equal((await call("private")).status, 200, "what is issued later is good");
});

await check("each attack is rejected, by the expected check", async () => {
  await $("break-all").click();
  assert.equal(await until(() => text("break-summary"), "8 of 8 rejected."), "8 of 8 rejected.");
  const cases = {
    expired: "expired",
    "other-audience": "wrong_audience",
    "other-issuer": "unknown_issuer",
    "alg-none": "unsupported_algorithm",
    "hs-confusion": "unsupported_algorithm",
    "unknown-kid": "unknown_key",
    tampered: "bad_signature",
    "no-token": "missing",
  };
  for (const [name, reason] of Object.entries(cases)) {
    assert.equal(await attribute(`result-${name}`, "data-reason"), reason, `${name}: by the check that it is about`);
    assert.ok(await $(`reason-${name}`).isVisible(), `${name}: the check is named`);
    assert.ok(!(await $(`${name}-status`).isVisible()), `${name}: folded, as one of eight`);
    assert.equal(await attribute(`result-${name}`, "data-verdict"), "refused", name);
    assert.equal(await attribute(`result-${name}`, "data-status"), "401", name);
    assert.equal((await text(`result-${name}`)).includes("invalid_token"), name !== "no-token", name);
  }
  await $("break-tampered").click();
  assert.equal(await until(() => $("tampered-status").isVisible(), true), true, "tried alone, it is open");
  await $("exchange-tampered-fold").click();
});

await check("copies of the token are rejected: without the key, with another one, with a recorded proof", async () => {
  await $("copy-all").click();
  assert.equal(await until(() => text("copy-summary"), "3 of 3 rejected."), "3 of 3 rejected.");
  const cases = {
    "copy-bearer": { reason: "sender_constrained", challenge: /^Bearer .*error="invalid_token".*DPoP / },
    "copy-other-key": { reason: "other_key", challenge: /^DPoP .*error="invalid_token".*Bearer / },
    "copy-replay": { reason: "proof_used", challenge: /^DPoP .*error="invalid_dpop_proof".*Bearer / },
  };
  const own = await text("first-proof-header");
  for (const [name, { reason, challenge }] of Object.entries(cases)) {
    assert.equal(await attribute(`result-${name}`, "data-reason"), reason, name);
    assert.equal(await attribute(`result-${name}`, "data-status"), "401", name);
    assert.equal(await attribute(`result-${name}`, "data-verdict"), "refused", name);
    assert.match(await text(`${name}-challenge`), challenge, name);
    assert.match(await text(`reason-${name}`), new RegExp(`^Rejected by: ${reason}\\. .+\\. .+\\.$`), `${name}: a sentence explains it`);
    const explained = await $(`${name}-explained-fold`).locator("..").textContent();
    assert.match(explained, /The scheme: .*Another scheme: /, name);
    assert.ok(await $(`${name}-status`).isVisible(), `${name}: open, as one of three`);
    assert.doesNotMatch(explained, /does not know|cannot parse|no error/, name);
    const proofs = await $(`${name}-proof-header`).count();
    assert.equal(proofs, name === "copy-bearer" ? 0 : 1, name);
    if (proofs) assert.equal((await text(`${name}-proof-header`)) === own, name === "copy-replay", `${name}: whose key`);
  }
  assert.equal((await call("private")).status, 200, "the token still works with its key");
  await part("steal", "#steal");
  await accessible("the copies");
});

await check("without the key, the tokens are bearer tokens, and a copy works for anyone", async () => {
  await inTab(flags.page, async () => {
    assert.match(await text("copy-none"), /^No token yet/);
    await signInAs("Bearer", { key: false });
    await state("step-5", "done");
    assert.equal(new URL(await text("authorization-url")).searchParams.get("dpop_jkt"), null);
    assert.match(await text("first-request"), /Authorization: Bearer \S+$/);
    assert.match(await text("copy-none"), /not bound to a key/);
    assert.ok(await $("copy-all").isDisabled());
    await $("refresh").click();
    await state("step-6", "done");
    assert.equal((await call("private")).status, 200);
  });
});

await check("an opaque token that is bound to a key: copies of it are rejected", async () => {
  await inTab(flags.page, async () => {
    await signInAs("DPoP", { opaque: true });
    await state("step-5", "done");
    assert.match(await text("verified-claims"), /"token_type": "DPoP"/);
    await $("copy-all").click();
    assert.equal(await until(() => text("copy-summary"), "3 of 3 rejected."), "3 of 3 rejected.");
  });
});

await check("an issuer without DPoP: the tokens are bearer tokens", async () => {
  await context.route(`${config.issuer}.well-known/openid-configuration`, async (route) => {
    const response = await route.fetch();
    const { dpop_signing_alg_values_supported: _, ...metadata } = await response.json();
    await route.fulfill({ response, json: metadata });
  });
  await inTab(flags.page, async () => {
    await signInAs("Bearer");
    await state("step-5", "done");
    assert.match(await text("no-key"), /does not support DPoP/);
  });
  await context.unrouteAll();
});

await check("an issuer that ignores the proof: the tokens are bearer tokens, and the page tells", async () => {
  await context.route(/dpop_jkt=/, (route) => route.continue({ url: route.request().url().replace(/&dpop_jkt=[^&]*/, "") }));
  await context.route(`${config.issuer}oauth/token`, (route) => {
    const { dpop: _, ...headers } = route.request().headers();
    return route.continue({ headers });
  });
  await inTab(flags.page, async () => {
    await signInAs("Bearer (the issuer ignored the proof: the tokens are not bound to the key)");
    await state("step-5", "done");
    assert.match(await text("copy-none"), /not bound to a key/);
  });
  await context.unrouteAll();
});

await check("nonces: the first request is sent again with the nonce, the next ones have it", async () => {
  await inTab(flags.nonces, async () => {
    await signInAs("DPoP");
    await state("step-5", "done");
    assert.match(await text("first-nonce"), /use_dpop_nonce/);
    assert.match(JSON.parse(await text("first-proof-claims")).nonce, /./);
    assert.equal((await call("private")).status, 200);
    assert.equal(await $("call-nonce").count(), 0);
    await $("copy-all").click();
    assert.equal(await until(() => text("copy-summary"), "3 of 3 rejected."), "3 of 3 rejected.");
  });
});

await check("an API that requires bound tokens rejects bearer tokens", async () => {
  await inTab(flags.nonces, async () => {
    await signInAs("Bearer", { key: false });
    await state("step-5", "failed");
    assert.match(await text("reason-first"), /^Rejected by: not_bound\./);
    assert.match(await text("first-challenge"), /^DPoP /);
  });
});

await check("without DPoP, the page signs in with bearer tokens, and does not mention keys", async () => {
  await inTab(flags.off, async () => {
    for (const testid of ["ask-key", "nav-steal", "copy-all"]) assert.ok(!(await $(testid).isVisible()), testid);
    await signInAs("Bearer");
    await state("step-5", "done");
    assert.equal(await $("jwk-fold").count(), 0);
    assert.equal((await call("scoped")).status, 200);
  });
});

await screenshot("light");
await part("top", "body");
await page.emulateMedia({ colorScheme: "dark" });
await page.screenshot({ path: `${flags.screenshots}/top-dark.png` });
await page.emulateMedia({ colorScheme: "light" });
await part("break", "#break");

await check("after a rotation, the next token causes a fetch of its key", async () => {
  // Three fetches at once, then one every five seconds. The attempts to break in may have used
  // them up. The page may still show the state of a second ago, so wait for a new one, and for the
  // one after it, which begins once the first is shown.
  for (const _ of [1, 2]) await page.waitForResponse((response) => response.url().endsWith("/demo/health"));
  assert.equal(await until(() => text("health-budget"), "now", 30), "now");
  const fetches = Number(await text("health-fetches"));
  await $("op-rotate").click();
  assert.match(await until(() => text("op-said"), /key-2/), /key-2/);
  await $("refresh").click();
  assert.match(await until(async () => decoded(await text("new-access-token"))[0].kid, /^key-2-/), /^key-2-/);
  assert.equal((await call("private")).status, 200);
  assert.ok((await until(async () => Number(await text("health-fetches")) > fetches, true)), "a fetch");
  assert.equal(await until(() => text("health-keys"), "2"), "2");
});

await check("without fetch budget, a token with a new key is rejected, and the page shows until when", async () => {
  // The first token of each rotation causes a fetch until the budget is used up: three fetches, and
  // those regained meanwhile.
  let status = 200;
  for (let rotations = 3; status === 200 && rotations < 12; rotations += 1) {
    const name = new RegExp(`key-${rotations}\\b`);
    await $("op-rotate").click();
    assert.match(await until(() => text("op-said"), name), name);
    await $("refresh").click();
    assert.match(await until(async () => decoded(await text("new-access-token"))[0].kid, name), name);
    ({ status } = await call("private"));
  }
  assert.equal(status, 401);
  assert.match(await text("reason-call"), /^Rejected by: unknown_key\./);
  const explained = await page.locator("#call-answer").textContent();
  assert.match(explained, /may be new.* fetches the key set for it again in \d+ s/);
  assert.doesNotMatch(explained, /forged/);
  assert.equal(await until(() => text("health-budget"), "now", 30), "now");
  assert.equal((await call("private")).status, 200);
  await $("op-withdraw").click();
  assert.match(await until(() => text("health-published"), /^key-\d+-\w+$/), /^key-\d+-\w+$/);
});

await check("the log lists events, the newest first", async () => {
  const entries = (await $("event-log").locator("li").allTextContents()).reverse();
  const cause = entries.findLastIndex((entry) => entry.includes("A token arrived that no cached key verifies."));
  const effect = entries.findLastIndex((entry) => /Fetched: \d+ keys\./.test(entry));
  assert.ok(cause >= 0 && cause < effect, entries.join("\n"));
});

await check("while the issuer is down, cached keys serve, then stale ones; afterwards they are fresh", async () => {
  await $("op-stop").click();
  assert.equal(await until(() => text("health-issuer"), "stopped"), "stopped");
  assert.equal((await call("private")).status, 200);
  assert.equal(await until(async () => (await call("private"), text("health-state")), "stale", 60), "stale");
  assert.equal((await call("private")).status, 200);
  assert.ok((await until(async () => Number(await text("health-stale-serves")) > 0, true)), "stale serves are counted");
  assert.ok(Number(await text("health-failed")) > 0);
  assert.match(await text("health-last-error"), /no answer/);
  await $("refresh").click();
  await state("step-6", "failed");
  assert.match(await text("step-6"), /issuer does not answer/i);
  await noWayToStoppedIssuer();
  await part("operator", "#operator");
  await $("op-start").click();
  assert.equal(await until(async () => (await call("private"), text("health-state")), "fresh", 60), "fresh");
  await $("refresh").click();
  await state("step-6", "done");
});

await check("no accessibility violations: light, dark, at the size of a phone", async () => {
  await accessible("light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible("dark");
  await screenshot("dark");
  await page.setViewportSize({ width: 360, height: 740 });
  await accessible("on a phone");
  const [wide, view] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= view, `nothing is cut off: ${wide} of ${view} pixels`);
  assert.ok(await $("session").isVisible(), "whether there is a token");
  const [last, badge] = await Promise.all(["nav-operator", "session"].map((name) => $(name).boundingBox()));
  assert.ok(last.x + last.width <= badge.x, "the way to each panel");
  await screenshot("phone");
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
});

await check("a reload discards the tokens; they are never stored", async () => {
  const stored = await page.evaluate(() => [{ ...localStorage }, { ...sessionStorage }]);
  assert.deepEqual(stored, [{}, {}]);
  assert.deepEqual(await storedKeys(), []);
  await page.reload();
  await until(() => $("sign-in").isVisible(), true);
  assert.equal((await call("private")).status, 401);
});

await check("the page works with the keyboard alone", async () => {
  await page.reload();
  await until(() => $("sign-in").isVisible(), true);
  const focused = () => page.evaluate(() => document.activeElement.dataset.testid ?? document.activeElement.tagName);
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "skip");
  for (let press = 0; press < 20 && (await focused()) !== "sign-in"; press += 1) await page.keyboard.press("Tab");
  assert.equal(await focused(), "sign-in");
  await page.keyboard.press("Enter");
  assert.equal(await until(focused, "go-to-issuer"), "go-to-issuer", "focus goes where it goes on");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Allow" }).waitFor();
  for (let press = 0; press < 5; press += 1) {
    await page.keyboard.press("Tab");
    if ((await page.evaluate(() => document.activeElement.textContent)) === "Allow") break;
  }
  await page.keyboard.press("Enter");
  await state("step-5", "done");
});

await check("no requests to other origins, no errors in the console", async () => {
  assert.deepEqual(foreignRequests, []);
  assert.deepEqual(complaints, []);
});

await browser.close();
if (failures) {
  console.error(`${failures} of ${checks + failures} failed`);
  process.exit(1);
}
