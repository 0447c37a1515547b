//! server

use std::sync::Arc;

use crate::config::Live;

/// Why the process ends: one line for the log, and an exit code.
#[derive(Debug)]
pub struct Fatal {
    pub text: String,
    pub exit_code: u8,
}

/// Runs the server until it is told to stop.
///
/// # Errors
/// What made it impossible to start or to go on.
pub fn run(live: Arc<Live>) -> Result<(), Fatal> {
    let _ = live;
    Ok(())
}
