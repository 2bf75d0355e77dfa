// The processes of this check, Redis and replicas of the demo, and what Redis knows. They end with
// this process.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { send } from './client.mjs';

const children = new Set();
/** Ends all processes, also one that was stopped. */
export async function endAll() {
  const ended = [...children].map((child) => once(child, 'exit'));
  for (const child of children) child.kill('SIGKILL');
  await Promise.all(ended);
}
process.on('exit', () => void endAll());
for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
]) {
  process.on(signal, () => endAll().then(() => process.exit(status)));
}

/** Starts a process that writes to the file `log`. It receives no other environment than `env`. */
function start(command, flags, env, log) {
  const output = openSync(log, 'a');
  const child = spawn(command, flags, { env, stdio: ['ignore', output, output] });
  children.add(child);
  child.on('error', (error) => console.error(`${command}: ${error.message}`));
  child.on('exit', () => children.delete(child));
  return child;
}

/** Calls `probe` until it resolves to a value, at most `seconds` long, while the process runs. */
async function until(probe, child, log, seconds = 20) {
  for (const end = Date.now() + seconds * 1_000; Date.now() < end; await sleep(50)) {
    const value = await probe().catch(() => undefined);
    if (value) return value;
    if (!children.has(child)) break;
  }
  throw new Error(`${child.spawnfile} is not ready; see ${basename(log)}`);
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** A replica of the demo, on a free port. */
export class Replica {
  /** The URL of its API, and of its embedded issuer, if it has one. */
  api;
  issuer;
  #child;
  #log;

  static async start(command, work, name, env) {
    const replica = await Replica.launch(command, work, name, env);
    await replica.ready();
    return replica;
  }

  /** Starts a replica, and waits until it listens. It may not be ready. Its `name` is unique. */
  static async launch(command, work, name, env) {
    const replica = new Replica();
    replica.#log = join(work, `${name}.log`);
    const own = { LISTEN: '127.0.0.1:0', ISSUER_LISTEN: '127.0.0.1:0', RUST_LOG: 'portcullis=debug' };
    if (env.ISSUER) delete own.ISSUER_LISTEN;
    replica.#child = start(command, [], { ...own, ...env }, replica.#log);
    const address = async () => /^API on (http:[^,]*),/m.exec(replica.log)?.[1];
    replica.api = await until(address, replica.#child, replica.#log);
    replica.issuer = /embedded issuer on (http:[^ ]*)/.exec(replica.log)?.[1];
    return replica;
  }

  /** Waits until its keys, and what else it needs, are loaded. */
  async ready() {
    await until(async () => (await send(this.api, '/readyz')).status === 200, this.#child, this.#log);
  }

  get pid() {
    return this.#child.pid;
  }

  /** What it has written to its log. */
  get log() {
    return readFileSync(this.#log, 'utf8');
  }

  /** Ends the process as a crash does. */
  async end() {
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}

/**
 * A Redis server, which refuses to write when its memory is full. Without persistence, unless the
 * options ask for it.
 */
export class RedisServer {
  port;
  #command;
  #work;
  #options;
  #child;

  constructor(command, work, options = {}) {
    this.#command = command;
    this.#work = work;
    this.#options = options;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts it, at the second time at the same address. */
  async start() {
    this.port ??= await freePort();
    const options = {
      port: this.port,
      bind: '127.0.0.1',
      save: '',
      appendonly: 'no',
      maxmemory: '64mb',
      'maxmemory-policy': 'noeviction',
      dir: this.#work,
      loglevel: 'warning',
      ...this.#options,
    };
    const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
    const log = join(this.#work, 'redis.log');
    this.#child = start(this.#command, flags, {}, log);
    await until(async () => (await this.command('PING')) === 'PONG', this.#child, log);
  }

  /** With `SIGKILL`, it ends as in a crash. */
  async stop(signal = 'SIGTERM') {
    const ended = once(this.#child, 'exit');
    this.#child.kill(signal);
    await ended;
  }

  /** Stops the process without ending it: its connections stay open, and it does not respond. */
  hang() {
    this.#child.kill('SIGSTOP');
  }

  resume() {
    this.#child.kill('SIGCONT');
  }

  /** Sends one command, on a connection of its own. */
  command(...words) {
    return new Promise((resolve, reject) => {
      // Keys may be binary: each byte is one character.
      const parts = words.map((word) => `$${word.length}\r\n${word}\r\n`);
      const text = `*${words.length}\r\n${parts.join('')}`;
      const socket = connect(this.port, '127.0.0.1', () => socket.write(text, 'latin1'));
      let received = '';
      socket.setEncoding('latin1').on('data', (chunk) => {
        received += chunk;
        const [reply] = read(received, 0) ?? [];
        if (reply === undefined) return;
        socket.destroy();
        if (reply instanceof Error) reject(reply);
        else resolve(reply);
      });
      socket.on('error', reject).on('close', () => reject(new Error('Redis closed the connection')));
    });
  }

  /** The connections to it, except that of this command. */
  async connections() {
    const lines = (await this.command('CLIENT', 'LIST')).trim().split('\n');
    return lines.filter((line) => !/ cmd=client(\|list)? /.test(line));
  }

  /** Each key with its value and the milliseconds that are left of it. */
  async entries() {
    const entries = [];
    for (const key of await this.command('KEYS', '*')) {
      entries.push({ key, value: await this.command('GET', key), left: await this.command('PTTL', key) });
    }
    return entries.filter(({ left }) => left !== -2); // ended since
  }
}

/** Reads a reply (RESP 2) at an offset. Returns the reply and where it ends, if it is complete. */
function read(text, start) {
  const line = text.indexOf('\r\n', start);
  if (line < 0) return undefined;
  const [type, head, at] = [text[start], text.slice(start + 1, line), line + 2];
  if (type === '+') return [head, at];
  if (type === '-') return [new Error(head), at];
  if (type === ':') return [Number(head), at];
  if (type === '$') {
    if (head === '-1') return [null, at];
    const end = at + Number(head);
    return text.length >= end + 2 ? [text.slice(at, end), end + 2] : undefined;
  }
  const items = [];
  let next = at;
  while (items.length < Number(head)) {
    const item = read(text, next);
    if (!item) return undefined;
    items.push(item[0]);
    next = item[1];
  }
  return [items, next];
}
