//! keys

use crate::command::Row;

/// The family's commands.
pub const COMMANDS: &[Row] = &[];
