// What the Node suites share: the port of the running server, which kind it is, and servers of a
// test's own.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

export const port = Number(process.env.TALLYMAN_PORT);
if (!port) throw new Error("run with tests/with-server: TALLYMAN_PORT is not set");

// Options for tests of what redis-server 7.0 does not have.
export const tallymanOnly =
  process.env.TALLYMAN_SERVER === "redis" ? { skip: "redis-server 7.0 does not have this" } : {};

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// A server of a test's own, to be killed and started again; on a free port, in a folder that goes
// with it. `up` is a promise that is kept while it serves.
export class OwnServer {
  async start() {
    this.folder ??= await mkdtemp(path.join(tmpdir(), "tallyman-test-"));
    this.up = this.begin();
    await this.up;
    return this;
  }

  async begin() {
    const options = ["--port", "0", "--dir", path.join(this.folder, "data")];
    this.process = spawn(process.env.TALLYMAN_BIN, options, {
      stdio: ["ignore", "pipe", "ignore"],
    });
    for await (const line of createInterface({ input: this.process.stdout })) {
      const found = line.match(/127\.0\.0\.1:(\d+)/);
      if (found) {
        this.port = Number(found[1]);
        this.process.stdout.resume();
        return;
      }
    }
    throw new Error("the server ended before it was ready");
  }

  // kill -9, and another start on the same folder.
  async killAndStart() {
    let ready;
    this.up = new Promise((resolve) => (ready = resolve));
    await this.kill();
    await this.begin();
    ready();
  }

  async kill() {
    const ended = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await ended;
  }

  async close() {
    await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }
}
