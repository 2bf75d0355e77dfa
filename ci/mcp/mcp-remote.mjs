// mcp-remote, the bridge for clients that know only stdio. It starts with a GET, registers itself
// and opens the system's browser.
//
// Usage: node mcp-remote.mjs --work DIRECTORY --issuer URL --server URL
import { spawn } from 'node:child_process';
import { openSync, readFileSync, readdirSync } from 'node:fs';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { args, check, requestsFromNow, scopesOf } from './support.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const test = (name, actual, wanted) => check(`mcp-remote: ${name}`, actual, wanted);

// The stand-in for the browser, under each name by which mcp-remote or its opener looks for one.
// Without a display and a desktop in the environment, no other browser is found.
const bin = `${args.work}/bin`;
const config = `${args.work}/config`;
await mkdir(bin, { recursive: true });
for (const name of ['xdg-open', 'x-www-browser']) {
  await writeFile(`${bin}/${name}`, `#!/bin/sh\nexec "${process.execPath}" "${here('browser.mjs')}" "$1"\n`);
  await chmod(`${bin}/${name}`, 0o755);
}
const environment = {
  PATH: `${bin}:${process.env.PATH}`,
  HOME: args.work,
  BROWSER: `${bin}/x-www-browser`,
  MCP_REMOTE_CONFIG_DIR: config,
};

const requests = await requestsFromNow();
const bridge = spawn(process.execPath, [here('node_modules/mcp-remote/dist/proxy.js'), args.server, '--debug'], {
  env: environment,
  stdio: ['pipe', 'pipe', openSync(`${args.work}/mcp-remote.log`, 'w')],
});
const exited = new Promise((resolve) => bridge.once('exit', resolve));
process.on('exit', () => bridge.kill());

const waiting = new Map(); // from the identifier of a request to what resolves it
createInterface({ input: bridge.stdout }).on('line', (line) => {
  const message = JSON.parse(line);
  waiting.get(message.id)?.(message);
});
const send = (message) => bridge.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
let lastId = 0;
function request(method, params) {
  const id = (lastId += 1);
  const response = new Promise((resolve) => waiting.set(id, resolve));
  send({ id, method, params });
  const late = sleep(20_000, { error: 'no response within 20 seconds' }, { ref: false });
  return Promise.race([response, late, exited.then((code) => ({ error: `mcp-remote ended with code ${code}` }))]);
}
const call = async (name, toolArguments = {}) => {
  const response = await request('tools/call', { name, arguments: toolArguments });
  return response.result?.content?.[0]?.text ?? JSON.stringify(response.error ?? response);
};

const parameters = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'check', version: '1' } };
const initialized = await request('initialize', parameters);
test('initialize', initialized.result?.protocolVersion ?? initialized, '2025-11-25');
send({ method: 'notifications/initialized' });

const debug = readdirSync(config, { recursive: true })
  .filter((name) => name.endsWith('debug.log'))
  .map((name) => readFileSync(`${config}/${name}`, 'utf8'))
  .join('');
test('a GET without a token gets 401', debug, (log) => /Probed the server for an auth challenge.*401/.test(log));

const { signIns, registrations } = await requests();
test('one registration', registrations.length, 1);
test('one sign-in', signIns.length, 1);
test('that requests the scope of the challenge', scopesOf(signIns[0]), 'notes:read');
test('for the resource', signIns[0]?.resource, args.server);

const who = await call('whoami');
test('tools/call whoami: the subject of the token', who, (text) => text.includes('"subject":"alice"'));

const furtherRequests = await requestsFromNow();
const note = { id: 'mcp-remote', text: 'hello' };
test('write_note: succeeds', await call('write_note', note), 'written: notes://mcp-remote');
const further = (await furtherRequests()).signIns;
test('write_note: in exactly one further sign-in', further.length, 1);
test('that requests all scopes of the operation', scopesOf(further[0]), 'notes:read notes:write');

const requestsOfAdmin = await requestsFromNow();
test('admin: an error', await call('admin'), (text) => !text.startsWith('deleted'));
test('admin: no further sign-in', (await requestsOfAdmin()).signIns.length, 0);

bridge.stdin.end();
const timer = setTimeout(() => bridge.kill('SIGKILL'), 5_000);
await exited;
clearTimeout(timer);
