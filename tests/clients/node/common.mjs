// What the Node suites share: the port of the running server, and which kind it is.

export const port = Number(process.env.TALLYMAN_PORT);
if (!port) throw new Error("run with tests/with-server: TALLYMAN_PORT is not set");

// Options for tests of what redis-server 7.0 does not have.
export const tallymanOnly =
  process.env.TALLYMAN_SERVER === "redis" ? { skip: "redis-server 7.0 does not have this" } : {};

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
