// node-redis: the families, pipelines without MULTI, typed replies. RESP2 and RESP3.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { createClient, RESP_TYPES } from "redis";
import { port, sleep } from "./common.mjs";

for (const RESP of [2, 3]) {
  describe(`node-redis RESP${RESP}`, () => {
    let r;
    before(async () => {
      r = createClient({ RESP, socket: { port, host: "127.0.0.1", reconnectStrategy: false } });
      r.on("error", () => {});
      await r.connect();
    });
    after(() => r.destroy());
    beforeEach(() => r.flushAll());

    test("connection and server", async () => {
      assert.equal(await r.ping(), "PONG");
      assert.equal(await r.echo("hi"), "hi");
      await r.clientSetName("worker");
      assert.equal(await r.clientGetName(), "worker");
      assert.match(await r.info("server"), /redis_version:7/);
      const settings = await r.configGet("appendfsync");
      assert.equal(settings.appendfsync, "always");
      assert.equal(await r.dbSize(), 0);
      assert.ok((await r.commandCount()) >= 90);
      const [row] = await r.commandInfo(["get"]);
      assert.equal(row.name, "get");
      assert.equal(row.arity, 2);
      assert.match(await r.sendCommand(["CLIENT", "INFO"]), new RegExp(`resp=${RESP}`));
      const list = await r.clientList();
      assert.ok(list.some((row) => row.name === "worker"));
    });

    test("strings", async () => {
      assert.equal(
        await r.set("a", "1", { expiration: { type: "EX", value: 100 }, condition: "NX" }), "OK");
      assert.equal(await r.set("a", "1", { condition: "NX" }), null);
      assert.equal(await r.set("a", "2", { GET: true, expiration: "KEEPTTL" }), "1");
      assert.ok((await r.ttl("a")) > 90);
      assert.equal(await r.getEx("a", { type: "PERSIST" }), "2");
      assert.equal(await r.append("a", "34"), 3);
      assert.equal(await r.getRange("a", 1, 2), "34");
      assert.equal(await r.setRange("a", 1, "99"), 3);
      assert.equal(await r.getDel("a"), "299");
      assert.equal(await r.mSet({ x: "1", y: "2" }), "OK");
      assert.deepEqual(await r.mGet(["x", "missing", "y"]), ["1", null, "2"]);
      assert.equal(await r.setBit("bits", 7, 1), 0);
      assert.equal(await r.bitCount("bits"), 1);
      assert.deepEqual(
        await r.bitField("bits", [{ operation: "GET", encoding: "u8", offset: 0 }]), [1]);
    });

    test("counters and doubles", async () => {
      assert.equal(await r.incr("c"), 1);
      assert.equal(await r.incrBy("c", 41), 42);
      assert.equal(await r.decrBy("c", 2), 40);
      assert.equal(Number(await r.incrByFloat("c", 0.5)), 40.5);
      await assert.rejects(r.incr("c"), /not an integer/);
    });

    test("keys", async () => {
      await r.mSet({ a: "1", b: "2" });
      assert.equal(await r.exists(["a", "b", "c"]), 2);
      assert.equal(Number(await r.expire("a", 100, "NX")), 1);
      assert.equal(Number(await r.persist("a")), 1);
      assert.equal(await r.type("a"), "string");
      assert.equal(await r.unlink(["a", "b"]), 2);
      await r.set("short", "1", { expiration: { type: "PX", value: 50 } });
      await sleep(120);
      assert.equal(await r.get("short"), null);
    });

    test("pipelines keep order", async () => {
      const replies = await Promise.all(Array.from({ length: 3000 }, (_, i) =>
        i % 2 ? r.get("n") : r.incr("n")));
      replies.forEach((reply, i) => {
        const count = Math.floor(i / 2) + 1;
        assert.equal(reply, i % 2 ? String(count) : count);
      });
      const batch = await r.multi().set("x", "1").incr("x").get("x").execAsPipeline();
      assert.deepEqual(batch, ["OK", 2, "2"]);
    });

    test("binary keys and big values", async () => {
      const buffers = r.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
      const key = Buffer.from([0, 255, 13, 10, 128]);
      const value = Buffer.alloc(5_000_000, 7);
      await r.set(key, value);
      assert.deepEqual(await buffers.get(key), value);
    });

    test("scan iterators see every key", async () => {
      await Promise.all(Array.from({ length: 2000 }, (_, i) => r.set(`key:${i}`, String(i))));
      const seen = new Set();
      for await (const keys of r.scanIterator({ MATCH: "key:*", COUNT: 100 })) {
        for (const key of keys) seen.add(key);
      }
      assert.equal(seen.size, 2000);
    });
  });
}
