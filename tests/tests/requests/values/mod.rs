//! The values of which requests are made, as JSON text: at and beyond every bound, of the wrong type, misspelt. `@` is
//! the case's own name.

mod asks;
mod consumer;
mod messages;
mod stream;

pub(crate) use asks::{DELETE, GET, INFO, LIST, NEXT, PAUSE, PURGE, RESTORE, SNAPSHOT};
pub(crate) use consumer::CONSUMER;
pub(crate) use messages::{ACKS, COMMITS, HEADERS, MEMBER_HEADERS};
pub(crate) use stream::STREAM;

/// A field and values for it.
pub(crate) type Field = (&'static str, &'static [&'static str]);

const COUNTS: &[&str] = &[
    "-2",
    "-1",
    "0",
    "1",
    "2",
    "3",
    "1000",
    "9223372036854775807",
    "9223372036854775808",
    "1.5",
    "1e3",
    "1.0",
    "\"1\"",
    "true",
    "null",
    "-9223372036854775808",
];

const SIZES: &[&str] = &[
    "-2",
    "-1",
    "0",
    "1",
    "100",
    "1048576",
    "2147483647",
    "2147483648",
    "9223372036854775807",
    "\"1\"",
    "null",
];

const FLAGS: &[&str] = &["true", "true", "false", "\"true\"", "1", "null"];

const TIMES: &[&str] = &[
    "-1",
    "0",
    "1",
    "99999999",
    "100000000",
    "999999999",
    "1000000000",
    "120000000000",
    "121000000000",
    "9223372036854775807",
    "\"1s\"",
    "null",
];

/// Times that no case lasts: what they begin is over in none, so that no answer hangs on the machine's speed.
const LONG: &[&str] = &[
    "-1",
    "0",
    "60000000000",
    "120000000000",
    "9223372036854775807",
    "\"1s\"",
    "null",
];

/// How long a consumer may be idle: none of them goes within a case.
const LIVES: &[&str] = &[
    "60000000000",
    "70000000000",
    "600000000000",
    "9223372036854775807",
    "\"1s\"",
];

/// Points of time.
pub(crate) const DATES: &[&str] = &[
    "\"2020-01-01T00:00:00Z\"",
    "\"2020-01-01T00:00:00.123456789Z\"",
    "\"2020-01-01T00:00:00.1234567891Z\"",
    "\"2020-01-01T00:00:00+02:00\"",
    "\"2020-01-01T00:00:00-23:59\"",
    "\"2020-01-01T00:00:00+24:00\"",
    "\"2020-01-01T00:00:00+00:00\"",
    "\"2020-02-30T00:00:00Z\"",
    "\"2020-02-29T00:00:00Z\"",
    "\"2021-02-29T00:00:00Z\"",
    "\"2020-01-01T00:00:60Z\"",
    "\"2020-01-01T24:00:00Z\"",
    "\"2020-01-01 00:00:00Z\"",
    "\"2020-01-01t00:00:00z\"",
    "\"2020-01-01T00:00:00\"",
    "\"2020-01-01T00:00:00,5Z\"",
    "\"2020-01-01T0:00:00Z\"",
    "\"2020-1-01T00:00:00Z\"",
    "\"2020-01-01T00:00:00.Z\"",
    "\"0001-01-01T00:00:00Z\"",
    "\"0001-01-01T00:00:01Z\"",
    "\"0001-01-01T00:00:00+01:00\"",
    "\"0000-01-01T00:00:00Z\"",
    "\"1970-01-01T00:00:00Z\"",
    "\"1960-06-01T00:00:00Z\"",
    "\"1600-06-01T00:00:00Z\"",
    "\"2262-04-12T00:00:00Z\"",
    "\"9999-12-31T23:59:59Z\"",
    "\"10000-01-01T00:00:00Z\"",
    "\"\"",
    "\"x\"",
    "0",
    "null",
    "true",
];

const METADATA: &[&str] = &[
    "{}",
    "{\"a\":\"b\"}",
    "{\"_nats.x\":\"b\"}",
    "{\"_nats.req.level\":\"7\"}",
    "{\"_nats.level\":\"7\"}",
    "{\"a\":1}",
    "{\"a\":null}",
    "[]",
    "null",
    "{\"A\":\"b\",\"a\":\"c\"}",
];

/// Values of `Nats-Required-Api-Level`.
pub(crate) const LEVELS: &[&str] = &[
    "0",
    "1",
    "4",
    "5",
    "6",
    "7",
    "-1",
    "x",
    "",
    "18446744073709551616",
    "+1",
    "05",
];

/// Bodies that are no object.
pub(crate) const BODIES: &[&str] = &[
    "",
    "",
    "{}",
    "null",
    "[]",
    "x",
    "{",
    "0",
    "\"x\"",
    " ",
    "{}x",
    "{} {}",
    "true",
    "\"\"",
    "-1",
    "\"4\"",
    "{\"a\":1}",
    "\u{feff}{}",
    "+2",
    "1.5",
];
