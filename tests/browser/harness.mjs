// Starts the real programs for the browser tests: tertulia as host and as the other party, Chromium with the page.
import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { readFileSync, mkdtempSync, existsSync, rmSync } from 'node:fs';
import { createServer as tcp, connect as tcpConnect } from 'node:net';
import { createInterface } from 'node:readline';
import { tmpdir } from 'node:os';
import { join, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const here = dirname(fileURLToPath(import.meta.url));
const bin = process.env.TERTULIA_BIN || join(here, '../../target/debug/tertulia');
const chrome = process.env.CHROMIUM || '/usr/bin/chromium';
export const SECRET = 'browser-test-secret';

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Calls `look` until it gives something truthy; fails with the last value after `ms`. */
export async function until(what, look, ms = 20000) {
  const end = Date.now() + ms;
  let last;
  while (Date.now() < end) {
    last = await look();
    if (last) return last;
    await sleep(150);
  }
  throw new Error(`${what}: not within ${ms} ms, last seen ${JSON.stringify(last)}`);
}

export function freePort() {
  return new Promise((done, fail) => {
    const server = tcp().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => done(port));
    }).on('error', fail);
  });
}

/** A running tertulia: JSON lines of its standard output, and its standard input. */
export class Tertulia {
  constructor(args, env = {}) {
    this.lines = [];
    this.stderr = '';
    this.child = spawn(bin, args, { env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'] });
    createInterface({ input: this.child.stdout }).on('line', (line) => {
      try { this.lines.push(JSON.parse(line)); } catch { this.lines.push({ garbage: line }); }
    });
    this.child.stderr.on('data', (d) => { this.stderr = (this.stderr + d).slice(-20000); });
    this.exited = new Promise((done) => this.child.on('exit', (code, signal) => { this.code = code ?? signal; done(this.code); }));
  }
  say(command) { this.child.stdin.write(JSON.stringify(command) + '\n'); }
  event(name, match = () => true) { return this.lines.find((l) => l.event === name && match(l)); }
  waitFor(name, match = () => true, ms = 20000) {
    return until(`event ${name}`, () => {
      if (this.code !== undefined && !this.event(name, match)) throw new Error(`tertulia ended with ${this.code}: ${this.stderr.slice(-2000)}`);
      return this.event(name, match);
    }, ms);
  }
  async report(dir) {
    const path = join(dir, `report-${this.child.pid}-${Date.now()}.json`);
    this.say({ do: 'report', path });
    await until('report', () => existsSync(path), 5000);
    return JSON.parse(readFileSync(path, 'utf8'));
  }
  async stop() {
    if (this.code === undefined) this.child.kill('SIGTERM');
    const killer = setTimeout(() => this.child.kill('SIGKILL'), 8000);
    await this.exited;
    clearTimeout(killer);
    return this.code;
  }
}

/** A host on loopback with a room; `api` talks REST to it. */
export async function startHost(options = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'tertulia-browser-'));
  const port = await freePort();
  const args = ['host', '--no-tls', '--listen', `127.0.0.1:${port}`, '--secret-env', 'TT_SECRET', '--session', 'room', '--data-dir', dir, ...(options.args || [])];
  const host = new Tertulia(args, { TT_SECRET: SECRET });
  const ready = await until('host ready', () => {
    if (host.code !== undefined) throw new Error(`host ended with ${host.code}: ${host.stderr}`);
    return host.lines.find((l) => l.ready);
  }, 15000);
  const api = async (method, path, body) => {
    const answer = await fetch(`http://127.0.0.1:${port}/openvidu/api${path}`, {
      method, headers: { Authorization: 'Basic ' + Buffer.from(`OPENVIDUAPP:${SECRET}`).toString('base64'), 'Content-Type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    return { status: answer.status, body: text ? JSON.parse(text) : null };
  };
  return {
    dir, port, ready, api, process: host, invitation: ready.invitation, base: `http://127.0.0.1:${port}`,
    async token(session, properties = {}, role = 'PUBLISHER') {
      await api('POST', '/sessions', { customSessionId: session, ...properties });
      const { status, body } = await api('POST', `/sessions/${session}/connection`, { role });
      if (status !== 200) throw new Error(`no token: ${status}`);
      return body.token;
    },
    async stop() { await host.stop(); rmSync(dir, { recursive: true, force: true }); },
  };
}

/** `tertulia join` without a window, with pattern and tone. */
export function join_(target, { id = 3, hz, name = 'desk', size = '640x360@30', args = [], session, env = {} } = {}) {
  return new Tertulia(['join', target, ...(session ? ['--session', session, '--secret-env', 'TT_SECRET'] : []), '--headless', '--name', name,
    '--camera', `pattern:${id}:${size}`, '--microphone', hz ? `tone:${hz}` : 'none', '--seconds', '120', ...args], { TT_SECRET: SECRET, ...env });
}

/** One Chromium with the page, served from localhost. */
export async function startBrowser() {
  const files = {
    '/': [join(here, 'page.html'), 'text/html'],
    '/page.js': [join(here, 'page.js'), 'text/javascript'],
    '/openvidu-browser.js': [join(here, 'node_modules/openvidu-browser/static/js/openvidu-browser-2.32.2.js'), 'text/javascript'],
  };
  const server = createServer((request, response) => {
    const file = files[request.url.split('?')[0]];
    if (!file) { response.writeHead(404); response.end(); return; }
    response.writeHead(200, { 'Content-Type': file[1] });
    response.end(readFileSync(file[0]));
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const browser = await chromium.launch({
    executablePath: chrome, headless: true,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream', '--autoplay-policy=no-user-gesture-required'],
  });
  return {
    async page() {
      const page = await (await browser.newContext()).newPage();
      page.on('pageerror', (e) => console.error('page error:', e.message));
      await page.goto(`http://localhost:${server.address().port}/`);
      return page;
    },
    async stop() { await browser.close(); server.close(); },
  };
}

/** A TCP relay that can cut everything: stands between a client and the host's WebSocket. */
export async function startRelay(port) {
  const pairs = new Set();
  let cut = false;
  const server = tcp((client) => {
    if (cut) { client.destroy(); return; }
    const upstream = tcpConnect(port, '127.0.0.1');
    const pair = [client, upstream];
    pairs.add(pair);
    for (const [from, to] of [[client, upstream], [upstream, client]]) {
      from.on('data', (d) => to.write(d));
      from.on('close', () => { to.destroy(); pairs.delete(pair); });
      from.on('error', () => to.destroy());
    }
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return {
    port: server.address().port,
    cut() { cut = true; for (const pair of pairs) pair.forEach((s) => s.destroy()); pairs.clear(); },
    heal() { cut = false; },
    stop() { this.cut(); server.close(); },
  };
}

/** Waits until the page shows the pattern `id` and plays `hz` of the given stream. */
export function seesAndHears(page, streamId, id, hz, ms = 20000) {
  return until(`page sees ${id} and hears ${hz}`, async () => {
    const o = await page.evaluate((s) => window.tt.observe(s), streamId);
    const seen = id === null || (o && o.pattern && o.pattern.found && o.pattern.crcOk && o.pattern.id === id);
    const heard = hz === null || (o && o.hz && Math.abs(o.hz - hz) < 12 && o.level > -60);
    return seen && heard ? o : null;
  }, ms);
}

/** Waits until our report names the pattern and the tone of a received stream. */
export function reportNames(client, dir, streamId, id, hz, ms = 20000) {
  return until(`report names ${id} and ${hz}`, async () => {
    const report = await client.report(dir);
    const s = report.streams.find((x) => x.stream_id === streamId && x.direction === 'recv');
    if (!s) return null;
    const seen = id === null || (s.video && s.video.pattern && s.video.pattern.id === id && s.video.pattern.frames_read > 10);
    const heard = hz === null || (s.audio && s.audio.tone_hz && Math.abs(s.audio.tone_hz - hz) < 12);
    return seen && heard ? s : null;
  }, ms);
}
