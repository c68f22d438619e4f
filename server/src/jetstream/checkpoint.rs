//! What a store keeps of its group's log beside the applied index, so that both can be found to fit at the next start.

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
    Checkpoint {
        applied: standing.at.index,
        standing: standing.encode(),
    }
}
