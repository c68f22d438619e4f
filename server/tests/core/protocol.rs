//! What one client sees: answers, refusals, limits, and why it is closed. Texts as the real server sends them.

use std::time::Duration;

use crate::raw::{Raw, reason_of_the_closed, with_server};
use halyard_server::config::{Authorization, User};

#[test]
fn before_connect_the_defaults_are_verbose_and_pedantic() {
    with_server(
        |_| {},
        async |server| {
            let mut raw = Raw::greeted(&server).await;
            raw.send("SUB a 1\r\nPUB a 2\r\nhi\r\n").await;
            raw.expect("+OK\r\n+OK\r\nMSG a 1 2\r\nhi\r\n").await;
            raw.send("PUB a..b 0\r\n\r\nUNSUB 7\r\nSUB a..b 2\r\n")
                .await;
            raw.expect("-ERR 'Invalid Publish Subject'\r\n+OK\r\n+OK\r\n")
                .await;
            raw.expect("-ERR 'Invalid Subject'\r\n").await;
            raw.send("CONNECT {\"verbose\":false}\r\nPUB a.* 0\r\n\r\nPING\r\n")
                .await;
            raw.expect("-ERR 'Invalid Publish Subject'\r\nPONG\r\n")
                .await;
        },
    );
}

#[test]
fn bytes_may_come_one_at_a_time() {
    with_server(
        |_| {},
        async |server| {
            let mut raw = Raw::greeted(&server).await;
            let text = "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB a.* q 1\r\n\
                PUB a.b r.s 5\r\nhello\r\nHPUB a.c 12 14\r\nNATS/1.0\r\n\r\nhi\r\n";
            for byte in text.bytes() {
                raw.send_bytes(&[byte]).await;
                halyard_runtime::task::yield_now().await;
            }
            raw.expect("MSG a.b 1 r.s 5\r\nhello\r\n").await;
            raw.expect("HMSG a.c 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n")
                .await;
        },
    );
}

#[test]
fn the_first_ping_after_connect_is_answered_with_the_account() {
    with_server(
        |_| {},
        async |server| {
            let mut raw = Raw::greeted(&server).await;
            raw.send("PING\r\nCONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\nPING\r\n")
                .await;
            raw.expect("PONG\r\nPONG\r\n").await;
            let info = raw.line().await;
            assert!(
                info.contains("\"connect_info\":true,\"remote_account\":\"$G\""),
                "{info}"
            );
            raw.expect("PONG\r\n").await;
        },
    );
}

#[test]
fn auto_unsubscribe_counts_from_the_beginning() {
    with_server(
        |_| {},
        async |server| {
            let mut raw = Raw::connected(&server, "").await;
            raw.send("SUB a 1\r\nSUB b 1\r\nPUB a 0\r\n\r\nPUB b 0\r\n\r\nUNSUB 1 2\r\n")
                .await;
            raw.send("PUB a 1\r\nx\r\nPUB a 1\r\ny\r\n").await;
            raw.expect("MSG a 1 0\r\n\r\nMSG a 1 1\r\nx\r\n").await;
            raw.flush().await;
            // The sid is free again; a limit that is already reached ends the subscription at once.
            raw.send("SUB a 1\r\nPUB a 1\r\nz\r\nUNSUB 1 1\r\nPUB a 1\r\nw\r\n")
                .await;
            raw.expect("MSG a 1 1\r\nz\r\n").await;
            raw.flush().await;
            assert_eq!(server.account().counters().subscriptions, 0);
            let open = server.front().registry.open();
            assert_eq!(
                (open[0].subscriptions, open[0].in_msgs, open[0].out_msgs),
                (0, 6, 3)
            );
        },
    );
}

#[test]
fn nobody_there_is_said_to_those_who_ask() {
    with_server(
        |_| {},
        async |server| {
            let options = ",\"headers\":true,\"no_responders\":true";
            let mut raw = Raw::connected(&server, options).await;
            raw.send("SUB in.* 1\r\nPUB nobody in.7 0\r\n\r\n").await;
            let block = "NATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n";
            raw.expect(&format!("HMSG in.7 1 {0} {0}\r\n{block}\r\n", block.len()))
                .await;
            // No subscription for the answer, or no wish to hear it: silence.
            raw.send("PUB nobody elsewhere 0\r\n\r\n").await;
            raw.flush().await;
            let mut other = Raw::connected(&server, ",\"headers\":true").await;
            other.send("SUB in.* 1\r\nPUB nobody in.8 0\r\n\r\n").await;
            other.flush().await;
        },
    );
}

#[test]
fn reserved_subjects_are_refused() {
    with_server(
        |_| {},
        async |server| {
            let mut raw = Raw::connected(&server, "").await;
            for reply in ["$JS.ACK.x", "_R_.x", "_GR_.x"] {
                raw.send(&format!("PUB a {reply} 0\r\n\r\n")).await;
                let text = format!("Permissions Violation for Publish with Reply of \"{reply}\"");
                raw.expect(&format!("-ERR '{text}'\r\n")).await;
            }
            for subject in ["_GR_.x", "$NRG.x"] {
                raw.send(&format!("PUB {subject} 0\r\n\r\n")).await;
                let text = format!("Permissions Violation for Publish to \"{subject}\"");
                raw.expect(&format!("-ERR '{text}'\r\n")).await;
            }
            raw.send("SUB a _sys_ 1\r\n").await;
            let text = "Permissions Violation for Subscription to \"a\" using queue \"_sys_\"";
            raw.expect(&format!("-ERR '{text}'\r\n")).await;
        },
    );
}

#[test]
fn limits_of_subscriptions() {
    let limits = |config: &mut halyard_server::config::Config| {
        config.limits.max_subscriptions = Some(2);
        config.limits.max_sub_tokens = Some(3);
    };
    with_server(limits, async |server| {
        let mut raw = Raw::connected(&server, "").await;
        raw.send("SUB a 1\r\nSUB a.b.c.d 2\r\nSUB b 2\r\nSUB c 3\r\nUNSUB 1\r\nSUB d 4\r\n")
            .await;
        raw.expect(
            "-ERR 'Permissions Violation for Subscription to \"a.b.c.d\", too many tokens'\r\n",
        )
        .await;
        raw.expect("-ERR 'maximum subscriptions exceeded'\r\n")
            .await;
        raw.flush().await;
        assert_eq!(server.account().counters().subscriptions, 2);
    });
}

/// What a client sends, what it hears before it is closed, and the reason that is noted.
#[test]
fn what_closes_a_connection() {
    let long = "a".repeat(5000);
    let cases = [
        ("CONNECT {xx}\r\n", "", "Protocol Violation"),
        (
            "GET / HTTP/1.0\r\n",
            "-ERR 'Unknown Protocol Operation'\r\n",
            "Protocol Violation",
        ),
        (
            "PUB a 1\r\nxyz\r\n",
            "-ERR 'Unknown Protocol Operation'\r\n",
            "Protocol Violation",
        ),
        (
            "PUB a 2000000\r\n",
            "-ERR 'Maximum Payload Violation'\r\n",
            "Maximum Message Payload Exceeded",
        ),
        (
            &format!("SUB {long} 1\r\n"),
            "-ERR 'maximum control line exceeded'\r\n",
            "Maximum Control Line Exceeded",
        ),
        (
            "CONNECT {\"protocol\":2}\r\n",
            "-ERR 'invalid client protocol'\r\n",
            "Bad Client Protocol Version",
        ),
        (
            "CONNECT {\"no_responders\":true}\r\n",
            "-ERR 'no responders requires headers support'\r\n",
            "No Responders Requires Headers",
        ),
        (
            "CONNECT {\"account\":\"$SYS\"}\r\n",
            "-ERR 'Authorization Violation'\r\n",
            "Authentication Failure",
        ),
        (
            "CONNECT {\"verbose\":false}\r\nHPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n",
            "",
            "Protocol Violation",
        ),
    ];
    for (sent, heard, reason) in cases {
        with_server(
            |_| {},
            async |server| {
                let mut raw = Raw::greeted(&server).await;
                raw.send(sent).await;
                raw.expect_end(heard).await;
                assert_eq!(reason_of_the_closed(&server).await, reason, "{sent:.40}");
            },
        );
    }
}

#[test]
fn who_does_not_show_credentials_stays_out() {
    let rules = Authorization {
        users: vec![User {
            name: "a".into(),
            password: "secret".into(),
        }],
        timeout: Some(Duration::from_millis(50)),
        ..Authorization::default()
    };
    for (sent, heard, reason) in [
        (
            "PING\r\n",
            "-ERR 'Authorization Violation'\r\n",
            "Authentication Failure",
        ),
        (
            "GET /\r\n",
            "-ERR 'Authorization Violation'\r\n",
            "Authentication Failure",
        ),
        (
            "CONNECT {}\r\n",
            "-ERR 'Authorization Violation'\r\n",
            "Authentication Failure",
        ),
        (
            "CONNECT {\"user\":\"a\",\"pass\":\"wrong\"}\r\nPUB a 0\r\n\r\n",
            "-ERR 'Authorization Violation'\r\n",
            "Authentication Failure",
        ),
        (
            "",
            "-ERR 'Authentication Timeout'\r\n",
            "Authentication Timeout",
        ),
    ] {
        with_server(
            |config| config.authorization = rules.clone(),
            async |server| {
                let mut raw = Raw::greeted(&server).await;
                raw.send(sent).await;
                raw.expect_end(heard).await;
                assert_eq!(reason_of_the_closed(&server).await, reason, "{sent:?}");
            },
        );
    }
    with_server(
        |config| config.authorization = rules.clone(),
        async |server| {
            let mut raw = Raw::connected(&server, ",\"user\":\"a\",\"pass\":\"secret\"").await;
            raw.flush().await;
            assert_eq!(
                server.front().registry.open()[0].names.user.as_deref(),
                Some("a")
            );
        },
    );
}

#[test]
fn silent_clients_are_stale() {
    let quick = |config: &mut halyard_server::config::Config| {
        config.ping_interval = Duration::from_millis(200);
        config.ping_max = 2;
    };
    with_server(quick, async |server| {
        let mut raw = Raw::connected(&server, "").await;
        raw.expect("PING\r\n").await;
        raw.send("PONG\r\n").await;
        raw.expect_end("PING\r\nPING\r\n-ERR 'Stale Connection'\r\n")
            .await;
        assert_eq!(reason_of_the_closed(&server).await, "Stale Connection");
        assert_eq!(server.front().registry.totals().stale_connections, 1);
        assert!(server.front().registry.closed()[0].rtt.is_some());
    });
}
