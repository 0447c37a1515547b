//! Inline commands.
