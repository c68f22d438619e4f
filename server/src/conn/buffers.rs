//! Buffers that belong to the thread, so that idle connections own none.

use std::cell::RefCell;

use crate::caps;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Lends the thread's read buffer. Not to be nested.
pub(crate) fn with_scratch<R>(use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.is_empty() {
            scratch.resize(caps::READ_BYTES, 0);
        }
        use_it(scratch)
    })
}

/// An empty buffer, perhaps one that was used before.
pub(crate) fn take() -> Vec<u8> {
    SPARE
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| Vec::with_capacity(caps::FIRST_CHUNK_BYTES))
}

/// Gives a buffer back for the next [`take`] on this thread, unless it is of an odd size or there are enough.
pub(crate) fn give(mut buffer: Vec<u8>) {
    if !(1..=caps::CHUNK_BYTES * 2).contains(&buffer.capacity()) {
        return;
    }
    buffer.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < caps::SPARE_BUFFERS {
            spare.push(buffer);
        }
    });
}
