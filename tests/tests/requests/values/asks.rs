//! The bodies of all other requests.

use super::{DATES, FLAGS, Field};

/// Fields of a request for a message, direct or not.
pub(crate) const GET: &[Field] = &[
    (
        "seq",
        &[
            "0",
            "1",
            "2",
            "3",
            "4",
            "8",
            "9",
            "100",
            "-1",
            "18446744073709551615",
            "18446744073709551616",
            "\"1\"",
            "null",
            "1.5",
        ],
    ),
    (
        "last_by_subj",
        &[
            "\"@.a\"",
            "\"@.b\"",
            "\"@.*\"",
            "\"@.none\"",
            "\"@.>\"",
            "\"\"",
            "\"a b\"",
            "\"..\"",
            "5",
            "null",
        ],
    ),
    (
        "next_by_subj",
        &[
            "\"@.a\"",
            "\"@.b\"",
            "\"@.*\"",
            "\"@.none\"",
            "\"\"",
            "\"a b\"",
            "\"..\"",
            "5",
        ],
    ),
    (
        "batch",
        &[
            "0",
            "1",
            "2",
            "3",
            "100",
            "-1",
            "1000000000",
            "null",
            "\"1\"",
        ],
    ),
    (
        "max_bytes",
        &["0", "1", "30", "100", "1000000000", "-1", "null"],
    ),
    ("start_time", DATES),
    (
        "multi_last",
        &[
            "[]",
            "null",
            "[\"@.a\"]",
            "[\"@.a\",\"@.b\"]",
            "[\"@.*\"]",
            "[\"@.>\"]",
            "[\"@.none\"]",
            "[\"\"]",
            "[\"a b\"]",
            "\"@.a\"",
            "[\"@.a\",\"@.*\"]",
            "[1]",
        ],
    ),
    (
        "up_to_seq",
        &["0", "1", "3", "100", "-1", "null", "18446744073709551615"],
    ),
    ("up_to_time", DATES),
    ("no_hdr", FLAGS),
    ("bogus", &["1"]),
];

/// Fields of the other requests about a stream.
pub(crate) const PURGE: &[Field] = &[
    // Beyond that the real server counts up to the number, one by one.
    (
        "seq",
        &[
            "0",
            "1",
            "3",
            "4",
            "5",
            "7",
            "100",
            "-1",
            "18446744073709551616",
            "null",
            "\"1\"",
        ],
    ),
    (
        "keep",
        &[
            "0",
            "1",
            "2",
            "3",
            "100",
            "-1",
            "18446744073709551615",
            "null",
        ],
    ),
    (
        "filter",
        &[
            "\"\"",
            "\"@.a\"",
            "\"@.*\"",
            "\"@.none\"",
            "\"other\"",
            "\"a b\"",
            "\"..\"",
            "5",
            "null",
            "\">\"",
        ],
    ),
    ("bogus", &["1"]),
];

/// Of `STREAM.MSG.DELETE`.
pub(crate) const DELETE: &[Field] = &[
    (
        "seq",
        &[
            "0",
            "1",
            "2",
            "3",
            "4",
            "100",
            "-1",
            "18446744073709551615",
            "null",
            "\"1\"",
        ],
    ),
    ("no_erase", FLAGS),
    ("bogus", &["1"]),
];

/// Of `STREAM.INFO`.
pub(crate) const INFO: &[Field] = &[
    ("deleted_details", FLAGS),
    (
        "subjects_filter",
        &[
            "\"\"",
            "\">\"",
            "\"@.a\"",
            "\"@.*\"",
            "\"@.none\"",
            "\"other\"",
            "\"a b\"",
            "\"..\"",
            "5",
            "null",
        ],
    ),
    (
        "offset",
        &[
            "0",
            "1",
            "2",
            "100",
            "-1",
            "null",
            "\"1\"",
            "9223372036854775807",
            "9223372036854775808",
        ],
    ),
    ("limit", &["1", "0", "-1"]),
    ("bogus", &["1"]),
];

/// Of lists and names.
pub(crate) const LIST: &[Field] = &[
    (
        "offset",
        &[
            "0",
            "1",
            "2",
            "100",
            "-1",
            "-100",
            "null",
            "\"1\"",
            "9223372036854775807",
            "9223372036854775808",
        ],
    ),
    (
        "subject",
        &[
            "\"\"",
            "\">\"",
            "\"@.a\"",
            "\"@.*\"",
            "\"other\"",
            "\"a b\"",
            "\"..\"",
            "5",
            "null",
        ],
    ),
    ("limit", &["1", "0", "-1"]),
    ("bogus", &["1"]),
];

/// Of a pull request.
pub(crate) const NEXT: &[Field] = &[
    (
        "batch",
        &[
            "0",
            "1",
            "2",
            "3",
            "100",
            "-1",
            "null",
            "\"1\"",
            "1000000000",
        ],
    ),
    // None ends within a case but at once.
    (
        "expires",
        &["0", "1", "300000000000", "-1", "null", "\"1s\""],
    ),
    ("no_wait", &["true", "true", "true", "false", "1"]),
    // The first message of a case, with its ack subject, has about 57 bytes.
    (
        "max_bytes",
        &[
            "0", "1", "30", "56", "57", "58", "59", "60", "61", "100", "114", "116", "118", "120",
            "1000000", "-1", "null",
        ],
    ),
    (
        "idle_heartbeat",
        &[
            "0",
            "1",
            "100000000000",
            "150000000000",
            "150000000001",
            "-1",
            "1000000000000",
        ],
    ),
    ("group", &["\"\"", "\"g\"", "5"]),
    ("min_pending", &["0", "1", "-1"]),
    ("min_ack_pending", &["0", "1", "-1"]),
    ("id", &["\"\"", "\"x\""]),
    ("priority", &["0", "1", "9", "10", "-1"]),
    ("bogus", &["1"]),
];

/// Of `STREAM.SNAPSHOT`.
pub(crate) const SNAPSHOT: &[Field] = &[
    (
        "deliver_subject",
        &["\"\"", "\"a b\"", "\"a.*\"", "\"a..b\"", "5", "null"],
    ),
    ("no_consumers", FLAGS),
    ("jsck", FLAGS),
    (
        "chunk_size",
        &[
            "-1",
            "0",
            "1",
            "1024",
            "\"1\"",
            "null",
            "9223372036854775807",
        ],
    ),
    ("window_size", &["-1", "0", "1", "1024", "null"]),
    ("bogus", &["1"]),
];

/// Of `STREAM.RESTORE`; none of them is right.
pub(crate) const RESTORE: &[Field] = &[
    (
        "config",
        &[
            "null",
            "{}",
            "{\"name\":\"OTHER\"}",
            "{\"name\":\"STAGE\"}",
            "{\"name\":\"STAGE\",\"subjects\":[\"STAGE.>\"]}",
            "5",
        ],
    ),
    ("state", &["null", "{}", "{\"messages\":1}", "5"]),
    ("bogus", &["1"]),
];

/// Of `CONSUMER.PAUSE`.
pub(crate) const PAUSE: &[Field] = &[("pause_until", DATES), ("bogus", &["1"])];
