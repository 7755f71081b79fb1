// The unmodified openvidu-browser page and `tertulia join` in one session of `tertulia host`, verified by content.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { startHost, startBrowser, join_, seesAndHears, reportNames, until, sleep } from './harness.mjs';

let browser;
before(async () => { browser = await startBrowser(); });
after(async () => { await browser?.stop(); });

/** Runs `body` with a host and ends everything whatever happens. */
async function withHost(body) {
  const host = await startHost();
  const ends = [];
  try {
    await body(host, (thing) => { ends.push(thing); return thing; });
  } finally {
    for (const thing of ends.reverse()) await (thing.stop ? thing.stop() : thing.context().close());
    await host.stop();
  }
}

const connect = (page, token, name, options) => page.evaluate(([t, n, o]) => window.tt.connect(t, n, o), [token, name, options || {}]);
const streamOf = (page, connectionId) => until(`stream of ${connectionId}`, () => page.evaluate((c) => window.tt.streams().find((s) => s.endsWith(c)), connectionId));
const joined = async (client) => (await client.waitFor('joined')).connection_id;

async function bothWays(host, keep, { properties = {}, desktopFirst, args = [], codec }) {
  const session = 'both';
  await host.api('POST', '/sessions', { customSessionId: session, ...properties });
  const page = keep(await browser.page());
  const join = () => keep(join_(host.base, { session, id: 3, hz: 500, args }));
  let client, pageConnection;
  if (desktopFirst) {
    client = join();
    await client.waitFor('published');
    pageConnection = await connect(page, await host.token(session), 'page', { id: 77, hz: 750 });
  } else {
    pageConnection = await connect(page, await host.token(session), 'page', { id: 77, hz: 750 });
    client = join();
  }
  const desktop = await joined(client);
  const ours = await streamOf(page, desktop);
  await seesAndHears(page, ours, 3, 500);
  const theirs = await client.waitFor('streamCreated', (e) => e.stream_id.endsWith(pageConnection));
  await reportNames(client, host.dir, theirs.stream_id, 77, 750);
  const codecs = await page.evaluate(() => window.tt.codecs());
  const video = codecs.filter((c) => c.kind === 'video').map((c) => c.codec);
  assert.ok(video.length >= 2 && video.every((c) => c === codec), `video codecs ${JSON.stringify(codecs)}`);
  return { page, client, ours, theirs: theirs.stream_id, session, desktop, pageConnection };
}

test('VP8, page first', () => withHost((host, keep) => bothWays(host, keep, { desktopFirst: false, codec: 'video/VP8' })));

test('VP8, desktop first', () => withHost((host, keep) => bothWays(host, keep, { desktopFirst: true, codec: 'video/VP8' })));

test('a picture in layers is a plain VP8 stream for the page', () =>
  withHost(async (host, keep) => {
    const session = 'layers';
    await host.api('POST', '/sessions', { customSessionId: session });
    // 1280x720: three layers, the smaller camera of the other tests has fewer.
    const client = keep(join_(host.base, { session, id: 3, hz: 500, size: '1280x720@30' }));
    await client.waitFor('published');
    const page = keep(await browser.page());
    await connect(page, await host.token(session), 'page', { id: 77, hz: 750 });
    const ours = await streamOf(page, await joined(client));
    await seesAndHears(page, ours, 3, 500);
    // Another desktop with a small tile makes the publisher send a second layer; the page does not notice.
    const other = keep(join_(host.base, { session, id: 4, hz: 600, args: ['--subscribe-only'] }));
    await other.waitFor('streamCreated', (e) => e.stream_id === ours);
    other.say({ do: 'tile', stream_id: ours, size: '160x90' });
    await until('two layers', async () => {
      const sent = (await client.report(host.dir)).streams.find((s) => s.direction === 'send');
      return sent?.video?.layer?.includes('+') && sent;
    });
    await until('the other gets the small one', async () => {
      const seen = (await other.report(host.dir)).streams.find((s) => s.stream_id === ours);
      return seen?.video?.width === 320 && seen.video.pattern?.frames_read > 10 && seen;
    });
    // Large, as far as its line is known to take it: that takes a moment.
    const before = await until('the page gets the whole picture', async () => {
      const seen = await seesAndHears(page, ours, 3, 500);
      return seen.width === 1280 && seen;
    });
    await sleep(3000);
    const after = await seesAndHears(page, ours, 3, 500);
    assert.ok(after.frames > before.frames + 30, `${before.frames} to ${after.frames} pictures`);
    const codecs = await page.evaluate(() => window.tt.codecs());
    assert.ok(codecs.filter((c) => c.kind === 'video').every((c) => c.codec === 'video/VP8'), JSON.stringify(codecs));
  }));

test('H264 forced by the session', () =>
  withHost((host, keep) => bothWays(host, keep, { desktopFirst: true, codec: 'video/H264', properties: { forcedVideoCodec: 'H264' } })));

test('mute is announced, silence is heard, and unmuting brings both back', () =>
  withHost(async (host, keep) => {
    const { page, client, ours, theirs } = await bothWays(host, keep, { desktopFirst: true, codec: 'video/VP8' });
    client.say({ do: 'mute', audio: true });
    await until('page is told', () => page.evaluate((s) => window.tt.observe(s).audioActive === false, ours));
    await until('page hears nothing', () => page.evaluate((s) => window.tt.observe(s).level < -90, ours));
    client.say({ do: 'mute', video: true });
    await until('page is told about the camera', () => page.evaluate((s) => window.tt.observe(s).videoActive === false, ours));
    client.say({ do: 'mute', audio: false, video: false });
    await seesAndHears(page, ours, 3, 500);
    await page.evaluate(() => window.tt.mute('audio', true));
    await client.waitFor('streamPropertyChanged', (e) => e.stream_id === theirs && e.property === 'audioActive' && String(e.value) === 'false');
    await until('report hears nothing', async () => {
      const s = (await client.report(host.dir)).streams.find((x) => x.stream_id === theirs);
      return s.audio.muted === true && (s.audio.tone_hz === null || s.audio.level_dbfs < -80);
    });
  }));

test('a signal both ways', () =>
  withHost(async (host, keep) => {
    const { page, client, desktop, pageConnection } = await bothWays(host, keep, { desktopFirst: true, codec: 'video/VP8' });
    client.say({ do: 'signal', type: 'chat', data: 'from the desk' });
    await until('page gets it', () => page.evaluate((d) => window.tt.signals.find((s) => s.type === 'signal:chat' && s.data === 'from the desk' && s.from === d), desktop));
    await page.evaluate(() => window.tt.signal('chat', 'from the page'));
    const got = await client.waitFor('signal', (e) => e.data === 'from the page');
    assert.equal(got.from, pageConnection);
  }));

test('a third participant joins later, one leaves, and the page reloads', () =>
  withHost(async (host, keep) => {
    const { page, client, ours, session, pageConnection } = await bothWays(host, keep, { desktopFirst: true, codec: 'video/VP8' });
    const third = keep(join_(host.base, { session, id: 9, hz: 900, name: 'third' }));
    const thirdStream = await streamOf(page, await joined(third));
    await seesAndHears(page, thirdStream, 9, 900);
    await reportNames(client, host.dir, thirdStream, 9, 900);
    third.say({ do: 'leave' });
    await until('page sees it go', () => page.evaluate((s) => !window.tt.streams().includes(s), thirdStream));
    await client.waitFor('streamDestroyed', (e) => e.stream_id === thirdStream);
    assert.equal(await third.exited, 0);
    await seesAndHears(page, ours, 3, 500);
    // A reload: the old connection is gone for good after the grace time, the new one works at once.
    await page.reload();
    const again = await connect(page, await host.token(session), 'page', { id: 78, hz: 650 });
    assert.notEqual(again, pageConnection);
    const seen = await client.waitFor('streamCreated', (e) => e.stream_id.endsWith(again));
    await reportNames(client, host.dir, seen.stream_id, 78, 650);
    await seesAndHears(page, ours, 3, 500);
    await client.waitFor('connectionDestroyed', (e) => e.connection_id === pageConnection, 20000);
  }));

test('the page watches a subscriber-only desktop and the desktop a page that only watches', () =>
  withHost(async (host, keep) => {
    const page = keep(await browser.page());
    await connect(page, await host.token('watch'), 'page', { id: 77, hz: 750 });
    const client = keep(join_(host.base, { session: 'watch', id: 3, hz: 500, args: ['--subscribe-only'] }));
    const stream = await client.waitFor('streamCreated');
    await reportNames(client, host.dir, stream.stream_id, 77, 750);
    await sleep(1000);
    assert.deepEqual(await page.evaluate(() => window.tt.streams()), []);
  }));
