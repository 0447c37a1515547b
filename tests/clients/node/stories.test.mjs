// The stories of COMMANDS: state cells, idempotency keys, credits, webhooks, rate limits, through
// ioredis. Each is what an application would write.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import Redis from "ioredis";
import { port, sleep, tallymanOnly } from "./common.mjs";

for (const protocol of [2, 3]) {
  describe(`stories, ioredis RESP${protocol}`, tallymanOnly, () => {
    let r;
    before(() => {
      r = new Redis({ port, host: "127.0.0.1", protocol, retryStrategy: null });
    });
    after(() => r.disconnect());
    beforeEach(() => r.flushall());

    test("the second request is dropped while the first is processed", async () => {
      const take = () => r.call("SETIFIDLE", "user:7", "processing", "PX", 60000);
      const [first, second] = await Promise.all([take(), take()]);
      assert.deepEqual([first[0], second[0]], ["STARTED", "BUSY"]);
      assert.ok(Number.isSafeInteger(first[1]));
      assert.deepEqual(await r.call("SETIDLE", "user:7", first[1]), [1, first[1]]);
      assert.equal((await take())[0], "STARTED");
    });

    test("the worker dies, the lease runs out, the late worker is refused", async () => {
      const [, token] = await r.call("SETIFIDLE", "job", "working", "PX", 50);
      await sleep(120);
      const [status, newer] = await r.call("SETIFIDLE", "job", "working", "PX", 60000);
      assert.equal(status, "STARTED");
      assert.deepEqual(await r.call("SETIDLE", "job", token), [0, newer]);
    });

    test("an idempotency key keeps the answer", async () => {
      const start = (hash) => r.call("SETIFIDLE", "idem:1", "started", "PX", 60000, "FP", hash);
      const [, token] = await start("h1");
      assert.equal((await start("h1"))[0], "BUSY");
      await r.call("SETIDLE", "idem:1", token, "RESULT", '{"id":5}', "PX", 86400000);
      const [status, , , body] = await start("h1");
      assert.deepEqual([status, body], ["DONE", '{"id":5}']);
      assert.equal((await start("h2"))[0], "MISMATCH");
    });

    test("credits are reserved, then settled", async () => {
      await r.hset("acc", "balance", 100);
      const holds = await Promise.all(Array.from({ length: 20 }, (_, i) =>
        r.call("RESERVE", "acc", `job${i}`, 10, "EX", 60)));
      const held = holds.filter(([status]) => status === 1);
      assert.equal(held.length, 10);
      const ids = holds.flatMap(([status], i) => (status === 1 ? [i] : []));
      await Promise.all(ids.map((i) => r.call("SETTLE", "acc", `job${i}`, holds[i][1], 7)));
      assert.equal(await r.hget("acc", "balance"), "30");
    });

    test("a webhook delivered three times is credited once", async () => {
      const deliver = () => r.call(
        "ONCE", "credits:u1", "evt_9", "EX", 86400, "HINCRBY", "credits:u1", "balance", 500);
      const replies = await Promise.all([deliver(), deliver(), deliver()]);
      assert.deepEqual(replies, [[1, 500], [0, 500], [0, 500]]);
    });

    test("a limit per key is never passed", async () => {
      const replies = await Promise.all(Array.from({ length: 200 }, () =>
        r.call("CL.THROTTLE", "api:key1", 9, 1, 3600)));
      assert.equal(replies.filter(([limited]) => limited === 0).length, 10);
    });
  });
}
