//! One stream: what a publish must fulfil, what it pushes out, and what time takes. Pure, replicated.

pub mod dedupe;
pub mod headers;
