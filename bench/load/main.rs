//! A load generator for servers of the Redis kind: closed loop or open loop, several groups of
//! clients at once, latencies as percentiles and over time.
//!
//! ```text
//! cargo run --profile quick --example load -- --port 7777 --workload incr --pipeline 16
//! load --port 7777 --workload 'SET a:{rand} {value}' --value 1024 --rate 20000 --seconds 60
//! load --port 7777 --workload get --beside 'clients=8 workload=set' --json -
//! load --port 7777 --workload 'SET key:{rand} {value}' --sequential --count 100000
//! ```
//!
//! Always true: one thread and one event loop, because the client shares the machine with the
//! server; a *unit* is what is counted (a command, a whole block, a chain of commands of which the
//! later ones need the replies of the earlier ones); in an open loop a unit's latency counts from
//! the moment when it should have been sent, so that a stalled server cannot hide behind a client
//! that waits politely.

mod driver;
mod process;
mod record;
mod reply;
mod report;
mod workload;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use driver::{Bounds, Driver, GroupPlan};
use workload::{NAMED, Workload};

fn main() -> ExitCode {
    let options = options().get_matches();
    if options.get_flag("list") {
        for (name, text) in NAMED {
            println!("{name:28} {text}");
        }
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Command {
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .value_parser(value_parser!(u64))
    };
    let seconds = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .value_parser(value_parser!(f64))
    };
    Command::new("load")
        .about("Loads a server of the Redis kind and prints throughput and latencies.")
        .after_help(workload::HELP)
        .arg(
            Arg::new("list")
                .long("list")
                .action(ArgAction::SetTrue)
                .help("shows the named workloads"),
        )
        .arg(
            Arg::new("host")
                .long("host")
                .default_value("127.0.0.1")
                .help("server"),
        )
        .arg(number("port", "port of the server").default_value("6379"))
        .arg(
            Arg::new("workload")
                .long("workload")
                .default_value("incr")
                .help("a name of --list, or a template"),
        )
        .arg(number("clients", "connections").default_value("50"))
        .arg(number("pipeline", "units in flight per connection").default_value("1"))
        .arg(seconds("rate", "open loop: units per second, all clients"))
        .arg(
            Arg::new("window")
                .long("window")
                .action(ArgAction::SetTrue)
                .help("sends as soon as a reply came, not when the whole pipeline is answered"),
        )
        .arg(number("keys", "random numbers are below this").default_value("100000"))
        .arg(number("value", "bytes of {value}").default_value("3"))
        .arg(
            Arg::new("sequential")
                .long("sequential")
                .action(ArgAction::SetTrue)
                .help("{rand} counts up, to fill a server"),
        )
        .arg(seconds("seconds", "measured time").default_value("5"))
        .arg(seconds("warm-up", "time before that, which does not count").default_value("0"))
        .arg(number("count", "ends after so many units instead"))
        .arg(number("idle", "further connections that do nothing").default_value("0"))
        .arg(number("interval-ms", "a line of the time line").default_value("1000"))
        .arg(number("seed", "of the random numbers").default_value("1"))
        .arg(number(
            "pid",
            "the server's process: its CPU time and the memory of idle connections are told",
        ))
        .arg(
            Arg::new("beside")
                .long("beside")
                .action(ArgAction::Append)
                .help(
                    "another group of clients at the same time: words like clients=8 pipeline=1 \
                     rate=500 value=3 keys=100, and workload= at the end",
                ),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .help("writes everything there; - is the standard output, instead of the table"),
        )
        .arg(
            Arg::new("errors")
                .long("errors")
                .action(ArgAction::SetTrue)
                .help("error replies are counted and no failure"),
        )
}

fn run(options: &ArgMatches) -> io::Result<bool> {
    let number = |name: &str| options.get_one::<u64>(name).copied();
    let seconds = |name: &str| options.get_one::<f64>(name).copied();
    let text = |name: &str| options.get_one::<String>(name).cloned().unwrap_or_default();
    let address = format!("{}:{}", text("host"), number("port").unwrap_or(6379));
    let main = GroupPlan {
        workload: Workload::named(&text("workload")).map_err(io::Error::other)?,
        clients: number("clients").unwrap_or(50) as usize,
        pipeline: number("pipeline").unwrap_or(1) as usize,
        rate: seconds("rate"),
        window: options.get_flag("window"),
        keys: number("keys").unwrap_or(1).max(1),
        value_bytes: number("value").unwrap_or(3) as usize,
        sequential: options.get_flag("sequential"),
        count: number("count"),
    };
    let mut plans = vec![main.clone()];
    for beside in options.get_many::<String>("beside").into_iter().flatten() {
        plans.push(group(&main, beside).map_err(io::Error::other)?);
    }
    let measured = seconds("seconds").unwrap_or(5.0);
    let bounds = Bounds {
        warm_up: Duration::from_secs_f64(seconds("warm-up").unwrap_or(0.0)),
        measured: main
            .count
            .is_none()
            .then_some(Duration::from_secs_f64(measured)),
        interval: Duration::from_millis(number("interval-ms").unwrap_or(1000).max(1)),
        server: number("pid").map(|pid| pid as u32),
    };
    let (idle, idle_bytes) = connect_idle(
        &address,
        number("idle").unwrap_or(0) as usize,
        bounds.server,
    )?;
    let seed = number("seed").unwrap_or(1);
    let driver = Driver::connect(&address, plans, bounds, seed)?;
    let outcome = driver.run()?;
    let idle_lost = driver::count_lost(&idle);
    let json = text("json");
    if json != "-" {
        report::table(&outcome);
    }
    if !json.is_empty() {
        let idle = report::Idle {
            connections: idle.len(),
            lost: idle_lost,
            bytes: idle_bytes,
        };
        let all = report::json(&outcome, &idle);
        match json.as_str() {
            "-" => println!("{all}"),
            path => std::fs::write(path, format!("{all}\n"))?,
        }
    }
    if idle_lost > 0 {
        eprintln!("load: the server closed {idle_lost} idle connections");
    }
    let mut good = idle_lost == 0;
    for result in &outcome.groups {
        if result.lost > 0 {
            eprintln!("load: {}: {} units got no reply", result.name, result.lost);
            good = false;
        }
        if let Some(error) = &result.first_error
            && !options.get_flag("errors")
        {
            eprintln!(
                "load: {}: {} error replies, the first: {error}",
                result.name, result.errors
            );
            good = false;
        }
    }
    Ok(good)
}

/// Connections that do nothing, and how many bytes the server's memory grew by for each.
fn connect_idle(
    address: &str,
    count: usize,
    server: Option<u32>,
) -> io::Result<(Vec<std::net::TcpStream>, Option<f64>)> {
    let Some(server) = server.filter(|_| count > 0) else {
        return Ok((driver::connect_idle(address, count)?, None));
    };
    let before = process::resident_bytes(server)?;
    let idle = driver::connect_idle(address, count)?;
    let grown = process::resident_bytes(server)?.saturating_sub(before);
    Ok((idle, Some(grown as f64 / count as f64)))
}

/// The plan of a `--beside`; what it does not say is as in the first group, but for the rate.
fn group(main: &GroupPlan, text: &str) -> Result<GroupPlan, String> {
    let mut plan = GroupPlan {
        rate: None,
        count: None,
        ..main.clone()
    };
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest
            .split_once('=')
            .ok_or_else(|| format!("--beside: {rest:?} is no name=value"))?;
        if name == "workload" {
            plan.workload = Workload::named(after)?;
            break;
        }
        let (value, after) = after.split_once(' ').unwrap_or((after, ""));
        rest = after.trim_start();
        let number = || {
            let parsed = value.parse::<u64>();
            parsed.map_err(|_| format!("--beside: {name} wants a number, not {value:?}"))
        };
        match name {
            "clients" => plan.clients = number()? as usize,
            "pipeline" => plan.pipeline = number()? as usize,
            "rate" => plan.rate = Some(number()? as f64),
            "value" => plan.value_bytes = number()? as usize,
            "keys" => plan.keys = number()?.max(1),
            _ => return Err(format!("--beside: there is no {name:?}")),
        }
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_that_is_asked_for_is_there() {
        options().debug_assert();
        let parsed = options().get_matches_from(["load", "--port", "1"]);
        assert!(!parsed.get_flag("list") && !parsed.get_flag("errors"));
        // Port 1 answers to nobody; all options have been read by then.
        assert!(run(&parsed).is_err());
    }

    #[test]
    fn a_second_group_takes_over_what_it_does_not_say() {
        let main = GroupPlan {
            workload: Workload::named("get").unwrap(),
            clients: 50,
            pipeline: 16,
            rate: Some(1.0),
            window: false,
            keys: 10,
            value_bytes: 3,
            sequential: false,
            count: None,
        };
        let plan = group(&main, "clients=8 rate=5 workload=SET a:{rand} b").unwrap();
        assert_eq!((plan.clients, plan.pipeline, plan.rate), (8, 16, Some(5.0)));
        assert_eq!(plan.workload.name, "SET a:{rand} b");
        for wrong in ["clients", "clients=x", "what=1"] {
            assert!(group(&main, wrong).is_err(), "{wrong}");
        }
    }
}
