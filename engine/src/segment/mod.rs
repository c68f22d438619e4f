//! Immutable files of messages.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use halyard_runtime::time::Timestamp;

use crate::error::Error;

/// Decoded blocks.
#[derive(Debug, Default)]
pub(crate) struct Cache;

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) seq: u64,
    pub(crate) time: Timestamp,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) subject: u32,
    pub(crate) subject_len: u16,
    pub(crate) headers_len: u32,
    pub(crate) body_start: u32,
    pub(crate) body_len: u32,
}

/// Postings.
#[derive(Debug)]
pub(crate) struct Postings {
    never: Infallible,
}

impl Postings {
    pub(crate) fn next(&mut self, _io: &Cache, _from: u64) -> Result<Option<u64>, Error> {
        match self.never {}
    }
    pub(crate) fn previous(&mut self, _io: &Cache, _up_to: u64) -> Result<Option<u64>, Error> {
        match self.never {}
    }
    pub(crate) fn count(&self) -> u64 {
        match self.never {}
    }
}

/// The part of a segment that belongs to one stream.
#[derive(Debug)]
pub(crate) struct Part {
    never: Infallible,
}

impl Part {
    pub(crate) fn first_seq(&self) -> u64 {
        match self.never {}
    }
    pub(crate) fn last_seq(&self) -> u64 {
        match self.never {}
    }
    pub(crate) fn last_time(&self) -> Timestamp {
        match self.never {}
    }
    pub(crate) fn messages(&self) -> u64 {
        match self.never {}
    }
    pub(crate) fn bytes(&self) -> u64 {
        match self.never {}
    }
    pub(crate) fn subject_count(&self) -> u32 {
        match self.never {}
    }
    /// The number of the page that holds the first row at or after `seq`, or the number of pages.
    pub(crate) fn page_at(&self, _seq: u64) -> usize {
        match self.never {}
    }
    pub(crate) fn page_count(&self) -> usize {
        match self.never {}
    }
    pub(crate) fn page_at_time(&self, _time: Timestamp) -> usize {
        match self.never {}
    }
    pub(crate) fn rows(&self, _io: &Cache, _page: usize) -> Result<Arc<[Row]>, Error> {
        match self.never {}
    }
    pub(crate) fn body(&self, _io: &Cache, _page: usize) -> Result<Bytes, Error> {
        match self.never {}
    }
    pub(crate) fn subject_name(&self, _io: &Cache, _subject: u32) -> Result<Bytes, Error> {
        match self.never {}
    }
    pub(crate) fn postings(&self, _io: &Cache, _subject: &[u8]) -> Result<Option<Postings>, Error> {
        match self.never {}
    }
    /// Subjects with messages here: number, how many.
    pub(crate) fn subject_counts(
        &self,
        _io: &Cache,
        _each: &mut dyn FnMut(&[u8], u64),
    ) -> Result<(), Error> {
        match self.never {}
    }
}
