// The hashes family through ioredis and node-redis, RESP2 and RESP3.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import Redis from "ioredis";
import { createClient } from "redis";
import { port, sleep, tallymanOnly } from "./common.mjs";

for (const protocol of [2, 3]) {
  describe(`hashes, ioredis RESP${protocol}`, () => {
    let r;
    before(() => {
      r = new Redis({ port, host: "127.0.0.1", protocol, retryStrategy: null });
    });
    after(() => r.disconnect());
    beforeEach(() => r.flushall());

    test("set, get, count", async () => {
      assert.equal(await r.hset("h", { a: 1, b: 2, c: 3 }), 3);
      assert.deepEqual(await r.hgetall("h"), { a: "1", b: "2", c: "3" });
      assert.deepEqual(await r.hmget("h", "a", "missing"), ["1", null]);
      assert.equal(await r.hincrby("h", "a", 41), 42);
      assert.equal(Number(await r.hincrbyfloat("h", "b", "0.5")), 2.5);
      assert.equal(await r.hdel("h", "a", "missing"), 1);
      assert.deepEqual((await r.hkeys("h")).sort(), ["b", "c"]);
      assert.equal(await r.hlen("h"), 2);
    });

    test("scan streams see every field", async () => {
      const fields = Object.fromEntries(Array.from({ length: 1500 }, (_, i) => [`f${i}`, `${i}`]));
      await r.hset("h", fields);
      const seen = {};
      for await (const flat of r.hscanStream("h", { count: 100 })) {
        for (let i = 0; i < flat.length; i += 2) seen[flat[i]] = flat[i + 1];
      }
      assert.deepEqual(seen, fields);
    });

    test("fields expire", tallymanOnly, async () => {
      await r.hset("h", { a: 1, b: 2 });
      assert.deepEqual(await r.call("HPEXPIRE", "h", 50, "FIELDS", 2, "a", "none"), [1, -2]);
      await sleep(150);
      assert.deepEqual(await r.hgetall("h"), { b: "2" });
    });
  });

  describe(`hashes, node-redis RESP${protocol}`, () => {
    let r;
    before(async () => {
      r = createClient({
        RESP: protocol,
        socket: { port, host: "127.0.0.1", reconnectStrategy: false },
      });
      r.on("error", () => {});
      await r.connect();
    });
    after(() => r.destroy());
    beforeEach(() => r.flushAll());

    test("set, get, count", async () => {
      assert.equal(await r.hSet("h", { a: "1", b: "2" }), 2);
      assert.deepEqual({ ...(await r.hGetAll("h")) }, { a: "1", b: "2" });
      assert.equal(await r.hIncrBy("h", "a", 41), 42);
      assert.equal(await r.hExists("h", "a").then(Number), 1);
      assert.deepEqual(await r.hRandFieldCountWithValues("h", 1).then((x) => x.length), 1);
      const seen = [];
      for await (const some of r.hScanIterator("h")) seen.push(...some);
      assert.equal(seen.length, 2);
    });

    test("fields expire", tallymanOnly, async () => {
      await r.hSet("h", { a: "1", b: "2" });
      assert.deepEqual(await r.hExpire("h", ["a", "none"], 100), [1, -2]);
      assert.deepEqual(await r.hTTL("h", ["a", "b"]), [100, -1]);
    });
  });
}
