//! Settings: every one is declared once, in `table.rs`, and everything else is derived from there.
//!
//! The command line with its help, the TOML file, CONFIG GET, CONFIG SET, CONFIG REWRITE and the
//! README's table walk over the same rows. Always true: a [`Settings`] that left this module holds
//! allowed values alone; each came through its row's parser.

mod cli;
mod docs;
mod file;
mod kind;
mod live;
mod settings;
mod table;

pub use cli::{Invocation, Refusal, invocation};
pub use docs::markdown;
pub use kind::{Change, Group, Kind, Row};
pub use live::{Live, Reader, SetError};
pub use settings::{
    AppendFsync, BindAddress, DebugCommand, LogFormat, LogLevel, OutputBufferLimit,
    OutputBufferLimits, Settings,
};
pub use table::{ROWS, row};
