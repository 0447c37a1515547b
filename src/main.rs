//! The `tallyman` program: reads the command line, starts logging, runs the server or a tool.
//!
//! Exit codes: 0 after a clean stop, 2 when the command line or the settings file is not
//! understood, 1 when a tool found a fault, otherwise what the fatal error says.

use std::path::PathBuf;
use std::process::ExitCode;

use tallyman::{
    config::{Invocation, Settings, invocation},
    logging, server, tools,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // In every profile, whether panics unwind there or not.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    match invocation(std::env::args_os()) {
        Ok(Invocation::Serve { settings, file }) => serve(*settings, file),
        Ok(Invocation::Check(folder)) => tools::run_check(&folder),
        Ok(Invocation::Backup(folder, target)) => tools::run_backup(&folder, &target),
        Err(refusal) => ExitCode::from(refusal.report()),
    }
}

fn serve(settings: Settings, file: Option<PathBuf>) -> ExitCode {
    let level = logging::start(settings.loglevel, settings.logformat);
    match server::run(settings, file, move |settings| level.set(settings.loglevel)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            tracing::error!("{}", fatal.text);
            ExitCode::from(fatal.exit_code)
        }
    }
}
