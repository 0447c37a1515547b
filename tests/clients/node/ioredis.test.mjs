// ioredis: the families, pipelines without MULTI, binary keys, scan streams. RESP2 and RESP3.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import Redis from "ioredis";
import { port, sleep } from "./common.mjs";

for (const protocol of [2, 3]) {
  describe(`ioredis RESP${protocol}`, () => {
    let r;
    before(() => {
      r = new Redis({ port, host: "127.0.0.1", protocol, retryStrategy: null });
    });
    after(() => r.disconnect());
    beforeEach(() => r.flushall());

    test("connection and server", async () => {
      assert.equal(await r.ping(), "PONG");
      assert.equal(await r.echo("hi"), "hi");
      assert.equal(await r.client("SETNAME", "worker"), "OK");
      assert.equal(await r.client("GETNAME"), "worker");
      assert.match(await r.client("LIST"), /name=worker/);
      assert.match(await r.client("INFO"), new RegExp(`resp=${protocol}`));
      assert.match(await r.info("server"), /redis_version:7/);
      assert.equal(await r.dbsize(), 0);
      assert.equal((await r.time()).length, 2);
      assert.equal(await r.select(3), "OK");
      await r.set("a", 1);
      assert.equal(await r.select(0), "OK");
      assert.equal(await r.get("a"), null);
    });

    test("strings", async () => {
      assert.equal(await r.set("a", "1", "EX", 100, "NX"), "OK");
      assert.equal(await r.set("a", "1", "NX"), null);
      assert.equal(await r.set("a", "2", "KEEPTTL", "GET"), "1");
      assert.ok((await r.ttl("a")) > 90);
      assert.equal(await r.getex("a", "PERSIST"), "2");
      assert.equal(await r.append("a", "34"), 3);
      assert.equal(await r.getrange("a", 1, 2), "34");
      assert.equal(await r.setrange("a", 1, "99"), 3);
      assert.equal(await r.strlen("a"), 3);
      assert.equal(await r.getdel("a"), "299");
      assert.equal(await r.mset({ x: 1, y: 2, z: 3 }), "OK");
      assert.deepEqual(await r.mget("x", "missing", "z"), ["1", null, "3"]);
      assert.equal(await r.msetnx("x", 1, "w", 2), 0);
      assert.equal(await r.setbit("bits", 7, 1), 0);
      assert.equal(await r.bitcount("bits"), 1);
      assert.deepEqual(
        await r.bitfield("bits", "OVERFLOW", "FAIL", "INCRBY", "u2", 6, 3, "GET", "u8", 0),
        [null, 1],
      );
    });

    test("counters", async () => {
      assert.equal(await r.incr("c"), 1);
      assert.equal(await r.incrby("c", 41), 42);
      assert.equal(await r.decrby("c", 2), 40);
      assert.equal(await r.decr("c"), 39);
      assert.equal(Number(await r.incrbyfloat("c", "0.5")), 39.5);
      await assert.rejects(r.incr("c"), /not an integer/);
      await r.set("c", "9223372036854775807");
      await assert.rejects(r.incr("c"), /overflow/);
    });

    test("keys", async () => {
      await r.mset("a", 1, "b", 2);
      assert.equal(await r.exists("a", "b", "c"), 2);
      assert.equal(await r.expire("a", 100, "NX"), 1);
      assert.equal(await r.expire("a", 50, "GT"), 0);
      assert.equal(await r.persist("a"), 1);
      assert.equal(await r.rename("a", "{b}a"), "OK");
      assert.equal(await r.copy("b", "elsewhere"), 1);
      assert.equal(await r.type("elsewhere"), "string");
      assert.equal(await r.unlink("b", "{b}a", "elsewhere"), 3);
      await r.set("short", 1, "PX", 50);
      await sleep(120);
      assert.equal(await r.get("short"), null);
    });

    test("a pipeline without MULTI keeps order and errors in place", async () => {
      const pipeline = r.pipeline();
      for (let i = 0; i < 3000; i += 1) pipeline.incr(`k${i % 10}`).get(`k${i % 10}`);
      pipeline.set("text", "x").incr("text").get("text");
      const replies = await pipeline.exec();
      for (let i = 0; i < 3000; i += 1) {
        const count = Math.floor(i / 10) + 1;
        assert.deepEqual(replies[2 * i], [null, count]);
        assert.deepEqual(replies[2 * i + 1], [null, String(count)]);
      }
      const [set, incr, get] = replies.slice(-3);
      assert.deepEqual(set, [null, "OK"]);
      assert.match(incr[0].message, /not an integer/);
      assert.deepEqual(get, [null, "x"]);
    });

    test("commands without await are pipelined by themselves", async () => {
      const replies = await Promise.all(Array.from({ length: 2000 }, () => r.incr("auto")));
      assert.deepEqual(replies, Array.from({ length: 2000 }, (_, i) => i + 1));
    });

    test("binary keys and big values", async () => {
      const key = Buffer.from([0, 255, 13, 10, 128]);
      const value = Buffer.alloc(5_000_000, 7);
      await r.set(key, value);
      assert.deepEqual(await r.getBuffer(key), value);
    });

    test("scan streams see every key", async () => {
      const pipeline = r.pipeline();
      for (let i = 0; i < 2000; i += 1) pipeline.set(`key:${i}`, i);
      await pipeline.exec();
      const seen = new Set();
      for await (const keys of r.scanStream({ match: "key:*", count: 100 })) {
        for (const key of keys) seen.add(key);
      }
      assert.equal(seen.size, 2000);
    });
  });
}
