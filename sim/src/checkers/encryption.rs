//! With a key, no payload is anywhere on the disk: in no file as it reads, nowhere on the platter, not in freed space.

use halyard_runtime::sim::SimDisk;

use super::{Evidence, Findings};

/// Payloads that are looked for: each costs a search through the whole disk.
const CANARIES_MAX: usize = 12;
/// Bytes of a payload that are looked for. A shorter payload is no canary: it may be there by chance.
const CANARY_BYTES: usize = 24;

impl Evidence {
    /// Searches the disk for a share of what was published, acknowledged or not. Does nothing without encryption.
    pub(crate) fn look_for_plaintext(&mut self, disk: &SimDisk) {
        if self.options.encryption.is_none() {
            return;
        }
        let published = self.history.publishes.iter();
        let canaries: Vec<_> = published
            .filter_map(|publish| publish.payload.get(..CANARY_BYTES))
            .collect();
        let step = canaries.len().div_ceil(CANARIES_MAX).max(1);
        for canary in canaries.into_iter().step_by(step) {
            if let Some(found) = disk.find(canary).first() {
                let text = format!("{} is in {found:?}", canary.escape_ascii());
                self.plaintext.push(text);
            }
        }
    }
}

pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for found in &evidence.plaintext {
        findings.add(found.clone());
    }
}
