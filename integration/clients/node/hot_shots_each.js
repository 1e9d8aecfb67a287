// One of each type by hot-shots, for scripts/e2e-clients.
'use strict';

const StatsD = require(`${process.env.NODE_PATH}/hot-shots`);

const client = new StatsD({
  host: process.env.STATSD_UDP_HOST,
  port: Number(process.env.STATSD_UDP_PORT),
  maxBufferSize: 1000,
});
client.increment('hs.jobs.done', 5, ['queue:mail']);
client.decrement('hs.jobs.done', 1, ['queue:mail']);
client.gauge('hs.queue-depth', 12);
client.histogram('hs.body.bytes', 10);
client.histogram('hs.body.bytes', 30);
client.distribution('hs.spread', 0.5);
client.timing('hs.request_time', 320);
['ann', 'bob', 'ann'].forEach((user) => client.set('hs.users', user));
client.close((error) => process.exit(error ? 1 : 0));
