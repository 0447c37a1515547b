//! The `tallyman` program: reads the command line, starts logging, runs the server.
//!
//! Exit codes: 0 after a clean stop, 2 when the command line or the settings file is not
//! understood, otherwise what the fatal error says.

use std::{process::ExitCode, sync::Arc};

use tallyman::{
    config::{Invocation, Live, invocation},
    logging, server,
};

fn main() -> ExitCode {
    match invocation(std::env::args_os()) {
        Ok(Invocation::Serve { settings, file }) => serve(Live::new(settings, file)),
        Err(refusal) => ExitCode::from(refusal.report()),
    }
}

fn serve(live: Live) -> ExitCode {
    let settings = live.settings();
    let level = logging::start(settings.loglevel, settings.logformat);
    live.watch(move |settings| level.set(settings.loglevel));
    match server::run(Arc::new(live)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            tracing::error!("{}", fatal.text);
            ExitCode::from(fatal.exit_code)
        }
    }
}
