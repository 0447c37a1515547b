// The stories of COMMANDS: state cells, idempotency keys, credits, webhooks, rate limits, through
// ioredis. Each is what an application would write.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import Redis from "ioredis";
import { OwnServer, port, sleep, tallymanOnly } from "./common.mjs";

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

    // So many connections, each of which does its work; what they return.
    const together = async (count, work) => {
      const clients = Array.from({ length: count }, () =>
        new Redis({ port, host: "127.0.0.1", protocol, retryStrategy: null }));
      try {
        return await Promise.all(clients.map(work));
      } finally {
        for (const client of clients) client.disconnect();
      }
    };

    test("of many requests for one user one is processed", async () => {
      const answers = await together(64, (client) =>
        client.call("SETIFIDLE", "user:8", "processing", "PX", 60000));
      assert.equal(answers.filter(([status]) => status === "STARTED").length, 1);
      assert.equal(new Set(answers.map(([, token]) => token)).size, 1);
    });

    test("of many repeats of a payment one is made", async () => {
      const bodies = await together(24, async (client) => {
        for (;;) {
          const [status, token, , value] = await client.call(
            "SETIFIDLE", "idem:pay", "started", "PX", 60000, "FP", "body-1");
          if (status === "DONE") return value;
          if (status === "BUSY") continue;
          const body = `receipt ${await client.incr("payments")}`;
          await client.call("SETIDLE", "idem:pay", token, "RESULT", body, "PX", 86400000);
          return body;
        }
      });
      assert.deepEqual(bodies, Array(24).fill("receipt 1"));
    });

    test("cancel and upgrade race, and none is lost", async () => {
      const subs = Array.from({ length: 50 }, (_, i) => `sub:${i}`);
      const tokens = await Promise.all(subs.map(async (sub) =>
        (await r.call("SETSTATE", sub, "upgrading"))[2]));
      const [worker, api] = await together(2, (client, side) =>
        Promise.all(subs.map((sub, i) => (side === 0
          ? client.call("SETSTATE", sub, "active", "IFTOKEN", tokens[i])
          : client.call("SETSTATE", sub, "cancelled", "FROM", 2, "active", "upgrading")))));
      for (const [i, sub] of subs.entries()) {
        assert.equal(api[i][0], 1);
        if (worker[i][0] === 1) assert.ok(worker[i][2] < api[i][2]);
        else assert.deepEqual(worker[i], [0, "cancelled", api[i][2]]);
        assert.equal(await r.get(sub), "cancelled");
      }
    });

    test("a webhook delivered three times by many is credited once", async () => {
      const answers = (await together(48, (client, number) => Promise.all(
        Array.from({ length: 3 }, (_, i) => 16 * i + (number % 16)).map((event) => client.call(
          "ONCE", "credits:u2", `evt_${event}`, "EX", 86400,
          "HINCRBY", "credits:u2", "balance", 5))))).flat();
      assert.equal(answers.length, 144);
      assert.equal(answers.filter(([first]) => first === 1).length, 48);
      assert.equal(await r.hget("credits:u2", "balance"), "240");
    });

    test("64 clients never get one request too many", async () => {
      const allowed = await together(64, async (client) => {
        let [throttled, counted] = [0, 0];
        for (let i = 0; i < 5; i += 1) {
          const [limited] = await client.call("CL.THROTTLE", "api:key1", 99, 1, 3600);
          throttled += 1 - limited;
          const [, applied] = await client.call(
            "INCREX", "window:key1", "UBOUND", 100, "EX", 3600, "ENX");
          counted += applied;
        }
        return [throttled, counted];
      });
      const sum = (at) => allowed.reduce((total, counts) => total + counts[at], 0);
      assert.deepEqual([sum(0), sum(1)], [100, 100]);
    });

    test("100 clients reserve and settle while the server is killed", async () => {
      const server = await new OwnServer().start();
      const start = 1200;
      let [charged, finished, refused] = [0, 0, 0];
      const admin = () => new Redis({ port: server.port, host: "127.0.0.1", protocol });
      const before = admin();
      await before.hset("acc", "balance", start);
      before.disconnect();

      // Repeats a call until it was answered: RESERVE and SETTLE may be repeated.
      const caller = () => {
        let client = null;
        return async (...line) => {
          for (;;) {
            await server.up;
            client ??= new Redis({
              port: server.port, host: "127.0.0.1", protocol, retryStrategy: null,
            }).on("error", () => {});
            try {
              if (line.length === 0) return client.disconnect();
              return await client.call(...line);
            } catch (error) {
              if (/^(ERR|TRYAGAIN|NOSPACE|WRONGTYPE)/.test(error.message)) throw error;
              client.disconnect();
              client = null;
              await sleep(10);
            }
          }
        };
      };
      const work = async (number) => {
        const call = caller();
        for (let index = 0; index < 8; index += 1) {
          const [id, amount] = [`${number}:${index}`, 1 + ((number * 7 + index * 3) % 6)];
          const ending = ["settle", "settle", "charge", "refund"][(number + index) % 4];
          const options = ending === "settle" ? ["EX", 600] : ["PX", 300, "ONEXPIRE", ending];
          const [status, token, available] =
            await call("RESERVE", "acc", id, amount, ...options);
          assert.ok(available >= 0, "an overdraft");
          finished += 1;
          if (status === 0) {
            refused += 1;
            continue;
          }
          const used = { settle: amount - (index % 2), refund: 0, charge: amount }[ending];
          if (ending === "settle") {
            assert.deepEqual((await call("SETTLE", "acc", id, token, used)).slice(0, 2), [1, used]);
          }
          charged += used;
        }
        await call();
      };
      const kill = async () => {
        while (finished < 250) await sleep(1);
        await server.killAndStart();
      };
      try {
        await Promise.all([kill(), ...Array.from({ length: 100 }, (_, number) => work(number))]);
        await sleep(400);
        const after = admin();
        const names = await after.hkeys("acc");
        assert.deepEqual(names.filter((name) => name.startsWith("hold:")), []);
        assert.equal(Number(await after.hget("acc", "balance")), start - charged);
        assert.ok(start - charged >= 0 && refused > 0);
        after.disconnect();
      } finally {
        await server.close();
      }
    });

    test("a limit per key is never passed", async () => {
      const replies = await Promise.all(Array.from({ length: 200 }, () =>
        r.call("CL.THROTTLE", "api:key1", 9, 1, 3600)));
      assert.equal(replies.filter(([limited]) => limited === 0).length, 10);
    });
  });
}
