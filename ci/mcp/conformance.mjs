// The conformance suite of MCP, against the server without the layer, and through a proxy that adds
// a token with every scope and role. Both must give the same rows. The failures in them come from
// the example: it has none of the tools, resources and prompts that the suite asks for.
//
// Usage: node conformance.mjs --node PATH --work DIRECTORY --issuer URL --server URL --bare URL
import { execFile } from 'node:child_process';
import { createServer, request } from 'node:http';
import { fileURLToPath } from 'node:url';
import { args, check, token } from './support.mjs';

const test = (name, actual, wanted) => check(`conformance: ${name}`, actual, wanted);
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const accessToken = await token('carol', 'notes:read notes:write');

const server = new URL(args.server);
const rejections = []; // responses with a challenge
const proxy = createServer((incoming, response) => {
  const headers = [...incoming.rawHeaders, 'Authorization', `Bearer ${accessToken}`];
  const { method, url: path } = incoming;
  const outgoing = request({ host: server.hostname, port: server.port, method, path, headers }, (received) => {
    const challenge = received.headers['www-authenticate'];
    if (challenge) rejections.push(`${received.statusCode} ${challenge}`);
    response.writeHead(received.statusCode, received.rawHeaders);
    received.pipe(response);
  });
  outgoing.on('error', () => response.destroy());
  response.on('close', () => outgoing.destroy());
  incoming.pipe(outgoing);
});
await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));

const suite = here('node_modules/@modelcontextprotocol/conformance/dist/index.js');

/** The rows that the suite prints for the server at `url`. */
async function rows(url, name) {
  const flags = ['server', '--url', url, '--requirements', '2026-07-28', '-o', `${args.work}/${name}`];
  // Its exit code is 1 if any scenario fails.
  const output = await new Promise((resolve) => {
    execFile(args.node, [suite, ...flags], { timeout: 60_000 }, (error, stdout, stderr) => resolve(stdout + stderr));
  });
  const found = output.match(/^[✓✗] \S+: \d+ passed, \d+ failed$/gm) ?? [];
  test(`the suite ends: ${name}`, found.length > 0 || output.slice(-1000), true);
  return found;
}

const bare = await rows(args.bare, 'bare');
const protectedRows = await rows(`http://127.0.0.1:${proxy.address().port}${server.pathname}`, 'protected');
const difference = [
  ...protectedRows.filter((row) => !bare.includes(row)).map((row) => `+${row}`),
  ...bare.filter((row) => !protectedRows.includes(row)).map((row) => `-${row}`),
];
test('the layer rejects nothing', rejections, []);
test(`${bare.length} rows as without the layer`, difference, []);
proxy.close();
proxy.closeAllConnections();
