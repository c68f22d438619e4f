//! The lines that a person reads while the server runs.
