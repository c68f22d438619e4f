//! Every decoder of this crate on any bytes: for fuzzing. In a file they only ever see bytes whose checksum holds, but a
//! checksum is no proof of good will, so none of them may panic or allocate what the bytes do not pay for.

use bytes::Bytes;
use halyard_format::codec::Reader;
use halyard_runtime::time::Timestamp;

use crate::manifest::Manifest;
use crate::segment;

/// Feeds `bytes` to each decoder.
pub fn run_all(bytes: &[u8]) {
    let shared = Bytes::copy_from_slice(bytes);
    let _ = Manifest::decode(bytes);
    let _ = segment::decode_rows(bytes, 1, Timestamp::EPOCH);
    let _ = segment::PageStart::split(bytes);
    let _ = segment::table::decode_table(&shared, 1);
    let _ = segment::postings::decode_runs(bytes, 1);
    let _ = segment::postings::decode_index(&shared);
    let mut reader = Reader::new(bytes);
    while let Ok(entry) = segment::entry::read_entry(&mut reader) {
        drop(entry);
        if reader.is_empty() {
            break;
        }
    }
}
