//! Connections: the output gate and the order of replies.

pub mod gate;
pub mod reply_queue;
