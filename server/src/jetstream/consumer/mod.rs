//! Consumers: what each has seen, what waits for an ack, and what it gets next.
