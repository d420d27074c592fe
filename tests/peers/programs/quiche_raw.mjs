// quiche, raw QUIC, by @matrixai/quic. It has streams and no datagrams in its interface, so datagrams are left out.
import { randomFillSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [home] = process.argv.slice(2);
const quic = await import(pathToFileURL(home + '/node_modules/@matrixai/quic/dist/index.js').href);
let input = '';
for await (const chunk of process.stdin) input += chunk;
const order = JSON.parse(input);
const bytes = (text) => Buffer.from(text, 'hex');

const client = await quic.QUICClient.createQUICClient(
  {
    host: order.host,
    port: order.port,
    localHost: '127.0.0.1',
    serverName: 'localhost',
    crypto: { ops: { randomBytes: async (data) => { randomFillSync(new Uint8Array(data)); } } },
    config: { verifyPeer: true, ca: readFileSync(order.ca, 'utf8'), applicationProtos: ['im-access'], maxIdleTimeout: 30000 },
  },
  { timer: 10000 },
);
const connection = client.connection;
let closed = -1;
const ended = new Promise((resolve) => {
  connection.addEventListener(quic.events.EventQUICConnectionError.name, (event) => {
    closed = event.detail?.data?.errorCode ?? closed;
    resolve();
  });
  connection.addEventListener(quic.events.EventQUICConnectionClose.name, (event) => {
    closed = event.detail?.data?.errorCode ?? closed;
    resolve();
  });
});

class Lane {
  constructor(type = 'bidi') {
    const stream = connection.newStream(type);
    this.writer = stream.writable.getWriter();
    this.reader = type === 'bidi' ? stream.readable.getReader() : null;
    this.received = Buffer.alloc(0);
  }
  types() {
    const found = [];
    let at = 0;
    while (this.received.length - at >= 6 && this.received.length - at - 6 >= this.received.readUInt32BE(at)) {
      found.push(this.received.readUInt16BE(at + 4));
      at += 6 + this.received.readUInt32BE(at);
    }
    return found;
  }
  async until(done) {
    while (!done(this.types())) {
      const { value, done: over } = await this.reader.read();
      if (over) throw new Error(`the lane ended after the frames ${this.types()}`);
      this.received = Buffer.concat([this.received, value]);
    }
  }
}

const control = new Lane();
await control.writer.write(Buffer.concat([Buffer.from([1]), bytes(order.auth)]));
await control.until((types) => types.includes(2));
const messages = new Lane();
const frames = bytes(order.messages);
await messages.writer.write(Buffer.concat([Buffer.from([2]), frames.subarray(0, 7)]));
await messages.writer.write(frames.subarray(7));
await messages.until((types) => types.length >= order.answers);
const files = new Lane('uni');
await files.writer.write(Buffer.concat([Buffer.from([3]), bytes(order.offer)]));
await files.writer.write(bytes(order.file));
await files.writer.close();
await control.until((types) => types.filter((type) => type === 41).length === 2);
await control.writer.write(bytes(order.last));
await ended;
process.stdout.write(JSON.stringify({
  control: control.received.toString('hex'),
  messages: messages.received.toString('hex'),
  closed,
}) + '\n', () => process.exit(0));
