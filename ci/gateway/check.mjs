// Checks which requests of a browser may use a token that the browser sends by itself: one that a
// gateway adds in a header, or one in a cookie. Chromium sends each request from a real page;
// gateway.mjs records the request and the API's response.
//
// A case also fails if the browser did not send the expected request with the cookie, because the
// API's rejection would then prove nothing.
//
// Usage: node check.mjs --api URL --token TOKEN --browser PATH --work DIRECTORY
// The directory contains key.pem and cert.pem, and receives the browser's profile.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { PORT, originOf, startGateway } from "./gateway.mjs";

const { values: flags } = parseArgs({
  options: {
    api: { type: "string" },
    token: { type: "string" },
    browser: { type: "string" },
    work: { type: "string" },
  },
});

const APP = originOf("app.test");
const SIBLING = originOf("user.app.test");
const EVIL = originOf("evil.test");
const PARTNER = originOf("partner.test");

// ---- kinds of requests --------------------------------------------------------------------------

const empty = { mode: "no-cors", dest: "empty" };
const navigation = { mode: "navigate", dest: "document" };

function fetching(init, sent) {
  const act = (page, url) =>
    // Whether the page may read the response is not part of this check.
    page.evaluate(([url, init]) => fetch(url, init).then(String, String), [url, init]);
  return { act, sent: { method: init.method ?? "GET", ...sent } };
}

/** "Simple" requests: any page can send them, without a CORS preflight. */
const text = { method: "POST", headers: { "content-type": "text/plain" }, body: "text" };
const noCors = { mode: "no-cors", credentials: "include" };
const fetchGet = fetching(noCors, empty);
const fetchPost = fetching({ ...noCors, ...text }, empty);
const corsPost = fetching({ ...text, credentials: "include" }, { ...empty, mode: "cors" });
const ownGet = fetching({}, { ...empty, mode: "cors" });
const ownPost = fetching(text, { ...empty, mode: "cors" });

const websocket = {
  act: (page, url) =>
    page.evaluate((url) => {
      const socket = new WebSocket(url.replace("https:", "wss:"));
      return new Promise((resolve) => {
        socket.onopen = socket.onclose = () => resolve();
      });
    }, url),
  // In a handshake, Chromium identifies the page by Origin only.
  sent: { method: "GET", upgrade: "websocket" },
};

function element(name, sent) {
  const act = (page, url) =>
    page.evaluate(
      ([name, url]) => {
        const element = document.createElement(name);
        const done = new Promise((resolve) => {
          element.onload = element.onerror = () => resolve();
        });
        element.src = url;
        document.body.append(element);
        return done;
      },
      [name, url],
    );
  return { act, sent: { method: "GET", ...sent } };
}
const image = element("img", { mode: "no-cors", dest: "image" });
const iframe = element("iframe", { mode: "navigate", dest: "iframe" });

const link = {
  async act(page, url) {
    await page.evaluate((url) => {
      const link = document.createElement("a");
      link.href = url;
      link.textContent = "link";
      document.body.append(link);
    }, url);
    await page.click("a");
  },
  sent: { method: "GET", ...navigation },
};

const formPost = {
  async act(page, url) {
    await page.evaluate((url) => {
      const form = document.createElement("form");
      form.method = "post";
      form.action = url;
      form.append(document.createElement("button"));
      document.body.append(form);
    }, url);
    await page.click("button");
  },
  sent: { method: "POST", ...navigation },
};

const typed = {
  act: (page, url) => page.goto(url),
  sent: { method: "GET", ...navigation },
};

/** From the application to the identity provider, and back to the requested page. */
const signIn = {
  async act(page, url) {
    const { pathname, search } = new URL(url);
    await page.context().clearCookies();
    await page.goto(`${APP}/start?${new URLSearchParams({ to: pathname + search })}`);
    await page.click("button");
  },
  sent: { method: "GET", ...navigation },
};

// ---- the cases ----------------------------------------------------------------------------------

/** Name, page, kind of request, expected status, and what the browser sends about the page. */
const cases = [
  ["cross-site fetch GET", EVIL, fetchGet, 400, { site: "cross-site" }],
  ["cross-site fetch POST", EVIL, fetchPost, 400, { site: "cross-site", origin: EVIL }],
  ["cross-site websocket", EVIL, websocket, 400, { origin: EVIL }],
  ["cross-site image", EVIL, image, 400, { site: "cross-site" }],
  ["cross-site form POST", EVIL, formPost, 400, { site: "cross-site", origin: EVIL }],
  ["cross-site iframe", EVIL, iframe, 400, { site: "cross-site" }],

  ["sibling fetch POST", SIBLING, fetchPost, 400, { site: "same-site", origin: SIBLING }],
  ["sibling websocket", SIBLING, websocket, 400, { origin: SIBLING }],
  ["sibling image", SIBLING, image, 400, { site: "same-site" }],

  ["landing after a sign-in", `${APP}/page`, signIn, 200, { site: "cross-site" }],
  ["link on another site", EVIL, link, 200, { site: "cross-site" }],
  ["link on a sibling", SIBLING, link, 200, { site: "same-site" }],
  ["address typed", "about:blank", typed, 200, { site: "none" }],

  ["same-origin fetch GET", `${APP}/page`, ownGet, 200, { site: "same-origin" }],
  ["same-origin fetch POST", `${APP}/page`, ownPost, 200, { site: "same-origin", origin: APP }],
  ["same-origin websocket", `${APP}/page`, websocket, 200, { origin: APP }],

  ["listed origin, fetch POST", PARTNER, corsPost, 200, { site: "cross-site", origin: PARTNER }],
  ["listed origin, websocket", PARTNER, websocket, 200, { origin: PARTNER }],
];

const gateway = await startGateway({
  api: flags.api,
  token: flags.token,
  key: readFileSync(`${flags.work}/key.pem`),
  cert: readFileSync(`${flags.work}/cert.pem`),
}).catch((error) => {
  if (error.code !== "EADDRINUSE") throw error;
  console.error(
    `port ${PORT} of 127.0.0.1 is taken, and examples/behind_gateway.rs lists an origin with it: ` +
      "stop what listens there.",
  );
  process.exit(1);
});

// Without third-party cookies, the cross-site cases would prove nothing.
const profile = `${flags.work}/profile`;
mkdirSync(`${profile}/Default`, { recursive: true });
const preferences = { profile: { cookie_controls_mode: 0, block_third_party_cookies: false } };
writeFileSync(`${profile}/Default/Preferences`, JSON.stringify(preferences));

const browser = await chromium.launchPersistentContext(profile, {
  executablePath: flags.browser,
  args: [
    "--no-sandbox",
    // These host names exist only here, so bypass any proxy of the environment.
    "--host-resolver-rules=MAP *.test 127.0.0.1",
    "--no-proxy-server",
    "--ignore-certificate-errors",
  ],
});
browser.setDefaultTimeout(15_000);

/** The one request that reached the API under this name. */
async function recorded(name) {
  const found = () => gateway.records.filter((record) => record.name === name);
  for (let waited = 0; !found().length && waited < 15_000; waited += 50) await sleep(50);
  assert.equal(found().length, 1, `${found().length} requests reached the API, not 1`);
  return found()[0];
}

async function run(path, name, start, { act, sent }, expected, said) {
  const page = await browser.newPage();
  try {
    await page.goto(`${APP}/login`);
    if (start !== page.url()) await page.goto(start);
    await act(page, `${APP}${path}?${new URLSearchParams({ case: name })}`);
    const record = await recorded(name);
    assert.ok(record.hadCookie[path], "the browser did not send the cookie");
    // Handshakes may get Sec-Fetch-* in the future; the rule does not need it.
    const both = { upgrade: undefined, origin: undefined, ...sent, ...said };
    for (const [key, value] of Object.entries(both)) {
      assert.equal(record[key], value, `the browser's ${key} is ${record[key]}, not ${value}`);
    }
    const { status, challenge = "no challenge" } = record;
    assert.equal(status, expected, `${status}, not ${expected}: ${challenge}`);
    // 400 for another reason, such as a malformed token, does not count as a rejected page.
    if (status === 400) assert.match(challenge, /error="invalid_request".*may not use/, challenge);
    return record;
  } finally {
    await page.close();
  }
}

// "absent", because "none" is a value of Sec-Fetch-Site: the user typed the URL.
const shown = ({ site = "absent", origin = "absent" }) =>
  `(Sec-Fetch-Site ${site}, Origin ${origin})`;

let passed = 0;
let failed = 0;
for (const path of ["/header", "/cookie"]) {
  for (const [title, ...rest] of cases) {
    const name = `${path} ${title}`;
    try {
      const record = await run(path, name, ...rest);
      passed += 1;
      console.log(`ok  ${name}: ${record.status} ${shown(record)}`);
    } catch (error) {
      failed += 1;
      const record = gateway.records.find((record) => record.name === name);
      // The first line is the reason; the others are a diff or browser internals.
      const [reason] = error.message.split("\n");
      console.error(`FAILED  ${name}: ${reason} ${record ? shown(record) : ""}`);
    }
  }
}

await browser.close();
gateway.close();
console.log(`${passed} of ${passed + failed} cases passed`);
if (failed) process.exit(1);
