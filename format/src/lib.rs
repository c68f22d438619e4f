//! What files are made of: numbers, checksums, encryption. Below engine, raft and backup, whose files share them.
//!
//! It knows no file: what stands where is said by the crate that owns the file. It uses no other crate of this workspace, has
//! no I/O, draws no random number and reads no clock; it is the only one that names the library for ciphers. Freed files are
//! overwritten through the disk's door (`halyard_runtime::disk::wipe`).
//!
//! Reading order: [`codec`], [`checksum`] with [`flip`], [`cipher`].
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod checksum;
pub mod cipher;
pub mod codec;
pub mod flip;

pub use cipher::{Cipher, Encryption, Key};
pub use codec::Malformed;
