//! End to end: the built binary, driven by clients that this project did not write.
