// Sends a fixed number of everything that hot-shots can send.
//
// Reads STATSD_UDP_HOST and STATSD_UDP_PORT, and prints the lines that left the sockets and the time that was sent, as
// JSON. tests/suite/clients.rs has the expected results.
//
// Telemetry is off: in Datadog mode the client would add its own counters when it is closed.
'use strict';

const dgram = require('dgram');

const sent = { datagrams: 0, bytes: 0, lines: 0, names: {}, events: 0, checks: 0 };

// A socket that records the lines actually sent, independent of the client's counts.
const send = dgram.Socket.prototype.send;
dgram.Socket.prototype.send = function (data, ...rest) {
  sent.datagrams += 1;
  sent.bytes += data.length;
  for (const line of data.toString().split('\n')) {
    sent.lines += 1;
    if (line.startsWith('_e{')) {
      sent.events += 1;
    } else if (line.startsWith('_sc|')) {
      sent.checks += 1;
    } else {
      const name = line.split(':')[0];
      sent.names[name] = (sent.names[name] || 0) + 1;
    }
  }
  return send.call(this, data, ...rest);
};

// The client's random generator for sampling. A linear congruential generator, so that every run is the same.
let state = 1;
Math.random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};

const StatsD = require('hot-shots');

function client(options) {
  return new StatsD({
    host: process.env.STATSD_UDP_HOST,
    port: Number(process.env.STATSD_UDP_PORT),
    includeDatadogTelemetry: false,
    closingFlushInterval: 1,
    errorHandler: (error) => {
      throw error;
    },
    ...options,
  });
}

function closed(statsd) {
  return new Promise((resolve, reject) => statsd.close((error) => (error ? reject(error) : resolve())));
}

function counters(statsd) {
  statsd.increment('hits');
  statsd.increment('hits', 5);
  statsd.decrement('hits');
  statsd.decrement('hits', 2);
  statsd.increment('hits', 1.25);
  statsd.increment('hits', 0);
  statsd.increment(['first', 'second'], 7);
  for (let n = 0; n < 60; n += 1) {
    statsd.increment('half', 3, 0.5);
    statsd.decrement('quarter', 2, 0.25);
  }
}

function gauges(statsd) {
  statsd.gauge('level', 20);
  statsd.gauge('level', 21.5);
  statsd.gaugeDelta('changed', 10);
  statsd.gaugeDelta('changed', 2.5);
  statsd.gaugeDelta('changed', -4);
  // The client means the level -5, but the line could also be a change.
  statsd.gauge('below_zero', 3);
  statsd.gauge('below_zero', -5);
  for (let n = 0; n < 20; n += 1) {
    statsd.gauge('sampled_level', 42, 0.5);
  }
}

function timestamps(statsd) {
  sent.now = Math.floor(Date.now() / 1000);
  statsd.increment('stamped_hits', 4, { timestamp: sent.now });
  statsd.increment('stamped_hits', 2, { timestamp: new Date((sent.now - 5) * 1000) });
  statsd.gauge('stamped_level', 7, { timestamp: sent.now - 3 });
  statsd.gauge('stamped_level', 30, { timestamp: sent.now - 6 });
}

async function distributions(statsd) {
  for (const value of [0.5, 2, 8]) {
    statsd.histogram('sizes', value);
  }
  for (const value of [0.5, -2, 8]) {
    statsd.distribution('spread', value);
  }
  for (const value of [320, 1.5, 40]) {
    statsd.timing('query', value);
  }
  for (let n = 0; n < 60; n += 1) {
    statsd.timing('sampled_query', 6, 0.5);
  }
  statsd.timing('since', new Date());
  statsd.timer(() => {}, 'called')();
  const fails = statsd.timer(() => {
    throw new Error('on purpose');
  }, 'called');
  try {
    fails();
  } catch (error) {
    // It is timed in spite of the error.
  }
  await statsd.asyncTimer(async () => {}, 'awaited')();
  await statsd.asyncDistTimer(async (context) => context.addTags({ cached: 'no' }), 'distributed', undefined, ['a:1'])();
}

function sets(statsd) {
  for (const member of ['ann', 'bob', 'ann', 7, '7', 'a:b', 'größe']) {
    statsd.set('users', member);
  }
  statsd.unique('users', 'zoe');
}

function tags(statsd) {
  statsd.increment('tagged', 1, ['route:/pay', 'live']);
  statsd.increment('tagged', 2, ['live', 'route:/pay']);
  statsd.increment('tagged', 4, { route: '/buy', url: 'http://h:80/p' });
  // A tag of the call replaces a global one; the client replaces characters that would end a tag by `_`.
  statsd.increment('tagged', 8, 1, { env: 'other', 'a:b': 'c,d|e#f@g' });
  statsd.increment('größe.日本', 3, { größe: 'groß', 城市: '東京' });
  statsd.increment('origin', { task_id: 'forged', container_id: 'forged' });
  statsd.histogram('both', 5, 1, { a: '1' });
}

function events(statsd) {
  statsd.event('deploy');
  statsd.event('changed | twice', 'first line\nsecond line | ok', {
    date_happened: new Date((sent.now - 100) * 1000),
    hostname: 'host-1',
    aggregation_key: 'deploys',
    priority: 'low',
    source_type_name: 'ci',
    alert_type: 'error',
  }, { route: '/pay' });
  for (const alertType of ['warning', 'info', 'success']) {
    statsd.event(alertType, 'text', { alert_type: alertType, priority: 'normal' });
  }
}

function checks(statsd) {
  statsd.check('db', statsd.CHECKS.WARNING);
  statsd.check('db', statsd.CHECKS.OK);
  statsd.check('db', statsd.CHECKS.CRITICAL, {
    date_happened: new Date((sent.now - 50) * 1000),
    hostname: 'host-2',
    message: 'außer Betrieb',
  }, ['shard:1']);
  statsd.check('cache', statsd.CHECKS.UNKNOWN);
  statsd.check('queue', statsd.CHECKS.WARNING);
}

async function otherClients() {
  const shop = client({ prefix: 'shop', suffix: 'v2', globalTags: { env: 'test', tier: '1' }, sampleRate: 0.5 });
  for (let n = 0; n < 40; n += 1) {
    shop.increment('hits', 2);
  }
  const child = shop.childClient({ prefix: 'cart', suffix: 'x', globalTags: { tier: '2', pod: 'a' } });
  child.gauge('level', 4, 1);
  child.childClient({ globalTags: ['leaf'] }).gauge('level', 5, 1);
  child.check('alive', child.CHECKS.OK);
  child.event('born', 'small');
  await closed(shop);

  // Flushes only full buffers, and the last one.
  const buffered = client({ maxBufferSize: 200, bufferFlushInterval: 600000 });
  for (let n = 0; n < 50; n += 1) {
    buffered.increment('buffered.hits', n);
    buffered.timing('buffered.query', n);
  }
  for (let value = 1; value <= 100; value += 1) {
    buffered.distribution('buffered.sizes', value);
  }
  await closed(buffered);

  const aggregating = client({ aggregation: { flushInterval: 600000 } });
  for (let n = 0; n < 16; n += 1) {
    aggregating.increment('aggregated.hits', 2);
    aggregating.gauge('aggregated.level', n);
    aggregating.set('aggregated.users', n % 4);
  }
  // A change is sent at once, after the level that it changes.
  aggregating.gaugeDelta('aggregated.level', 1);
  await new Promise((resolve) => aggregating.flush(resolve));
  await closed(aggregating);

  const datadog = client({ datadog: true, containerID: '0123456789abcdef', cardinality: 'high' });
  for (let n = 0; n < 10; n += 1) {
    datadog.increment('datadog.hits', 3, { a: '1' });
  }
  datadog.gauge('datadog.level', 6, { cardinality: 'low', tags: ['a:1'], timestamp: sent.now });
  await closed(datadog);

  const telegraf = client({ telegraf: true, globalTags: { env: 'test' } });
  telegraf.increment('telegraf.hits', 9, { route: '/pay' });
  await closed(telegraf);
}

async function main() {
  const statsd = client({ globalTags: ['env:test', 'région:île'] });
  counters(statsd);
  gauges(statsd);
  timestamps(statsd);
  await distributions(statsd);
  sets(statsd);
  tags(statsd);
  events(statsd);
  checks(statsd);
  await closed(statsd);
  await otherClients();
  console.log(JSON.stringify(sent));
}

main();
