//! Whole clusters in a deterministic simulator: faults, workloads, checkers.
