//! What the operating system asks of the running binary.
