// Drives the unmodified openvidu-browser for the tests: publishes a picture and a tone that carry an identity,
// and reads those of the others from what it really shows and plays.
'use strict';

const CELLS = 40;

function crc8(bits28) {
  // Polynomial 0x07, start 0, over the 28 bits padded with 4 zero bits in front.
  let crc = 0;
  const bits = [0, 0, 0, 0, ...bits28];
  for (let i = 0; i < bits.length; i += 8) {
    crc ^= parseInt(bits.slice(i, i + 8).join(''), 2);
    for (let k = 0; k < 8; k++) crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 0xff : (crc << 1) & 0xff;
  }
  return crc;
}

function toBits(value, n) {
  return Array.from({ length: n }, (_, i) => Math.floor(value / 2 ** (n - 1 - i)) % 2);
}

function drawPattern(canvas, id) {
  const g = canvas.getContext('2d');
  const body = [...toBits(id, 8), ...toBits(Date.now() % 2 ** 20, 20)];
  const cells = [1, 0, 1, 0, ...body, ...toBits(crc8(body), 8)];
  g.fillStyle = `hsl(${(Date.now() / 20) % 360} 50% 40%)`;
  g.fillRect(0, 0, canvas.width, canvas.height);
  const h = Math.floor(canvas.height / 12), w = canvas.width / CELLS;
  cells.forEach((bit, i) => {
    g.fillStyle = bit ? '#fff' : '#000';
    g.fillRect(Math.floor(i * w), 0, Math.ceil(w), h);
  });
  g.fillStyle = '#fff';
  g.font = `${canvas.height / 2}px sans-serif`;
  g.fillText(String(id), canvas.width / 8, canvas.height * 0.7);
}

function readPattern(video) {
  if (!video || !video.videoWidth) return null;
  const canvas = document.createElement('canvas');
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  const g = canvas.getContext('2d', { willReadFrequently: true });
  g.drawImage(video, 0, 0);
  const y = Math.floor(canvas.height / 24);
  const row = g.getImageData(0, y, canvas.width, 1).data;
  const bits = Array.from({ length: CELLS }, (_, i) => {
    const x = Math.floor((i + 0.5) * canvas.width / CELLS) * 4;
    return row[x + 1] > 125 ? 1 : 0;
  });
  const number = (a, b) => parseInt(bits.slice(a, b).join(''), 2);
  if (bits.slice(0, 4).join('') !== '1010') return { found: false, width: canvas.width, height: canvas.height };
  return {
    found: true,
    id: number(4, 12),
    time: number(12, 32),
    crcOk: crc8(bits.slice(4, 32)) === number(32, 40),
    width: canvas.width,
    height: canvas.height,
  };
}

window.tt = {
  session: null, publisher: null, subscribers: {}, log: [], signals: [], audio: null,

  note(event, detail) { this.log.push({ event, ...detail }); },

  async connect(token, name, opts = {}) {
    const OV = new OpenVidu();
    OV.enableProdMode();
    this.audio = new AudioContext();
    await this.audio.resume();
    const session = OV.initSession();
    this.session = session;
    session.on('streamCreated', (e) => {
      const stream = e.stream;
      const holder = document.createElement('div');
      document.body.append(holder);
      const subscriber = session.subscribe(stream, holder);
      this.subscribers[stream.streamId] = { subscriber, stream, analyser: null, playing: false };
      subscriber.on('streamPlaying', () => {
        const s = this.subscribers[stream.streamId];
        if (!s || s.playing) return;
        s.playing = true;
        this.note('streamPlaying', { streamId: stream.streamId });
      });
      this.note('streamCreated', { streamId: stream.streamId, connectionId: stream.connection.connectionId });
    });
    session.on('streamDestroyed', (e) => { delete this.subscribers[e.stream.streamId]; this.note('streamDestroyed', { streamId: e.stream.streamId, reason: e.reason }); });
    session.on('connectionCreated', (e) => this.note('connectionCreated', { connectionId: e.connection.connectionId, data: e.connection.data }));
    session.on('connectionDestroyed', (e) => this.note('connectionDestroyed', { connectionId: e.connection.connectionId, reason: e.reason }));
    session.on('streamPropertyChanged', (e) => this.note('streamPropertyChanged', { streamId: e.stream.streamId, property: e.changedProperty, value: e.newValue, reason: e.reason }));
    session.on('sessionDisconnected', (e) => this.note('sessionDisconnected', { reason: e.reason }));
    session.on('exception', (e) => this.note('exception', { name: e.name, message: String(e.message) }));
    session.on('reconnecting', () => this.note('reconnecting'));
    session.on('reconnected', () => this.note('reconnected'));
    session.on('signal', (e) => this.signals.push({ type: e.type, data: e.data, from: e.from && e.from.connectionId }));
    await session.connect(token, { clientData: name });
    if (opts.publish !== false) await this.publish(OV, opts);
    return session.connection.connectionId;
  },

  async publish(OV, { id = 77, hz = 750, width = 640, height = 360 }) {
    const canvas = document.createElement('canvas');
    canvas.width = width;
    canvas.height = height;
    drawPattern(canvas, id);
    setInterval(() => drawPattern(canvas, id), 33);
    const oscillator = this.audio.createOscillator();
    oscillator.frequency.value = hz;
    const gain = this.audio.createGain();
    gain.gain.value = 0.1;
    const out = this.audio.createMediaStreamDestination();
    oscillator.connect(gain).connect(out);
    oscillator.start();
    const publisher = await OV.initPublisherAsync(undefined, {
      videoSource: canvas.captureStream(30).getVideoTracks()[0],
      audioSource: out.stream.getAudioTracks()[0],
      publishAudio: true, publishVideo: true, mirror: false,
    });
    await this.session.publish(publisher);
    this.publisher = publisher;
    this.note('published', { streamId: publisher.stream.streamId });
  },

  // What is seen and heard of one stream right now.
  observe(streamId) {
    const s = this.subscribers[streamId];
    if (!s) return null;
    const video = s.subscriber.videos.length ? s.subscriber.videos[0].video : null;
    const media = s.stream.getMediaStream();
    if (!s.analyser && media && media.getAudioTracks().length) {
      s.analyser = this.audio.createAnalyser();
      s.analyser.fftSize = 16384;
      s.analyser.smoothingTimeConstant = 0;
      this.audio.createMediaStreamSource(media).connect(s.analyser);
    }
    let hz = null, level = null;
    if (s.analyser) {
      const bins = new Float32Array(s.analyser.frequencyBinCount);
      s.analyser.getFloatFrequencyData(bins);
      let best = 0;
      bins.forEach((v, i) => { if (i > 2 && v > bins[best]) best = i; });
      level = bins[best];
      hz = best * this.audio.sampleRate / s.analyser.fftSize;
    }
    const width = video ? video.videoWidth : 0;
    const frames = video ? video.getVideoPlaybackQuality().totalVideoFrames : 0;
    return { pattern: readPattern(video), width, frames, hz, level, audioActive: s.stream.audioActive, videoActive: s.stream.videoActive };
  },

  streams() { return Object.keys(this.subscribers); },

  async codecs() {
    const pcs = [this.publisher && this.publisher.stream, ...Object.values(this.subscribers).map((s) => s.stream)].filter(Boolean);
    const found = [];
    for (const stream of pcs) {
      const stats = await stream.getRTCPeerConnection().getStats();
      stats.forEach((r) => { if (r.type === 'inbound-rtp' || r.type === 'outbound-rtp') found.push({ type: r.type, kind: r.kind, codec: (stats.get(r.codecId) || {}).mimeType, frames: r.framesDecoded || r.framesEncoded, lost: r.packetsLost, nacks: r.nackCount, plis: r.pliCount }); });
    }
    return found;
  },

  signal(type, data) { return this.session.signal({ type, data, to: [] }); },
  mute(kind, off) { return kind === 'audio' ? this.publisher.publishAudio(!off) : this.publisher.publishVideo(!off); },
  leave() { this.session.disconnect(); },
};
