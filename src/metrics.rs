//! metrics
/// Placeholder until merged.
pub struct Metrics;
