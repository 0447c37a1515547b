// MULTI and WATCH through ioredis and node-redis, RESP2 and RESP3.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import Redis from "ioredis";
import { createClient, WatchError } from "redis";
import { port } from "./common.mjs";

for (const protocol of [2, 3]) {
  describe(`transactions, ioredis RESP${protocol}`, () => {
    const open = () => new Redis({ port, host: "127.0.0.1", protocol, retryStrategy: null });
    let r, other;
    before(() => {
      r = open();
      other = open();
    });
    after(() => {
      r.disconnect();
      other.disconnect();
    });
    beforeEach(() => r.flushall());

    test("a block over several keys", async () => {
      const replies = await r.multi().set("a", 1).incr("b").incr("c").mget("a", "b", "c").exec();
      assert.deepEqual(replies, [[null, "OK"], [null, 1], [null, 1], [null, ["1", "1", "1"]]]);
    });

    test("a block that is not pipelined", async () => {
      await r.multi({ pipeline: false });
      assert.equal(await r.set("a", 1), "QUEUED");
      assert.equal(await r.incr("a"), "QUEUED");
      const replies = await r.exec();
      assert.deepEqual(replies, [[null, "OK"], [null, 2]]);
    });

    test("an unknown command aborts", async () => {
      await assert.rejects(r.multi().set("a", 1).call("NOSUCH").exec(), /EXECABORT|unknown command/);
      assert.equal(await r.exists("a"), 0);
    });

    test("watch", async () => {
      await r.watch("a");
      await other.set("a", 5);
      assert.equal(await r.multi().set("a", 1).exec(), null);
      assert.equal(await r.get("a"), "5");
    });

    test("many blocks in flight", async () => {
      const all = await Promise.all(Array.from({ length: 500 }, (_, i) =>
        r.multi().incr(`k${i % 7}`).incr(`k${(i + 3) % 7}`).exec()));
      assert.ok(all.every((replies) => replies.length === 2));
      const counts = await r.mget(...Array.from({ length: 7 }, (_, i) => `k${i}`));
      assert.equal(counts.reduce((sum, count) => sum + Number(count), 0), 1000);
    });
  });

  describe(`transactions, node-redis RESP${protocol}`, () => {
    let r, other;
    const open = async () => {
      const client = createClient({
        RESP: protocol,
        socket: { port, host: "127.0.0.1", reconnectStrategy: false },
      });
      client.on("error", () => {});
      await client.connect();
      return client;
    };
    before(async () => {
      r = await open();
      other = await open();
    });
    after(() => {
      r.destroy();
      other.destroy();
    });
    beforeEach(() => r.flushAll());

    test("a block over several keys", async () => {
      const replies = await r.multi().set("a", "1").incr("b").mGet(["a", "b"]).exec();
      assert.deepEqual(replies, ["OK", 1, ["1", "1"]]);
    });

    test("watch", async () => {
      await r.watch("a");
      await other.set("a", "5");
      await assert.rejects(r.multi().set("a", "1").exec(), WatchError);
      assert.equal(await r.get("a"), "5");
    });
  });
}
