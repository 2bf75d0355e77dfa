// A stand-in for a gateway that signs users in and, given its own cookie, adds its token in a
// header, as Cloudflare Access, Google IAP and AWS load balancers do; and for the other sites of
// the check. All of them are virtual hosts of one HTTPS server:
//
// - app.test: the protected API behind the gateway, a page of the same origin (/page), and a
//   sign-in that completes immediately (/login) or uses the identity provider (/start)
// - user.app.test: a page of a sibling subdomain, which is same-site but cross-origin
// - evil.test: a page of another site
// - partner.test: a page of another site, whose origin the API allows
// - idp.test: the identity provider
//
// Records every request that reaches the API, with the API's status.

import { request as send } from "node:http";
import { createServer } from "node:https";

// A fixed port, because examples/behind_gateway.rs allows the partner's origin, port included.
export const PORT = 8443;
export const originOf = (host) => `https://${host}:${PORT}`;

const APP = `app.test:${PORT}`;
const IDP = `idp.test:${PORT}`;
const PAGES = ["user.app.test", "evil.test", "partner.test"].map((host) => `${host}:${PORT}`);

const ASSERTION = "x-gateway-assertion";
// SameSite=None: the browser sends the cookies with every request, so only the API's rule decides.
const ATTRIBUTES = "Secure; HttpOnly; SameSite=None; Path=/";

// The icon keeps the browser from requesting one from the host.
const html = (body) => `<!doctype html><title>page</title><link rel="icon" href="data:,">${body}`;

/** `api`: its base URL. `key` and `cert`: any certificate; the browser ignores errors. */
export async function startGateway({ api, token, key, cert }) {
  const { hostname, port } = new URL(api);
  const records = [];

  /** Forwards the request, with the token if the user is signed in. */
  function forward(request) {
    const headers = { ...request.headers };
    const cookies = (headers.cookie ?? "").split(/; */);
    // Drop a header of this name from the client.
    delete headers[ASSERTION];
    if (cookies.includes("gateway=1")) headers[ASSERTION] = token;
    const { method, url: path } = request;
    const record = {
      name: new URL(path, originOf("app.test")).searchParams.get("case"),
      method,
      path,
      site: headers["sec-fetch-site"],
      mode: headers["sec-fetch-mode"],
      dest: headers["sec-fetch-dest"],
      origin: headers.origin,
      upgrade: headers.upgrade,
      // For each path of the API: whether the cookie that it depends on was sent.
      hadCookie: {
        "/header": cookies.includes("gateway=1"),
        "/cookie": cookies.includes(`session=${token}`),
      },
    };
    const answered = (status, challenge) => records.push({ ...record, status, challenge });
    const forwarded = send({ hostname, port, method, path, headers, agent: false });
    forwarded.on("response", (answer) => {
      answered(answer.statusCode, answer.headers["www-authenticate"]);
    });
    forwarded.on("error", () => answered(502));
    return forwarded;
  }

  function proxy(request, response) {
    const forwarded = forward(request);
    forwarded.on("response", (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    forwarded.on("error", () => response.writeHead(502).end());
    request.pipe(forwarded);
  }

  /** A websocket handshake. The API accepts none; its status shows the result of the rule. */
  function proxyHandshake(request, socket) {
    socket.on("error", () => {});
    if (request.headers.host !== APP) return socket.destroy();
    const forwarded = forward(request);
    forwarded.on("response", (answer) => {
      const line = `HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}`;
      socket.end(`${line}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      answer.resume();
    });
    forwarded.on("error", () => socket.destroy());
    forwarded.end();
  }

  function app(request, response, url) {
    const redirect = (location, headers) => response.writeHead(302, { location, ...headers }).end();
    const signedIn = {
      "set-cookie": [
        `gateway=1; ${ATTRIBUTES}`,
        `session=${token}; ${ATTRIBUTES}; Domain=app.test`,
      ],
    };
    switch (url.pathname) {
      case "/page":
        return response.end(html(""));
      case "/login":
        return redirect("/page", signedIn);
      case "/start":
        return redirect(`https://${IDP}/${url.search}`);
      case "/oauth2/idpresponse":
        return redirect(url.searchParams.get("to"), signedIn);
      default:
        return proxy(request, response);
    }
  }

  function idp(request, response, url) {
    if (request.method === "POST") {
      const location = `https://${APP}/oauth2/idpresponse${url.search}`;
      return response.writeHead(302, { location }).end();
    }
    // Without an action, a form is submitted to the URL of its page, query included.
    return response.end(html('<form method="post"><button>Sign in</button></form>'));
  }

  const server = createServer({ key, cert }, (request, response) => {
    const { host } = request.headers;
    const url = new URL(request.url, `https://${APP}`);
    response.setHeader("content-type", "text/html");
    if (host === APP) return app(request, response, url);
    if (host === IDP) return idp(request, response, url);
    if (PAGES.includes(host)) return response.end(html(""));
    return response.writeHead(421).end();
  });
  server.on("upgrade", proxyHandshake);
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(PORT, "127.0.0.1", resolve);
  });

  return {
    records,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
