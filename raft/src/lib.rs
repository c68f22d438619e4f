//! Replicated logs: groups, the node's log on disk, snapshots, membership. The only crate that names openraft.
