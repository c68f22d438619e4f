//! What a store keeps of its group's log beside the applied index, so that both can be found to fit at the next start.

use bytes::Bytes;
use halyard_engine::{Checkpoint, Store};
use halyard_raft::{BadStanding, Standing};

/// Where a store stands.
///
/// # Errors
/// What it keeps of that cannot be read.
pub fn standing_of(store: &Store) -> Result<Standing, BadStanding> {
    Standing::decode(store.applied(), store.standing())
}

/// What a flush of a state at `standing` writes.
#[must_use]
pub fn checkpoint_at(standing: &Standing) -> Checkpoint {
    let known = standing.at.term > 0;
    Checkpoint {
        applied: standing.at.index,
        standing: if known {
            standing.encode()
        } else {
            Bytes::new()
        },
    }
}
