//! Accounts, interest, and the way of a message from a publisher to its subscribers.
