//! Tests of the way from text and arguments to settings. Each case was tried on the real nats-server; where we differ
//! on purpose, the case says so.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// Files and variables in memory.
#[derive(Default)]
struct Fake {
    files: BTreeMap<PathBuf, String>,
    variables: BTreeMap<String, String>,
}

impl Fake {
    fn new(text: &str) -> Self {
        Self::default().file("main.conf", text)
    }

    fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.to_owned());
        self
    }

    fn variable(mut self, name: &str, text: &str) -> Self {
        self.variables.insert(name.to_owned(), text.to_owned());
        self
    }

    fn load(&self) -> Result<Loaded, LoadError> {
        command_line(&["-c", "main.conf"]).unwrap().load(self)
    }

    fn config(&self) -> Config {
        self.load().unwrap().config
    }

    fn error(&self) -> String {
        self.load().unwrap_err().to_string()
    }

    fn map(&self) -> Result<Map, Problem> {
        parse_file(Path::new("main.conf"), self)
    }
}

impl Surroundings for Fake {
    fn read(&self, path: &Path) -> io::Result<String> {
        let text = self.files.get(path).cloned();
        text.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

fn command_line(args: &[&str]) -> Result<CommandLine, UsageError> {
    let args = args.iter().map(|arg| (*arg).to_owned());
    CommandLine::parse(std::iter::once("/usr/bin/nats-server".to_owned()).chain(args))
}

/// What `key` is in `text`, written like JSON.
fn value(text: &str, key: &str) -> String {
    fn show(value: &Value) -> String {
        match &value.kind {
            Kind::Bool(value) => value.to_string(),
            Kind::Integer(value) => value.to_string(),
            Kind::Float(value) => format!("{value:?}"),
            Kind::Date(text) => format!("date {text}"),
            Kind::String(text) => format!("{text:?}"),
            Kind::List(values) => {
                format!(
                    "[{}]",
                    values.iter().map(show).collect::<Vec<_>>().join(",")
                )
            }
            Kind::Map(map) => {
                let show = |e: &Entry| format!("{}:{}", e.key, show(&e.value));
                format!(
                    "{{{}}}",
                    map.entries.iter().map(show).collect::<Vec<_>>().join(",")
                )
            }
        }
    }
    let map = Fake::new(text).map().unwrap();
    let entry = map.entries.iter().rfind(|entry| entry.key == key);
    entry.map_or("nothing".to_owned(), |entry| show(&entry.value))
}

#[test]
fn values_in_every_form() {
    for (text, expected) in [
        ("a: 5", "5"),
        ("a = 5", "5"),
        ("a 5", "5"),
        ("a:5", "5"),
        ("a: -5", "-5"),
        ("a: 1k", "1000"),
        ("a: 1Kb", "1024"),
        ("a: 2kib", "2048"),
        ("a: 1MB", "1048576"),
        ("a: 4g # c", "4000000000"),
        ("a: 1e", "1000000000000000000"),
        ("a: 1kx", r#""1kx""#),
        ("a: 1.5", "1.5"),
        ("a: -1.5", "-1.5"),
        ("a: 1.5.6", r#""1.5.6""#),
        ("a: 127.0.0.1:4222", r#""127.0.0.1:4222""#),
        ("a: TRUE", "true"),
        ("a: off", "false"),
        ("a: yes1", r#""yes1""#),
        ("a: 2014-01-02T10:11:12Z", "date 2014-01-02T10:11:12Z"),
        ("a: b#c", r#""b#c""#),
        ("a: b//c", r#""b//c""#),
        ("a: //c", "unreachable"),
        ("a: b=c", r#""b=c""#),
        ("a:b:c", r#""b:c""#),
        ("a: b\"c\"", r#""b\"c\"""#),
        (r"a: b\x41\tc", r#""bA\tc""#),
        (r#"a: "b\x41\"\\\n c""#, r#""bA\"\\\n c""#),
        (r"a: 'b\x41'", r#""b\\x41""#),
        ("a: 'b\nc'", r#""b\nc""#),
        ("a: \"b\nc\"", r#""b\nc""#),
        ("a: (\n b (c)\n)\nd: 1", r#""\n b (c)\n""#),
        ("a: $2a$11$abc", r#""$2a$11$abc""#),
        ("a: \"$X\"", r#""$X""#),
        ("a [1, 2,\n 3\n # x\n 4,]", "[1,2,3,4]"),
        ("a: [{b: 1}, [c], 'd']", r#"[{b:1},["c"],"d"]"#),
        (
            "a {b: 1; c: 2, d 3\n e: {f: g}}",
            r#"{b:1,c:2,d:3,e:{f:"g"}}"#,
        ),
        ("a\n{\nb: 1\n}\n", "{b:1}"),
        ("a{b:1}", "{b:1}"),
        ("a[1]", "[1]"),
        ("{\"a\": {\"b\": [true, null]}}", r#"{b:[true,"null"]}"#),
        ("\u{feff}a: 1\r\nb: 2\r\n", "1"),
        ("a: 1\na: 2", "2"),
        ("# c\na: 1 # d\n// e\n", "1"),
        ("X: 5\na: $X", "5"),
        ("X: {b: 1}\na: [$X]", "[{b:1}]"),
        ("X: 1\nb { X: 2\n c: $X }\na: $X", "1"),
        ("X: 1\na { c: $X }", "{c:1}"),
        ("X: 1\na { X: 2\n c: $X }", "{X:2,c:2}"),
    ] {
        if expected == "unreachable" {
            assert!(Fake::new(text).map().is_err(), "{text}");
        } else {
            assert_eq!(value(text, "a"), expected, "{text}");
        }
    }
}

#[test]
fn errors_say_where() {
    for (text, expected) in [
        (
            "port: 4222\nfoo: 1\n",
            "main.conf:2:1: unknown field \"foo\"",
        ),
        (
            "jetstream {\n  foo: 1\n}",
            "main.conf:2:3: unknown field \"foo\"",
        ),
        (
            "port: 4222 host: a",
            "main.conf:1:12: expected the end of the line",
        ),
        ("a {\n b: 1\n", "main.conf:1:3: this map has no closing }"),
        ("a: \"b", "main.conf:1:4: this string has no closing \""),
        ("a: \"b\\q\"", "main.conf:1:6: only these escapes exist"),
        (
            "a: \"\\x4\"",
            "main.conf:1:5: \\x needs two hexadecimal digits",
        ),
        (
            "a: [1,,2]",
            "main.conf:1:7: expected a value or ], found ','",
        ),
        (
            "a: [1 2]",
            "main.conf:1:7: expected a comma or ], found '2'",
        ),
        ("a: [1\n", "main.conf:1:4: this list has no closing ]"),
        ("a: (b)\n", "main.conf:1:4: this block has no closing line"),
        ("port =\n 4", "main.conf:1:1: \"port\" has no value"),
        ("port", "main.conf:1:1: \"port\" has no value"),
        ("a {port}", "main.conf:1:4: \"port\" has no value"),
        (": 5", "main.conf:1:1: expected a key, found ':'"),
        ("port: 1\n}", "main.conf:2:1: expected a key, found '}'"),
        ("{port: 1} x", "main.conf:1:11: nothing may follow"),
        (
            "port: $NOPE",
            "main.conf:1:7: $NOPE is neither defined above",
        ),
        (
            "jetstream { X: 1\n max_mem: 1 }\nport: $X",
            "main.conf:3:7: $X is neither",
        ),
        (
            "port: 9223372036854775808",
            "main.conf:1:7: the number 9223372036854775808 does not fit",
        ),
        (
            "include ./missing.conf",
            "main.conf:1:1: the included file \"./missing.conf\" cannot be",
        ),
        ("include ./main.conf", "main.conf:1:1: more than"),
        (
            "port: abc",
            "main.conf:1:7: expected a whole number, found the string \"abc\"",
        ),
        ("port: 99999", "main.conf:1:7: 99999 is not a port"),
        (
            "debug: 1",
            "main.conf:1:8: expected true or false, found the number 1",
        ),
        (
            "server_name: 12",
            "main.conf:1:14: expected a string, found the number 12; put it",
        ),
        (
            "ping_interval: 1x",
            "main.conf:1:16: \"1x\" is not a duration",
        ),
        (
            "lame_duck_duration: 10s",
            "main.conf:1:21: lame_duck_duration must be at least 30s",
        ),
        (
            "tls { cert_file: a }",
            "main.conf:1:1: \"tls\" is not supported yet",
        ),
        (
            "jetstream { cipher: aes }",
            "main.conf:1:13: a cipher needs a key",
        ),
        (
            "jetstream { prev_key: old }",
            "main.conf:1:13: a previous key needs a key",
        ),
        (
            "jetstream {\n key: \"\" }",
            "main.conf:2:2: \"key\" is empty",
        ),
        (
            "jetstream { key: k, prev_ek: '' }",
            "main.conf:1:21: \"prev_ek\" is empty",
        ),
        (
            "jetstream { key: k, cipher: aes-gcm }",
            "main.conf:1:29: unknown cipher \"aes-gcm\": use chacha",
        ),
        (
            "jetstream { key: k, cipher: 1 }",
            "main.conf:1:29: expected one of the ciphers",
        ),
        (
            "jetstream { enabled: false, ek: k }",
            "main.conf:1:29: encryption is set up, but JetStream is off",
        ),
        (
            "jetstream { key: k, ek: other }",
            "main.conf:1:21: this key is set twice",
        ),
        (
            "jetstream { key: k, prev_key: k }",
            "main.conf:1:21: the previous key is the key itself",
        ),
        (
            "jetstream { tpm {} }",
            "main.conf:1:13: \"tpm\" is not supported yet",
        ),
        (
            "jetstream { limits { foo: 1 } }",
            "main.conf:1:22: unknown field \"foo\"",
        ),
        (
            "jetstream { max_buffered_msgs: 5 }",
            "main.conf:1:13: \"max_buffered_msgs\" is not supported yet",
        ),
        (
            "jetstream { limits { max_request_batch: 5 } }",
            "\"max_request_batch\" is not supported yet",
        ),
        (
            "jetstream { sync_interval: 2m }",
            "main.conf:1:28: only \"always\" is possible",
        ),
        (
            "jetstream: 1",
            "main.conf:1:12: expected a map, true or enabled",
        ),
        (
            "store_dir: /x\njetstream {store_dir: /y}",
            "main.conf:2:12: store_dir is set twice",
        ),
        (
            "max_payload: 100mb",
            "max_payload (104857600) cannot be higher than max_pending",
        ),
        (
            "authorization { user: a\n password: b\n token: c }",
            "main.conf:1:15: cannot have a user",
        ),
        (
            "authorization { token: 12345 }",
            "main.conf:1:24: expected a string, found",
        ),
        (
            "authorization { users [ {foo: a, pass: b} ] }",
            "main.conf:1:26: unknown field \"foo\"",
        ),
        (
            "authorization { users [ {pass: b} ] }",
            "main.conf:1:25: this user has no name",
        ),
        (
            "authorization { users {user: a} }",
            "main.conf:1:23: expected a list",
        ),
        (
            "authorization { users [ {user: c}, {user: c} ] }",
            "1:36: the user \"c\" is defined twice",
        ),
        (
            "authorization { users [ {user: c, permissions {}} ] }",
            "\"permissions\" is not supported",
        ),
        (
            "no_auth_user: x\nauthorization { users [ {user: c} ] }",
            "no_auth_user: \"x\" is not among",
        ),
    ] {
        let error = Fake::new(text).error();
        assert!(
            error.contains(expected),
            "{text:?}: {error:?} does not contain {expected:?}"
        );
    }
    let both = Fake::new("foo: 1\nbar: 2").error();
    assert_eq!(
        both.lines().count(),
        2,
        "every unknown field is named: {both}"
    );
}

#[test]
fn encryption_has_the_names_of_the_peer_and_shows_no_key() {
    let cases = [
        ("key: hunter2", None, Cipher::ChaCha20Poly1305),
        (
            "EK: hunter2, cipher: chacha",
            None,
            Cipher::ChaCha20Poly1305,
        ),
        (
            "encryption_key: hunter2, prev_key: hunter1, cipher: ChaChaPoly",
            Some("hunter1"),
            Cipher::ChaCha20Poly1305,
        ),
        (
            "key: hunter2, prev_ek: \"hunter1\", cipher: AES",
            Some("hunter1"),
            Cipher::Aes256Gcm,
        ),
        (
            "key: $PASSWORD, prev_encryption_key: $DIGITS",
            Some("0123"),
            Cipher::ChaCha20Poly1305,
        ),
    ];
    let mut digests = Vec::new();
    for (block, previous, cipher) in cases {
        let fake = Fake::new(&format!("jetstream {{ {block} }}"))
            .variable("PASSWORD", "hunter2")
            .variable("DIGITS", "0123");
        let config = fake.config();
        let expected = Encryption {
            key: Secret("hunter2".into()),
            previous: previous.map(|text| Secret(text.into())),
            cipher,
        };
        assert_eq!(config.jetstream.encryption, Some(expected), "{block}");
        assert!(!format!("{config:?}").contains("hunter"), "{config:?}");
        digests.push(config.config_digest);
    }
    // Who sees the digest cannot try keys.
    let digest = |key: &str| {
        let text = format!("K: {key}\njetstream {{ key: $K }}");
        Fake::new(&text).config().config_digest
    };
    assert_eq!(digest("hunter2"), digest("hunter3"));
    assert_ne!(digests[0], digests[1], "what is no secret counts");
    for bad in ["key: 4711", "prev_key: 4711", "key: [4711]"] {
        let error = Fake::new(&format!("jetstream {{ {bad} }}")).error();
        assert!(error.contains("put it in quotes"), "{error}");
        assert!(!error.contains("4711"), "{error}");
    }
}

#[test]
fn includes_join_paths_and_share_scopes() {
    let fake =
        Fake::new("HOST: a\ninclude sub/b.conf\njetstream { include 'sub/js.conf' }\nport: $P")
            .file(
                "sub/b.conf",
                "max_payload: 2kb; include \"./c.conf\"\nhost: $HOST\n",
            )
            .file("sub/c.conf", "{ P: 4333 }")
            .file("sub/js.conf", "max_mem: 1g");
    let config = fake.config();
    assert_eq!((config.port, config.host.as_str()), (4333, "a"));
    assert_eq!(config.limits.max_payload, 2048);
    assert_eq!(config.jetstream.max_memory_store, Some(1_000_000_000));

    let fake = fake.file("sub/c.conf", "P: 1\n  nope: 1");
    assert!(
        fake.error()
            .contains("sub/c.conf:2:3: unknown field \"nope\""),
        "{}",
        fake.error()
    );
    let fake = Fake::new("include /etc/x.conf").file("/etc/x.conf", "port: 1");
    assert_eq!(
        fake.config().port,
        1,
        "an absolute path, where NATS would look below the directory"
    );
    let fake = fake.file("etc/x.conf", "port: 2");
    assert_eq!(fake.config().port, 2, "as NATS does");
}

#[test]
fn the_environment_is_read_as_values() {
    let fake =
        Fake::new("max_payload: $N\njetstream: $JS\nserver_name: $Q\nauthorization {token: $T}")
            .variable("N", "4k")
            .variable("JS", "{enabled: true, domain: d}")
            .variable("Q", "'q'")
            .variable("T", "12345");
    let config = fake.config();
    assert_eq!(config.limits.max_payload, 4000);
    assert_eq!(config.jetstream.domain.as_deref(), Some("d"));
    assert_eq!(config.server_name.as_deref(), Some("q"));
    assert_eq!(
        config.authorization.token.as_deref(),
        Some("12345"),
        "NATS refuses this one"
    );

    let error = Fake::new("server_name: $C").variable("C", "$C").error();
    assert!(error.contains("is there a cycle?"), "{error}");
    let error = Fake::new("server_name: $C").variable("C", "a b").error();
    assert!(error.contains("more than one value"), "{error}");
}

#[test]
fn hostile_files_end_soon() {
    let deep = "a: ".to_owned() + &"[".repeat(100_000);
    assert!(Fake::new(&deep).error().contains("is there a cycle?"));
    let deep = "a {".repeat(100_000);
    assert!(Fake::new(&deep).error().contains("is there a cycle?"));
    let mut laughs = "A0: [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..20 {
        let below = format!("$A{},", level - 1).repeat(10);
        laughs += &format!("A{level}: [{below}]\n");
    }
    assert!(
        Fake::new(&laughs)
            .error()
            .contains("more than 1000000 values")
    );
    let wide = Fake::new("include a\n")
        .file("a", "include b\ninclude b")
        .file("b", "include a\ninclude a");
    assert!(wide.error().contains("more than"));
}

#[test]
fn every_key_reaches_its_field() {
    let config = Fake::new(
        r#"
        listen: 127.0.0.1:-1, client_advertise: "example.org:4222"
        server_name: n1, server_tags: ["A:B, c", "c"], server_metadata { k: v }
        http: 8333, http_base_path: /nats/
        max_payload: 1kb; max_control_line: 2kb; max_pending: 3mb; max_connections: 5
        max_subscriptions: 6; max_sub_tokens: 7; max_traced_msg_len: 8; max_closed_clients: 9
        ping_interval: "1m"; ping_max: 4; write_deadline: 2s; no_header_support: true
        lame_duck_duration: 40s; lame_duck_grace_period: 1s
        debug: true; trace: true; logtime: false; logtime_utc: true; logfile: l.log
        logfile_size_limit: 1kb; logfile_max_num: 3; pid_file: p; ports_file_dir: d
        authorization { timeout: 1.5, users = [ {user: a, password: b}, {user: c} ] }
        no_auth_user: c
        jetstream { store_dir: /x, max_mem: 1GB, max_file: "10T", domain: hub, strict: false, sync: always
            limits { duplicate_window: 3s } }
        "#,
    )
    .config();
    assert_eq!((config.host.as_str(), config.port), ("127.0.0.1", 0));
    assert_eq!(config.server_tags, ["a:b", "c"]);
    assert_eq!(
        config.monitor,
        Some(Monitor {
            host: None,
            port: 8333
        })
    );
    assert_eq!(config.monitor_base_path, "/nats");
    let expected = Limits {
        max_payload: 1024,
        max_control_line: 2048,
        max_pending: 3 * 1024 * 1024,
        max_connections: Some(5),
        max_subscriptions: Some(6),
        max_sub_tokens: Some(7),
        max_traced_msg_len: Some(8),
        max_closed_clients: 9,
    };
    assert_eq!(config.limits, expected);
    assert_eq!(
        (config.ping_interval, config.ping_max),
        (Duration::from_secs(60), 4)
    );
    assert_eq!(config.log.size_limit, Some(1024));
    assert!(!config.log.time && config.log.time_utc && config.log.debug && config.log.trace);
    assert_eq!(config.authorization.users.len(), 2);
    assert_eq!(
        config.authorization.timeout,
        Some(Duration::from_millis(1500))
    );
    let jetstream = &config.jetstream;
    assert!(jetstream.enabled && !jetstream.strict);
    assert_eq!(jetstream.max_memory_store, Some(1 << 30));
    assert_eq!(jetstream.max_file_store, Some(10 << 40));
    assert_eq!(jetstream.data_dir(), PathBuf::from("/x/halyard"));
    assert_eq!(
        jetstream.limits.duplicate_window,
        Some(Duration::from_secs(3))
    );
    let digest = config.config_digest.unwrap();
    assert!(
        digest.starts_with("sha256:") && digest.len() == 71,
        "{digest}"
    );
}

#[test]
fn the_digest_is_that_of_nats_server() {
    let digest = |text: &str| Fake::new(text).config().config_digest.unwrap();
    let expected = "sha256:17af9bc2890c2d05c7c0cdfc056d5a243e6afaa6e2733d0dcfd71ec9248ce03e";
    assert_eq!(digest("port: 4222, host: a\n"), expected);
    assert_eq!(digest("{\"host\": a\n# c\n port = 4222}"), expected);
}

#[test]
fn flags_in_every_style_beat_the_file() {
    let fake = Fake::new("port: 1\nhttp: 2\nauthorization {users [{user: x, password: y}]}");
    let line = command_line(&[
        "-c",
        "main.conf",
        "--port=5",
        "-m",
        "-1",
        "-js",
        "--sd",
        "/d",
        "-DV",
        "-T=false",
        "--user",
        "u",
        "--pass=p=q",
        "-name",
        "n",
        "--addr",
        "::1",
        "-log_size_limit=7",
        "-P",
        "pid",
    ])
    .unwrap();
    let config = line.load(&fake).unwrap().config;
    assert_eq!((config.port, config.host.as_str()), (5, "::1"));
    assert_eq!(
        config.monitor,
        Some(Monitor {
            host: None,
            port: 0
        })
    );
    assert!(config.jetstream.enabled && config.log.debug && config.log.trace && !config.log.time);
    assert_eq!(config.jetstream.store_dir, Some("/d".into()));
    assert_eq!(config.authorization.user.as_deref(), Some("u"));
    assert_eq!(config.authorization.password.as_deref(), Some("p=q"));
    assert!(
        config.authorization.users.is_empty(),
        "one user on the command line is the only one"
    );
    assert_eq!(config.server_name.as_deref(), Some("n"));
    assert_eq!(line.program, "nats-server");
}

#[test]
fn the_name_decides_whether_there_are_streams_without_a_word() {
    let started = |name: &str| {
        let line = CommandLine::parse([name.to_owned()]).unwrap();
        line.load(&Fake::default()).unwrap().config.jetstream
    };
    assert!(!started("/usr/bin/nats-server").enabled);
    let ours = started("./halyard");
    assert!(ours.enabled);
    assert_eq!(ours.store_dir, Some("halyard-data".into()));
}

#[test]
fn commands_and_misuse() {
    let action = |args: &[&str]| command_line(args).unwrap().action;
    assert_eq!(action(&[]), Action::Run);
    assert_eq!(action(&["--version"]), Action::Version);
    assert_eq!(action(&["-v"]), Action::Version);
    assert_eq!(action(&["version"]), Action::Version);
    assert_eq!(action(&["-h"]), Action::Help);
    assert_eq!(action(&["-t", "-c", "x"]), Action::Test);
    let reload = Action::Signal {
        signal: "reload".into(),
        target: None,
    };
    assert_eq!(action(&["--signal", "reload"]), reload);
    let ldm = Action::Signal {
        signal: "ldm".into(),
        target: Some("12".into()),
    };
    assert_eq!(action(&["-sl=ldm=12"]), ldm);
    let check = Action::Store(StoreCommand::Check { dir: "d".into() });
    assert_eq!(action(&["store", "check", "d"]), check);
    let stats = StoreCommand::Stats {
        dir: "d".into(),
        json: true,
    };
    assert_eq!(
        action(&["store", "stats", "d", "--json"]),
        Action::Store(stats)
    );
    let (dir, to) = ("d".into(), "e".into());
    let salvage = Action::Store(StoreCommand::Salvage { dir, to });
    assert_eq!(action(&["store", "salvage", "d", "--to", "e"]), salvage);
    for (args, expected) in [
        (&["foo"][..], "unrecognized command: \"foo\""),
        (&["--nope=1"], "unknown flag --nope"),
        (&["-p"], "-p needs a value"),
        (&["-p", "x"], "-p cannot be \"x\": use 1 to 65535"),
        (&["-js=x"], "-js cannot be \"x\": use true or false"),
        (&["--tls"], "--tls is not supported yet"),
        (&["--routes", "a"], "--routes is not supported yet"),
        (&["--signal", "x"], "--signal cannot be \"x\": use ldm"),
        (&["-t"], "-t needs -c FILE"),
        (
            &["store", "x"],
            "use: nats-server store check|stats|dump DIR",
        ),
    ] {
        let error = command_line(args).unwrap_err().to_string();
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    assert_eq!(version_line("nats-server"), "nats-server: v2.15.1");
    assert_eq!(
        version_line("halyard"),
        format!("halyard: v{VERSION} (NATS 2.15.1)")
    );
    assert!(help("halyard").contains("-sd, --store_dir <dir>"));
}
