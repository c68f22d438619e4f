//! The law of the workspace, checked over `cargo metadata`: which crate may use which, what the
//! shipped binary may contain, licences, single versions.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Who may use whom (ARCHITECTURE.md draws it). `sim` and `fuzz` may use all; `tests` none.
const ARROWS: &[(&str, &[&str])] = &[
    ("halyard-runtime", &[]),
    ("halyard-format", &[]),
    ("halyard-backup", &["halyard-format"]),
    ("halyard-engine", &["halyard-runtime", "halyard-format"]),
    ("halyard-raft", &["halyard-runtime", "halyard-format"]),
    ("halyard-net", &[]),
    (
        "halyard-server",
        &[
            "halyard-runtime",
            "halyard-format",
            "halyard-backup",
            "halyard-engine",
            "halyard-raft",
            "halyard-net",
        ],
    ),
    (
        "halyard-sim",
        &[
            "halyard-runtime",
            "halyard-format",
            "halyard-backup",
            "halyard-engine",
            "halyard-raft",
            "halyard-net",
            "halyard-server",
        ],
    ),
    (
        "halyard-fuzz",
        &[
            "halyard-runtime",
            "halyard-format",
            "halyard-backup",
            "halyard-engine",
            "halyard-raft",
            "halyard-net",
            "halyard-server",
        ],
    ),
    ("halyard-tests", &[]),
];

/// Licences that an Apache-2.0 binary may include.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates of the shipped binary that stand in its tree twice, each with the reason. May only shrink.
const TWICE: &[(&str, &str)] = &[
    (
        "cpufeatures",
        "openraft's quorum-set hashes with sha2 0.10, rand 0.10 uses the newer one",
    ),
    (
        "getrandom",
        "ring, of which only the ciphers are used, asks for 0.2; rand 0.10 for 0.4",
    ),
];

/// A crate outside which a third-party crate must not be named: (third party, the one member).
const BEHIND_ONE_CRATE: &[(&str, &str)] = &[
    ("openraft", "halyard-raft"),
    ("openraft-rt", "halyard-raft"),
    ("openraft-rt-tokio", "halyard-raft"),
    ("madsim", "halyard-runtime"),
    ("ring", "halyard-format"),
    ("crc32c", "halyard-format"),
    ("snap", "halyard-backup"),
    ("highway", "halyard-backup"),
];

fn metadata(extra: &[&str]) -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked"])
        .args(extra)
        .current_dir(halyard_tests::node::workspace())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// The packages of the shipped binary: name, version, licence; found as cargo itself resolves them,
/// with the features of `-p halyard-server` alone.
fn shipped_tree() -> BTreeSet<(String, String, String)> {
    tree(&["-p", "halyard-server"])
}

/// What cargo builds for the packages that `selection` names.
fn tree(selection: &[&str]) -> BTreeSet<(String, String, String)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--locked",
            "-e",
            "normal,no-proc-macro",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}|{l}"])
        .args(selection)
        .current_dir(halyard_tests::node::workspace())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("cargo tree is text")
        .lines()
        .filter_map(|line| {
            let (package, licence) = line.split_once('|')?;
            let mut words = package.split(' ');
            let (name, version) = (words.next()?, words.next()?);
            let licence = licence.trim_end_matches(" (*)");
            Some((name.to_owned(), version.to_owned(), licence.to_owned()))
        })
        .collect()
}

fn members() -> Vec<Value> {
    let metadata = metadata(&["--no-deps"]);
    metadata["packages"].as_array().expect("a list").clone()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

#[test]
fn crates_use_only_what_the_arrows_allow() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for package in members() {
        let name = text(&package["name"]);
        let allowed = arrows
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no arrows: add it"));
        for dependency in package["dependencies"].as_array().expect("a list") {
            let used = text(&dependency["name"]);
            let for_tests = dependency["kind"].as_str() == Some("dev");
            if used.starts_with("halyard-") && !for_tests {
                assert!(allowed.contains(&used), "{name} must not use {used}");
            }
        }
    }
}

#[test]
fn third_parties_stay_behind_their_crate() {
    for package in members() {
        let name = text(&package["name"]);
        for dependency in package["dependencies"].as_array().expect("a list") {
            let used = text(&dependency["name"]);
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            for (third_party, owner) in BEHIND_ONE_CRATE {
                assert!(
                    used != *third_party || name == *owner,
                    "only {owner} may name {used}"
                );
            }
        }
    }
}

#[test]
fn the_shipped_binary_holds_no_simulator() {
    // As `cargo run` and `cargo build` resolve features: over all members.
    let tree = tree(&["--workspace"]);
    assert!(
        tree.iter().any(|(name, ..)| name == "tokio"),
        "the tree was read"
    );
    for (name, ..) in &tree {
        assert!(
            !name.starts_with("madsim"),
            "{name} is in the shipped binary"
        );
    }
}

#[test]
fn the_shipped_binary_holds_one_version_of_each_crate() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, version, _) in shipped_tree() {
        versions.entry(name).or_default().insert(version);
    }
    let twice: BTreeMap<_, _> = versions.iter().filter(|(_, v)| v.len() > 1).collect();
    for (name, found) in &twice {
        let known = TWICE.iter().any(|(allowed, _)| allowed == name);
        assert!(known, "{name} stands in the shipped tree as {found:?}");
    }
    for (name, _) in TWICE {
        assert!(
            twice.keys().any(|n| n.as_str() == *name),
            "{name} is single again: remove it"
        );
    }
}

#[test]
fn licences_are_known() {
    for (name, version, licence) in shipped_tree() {
        let acceptable = licence.split(" OR ").flat_map(|l| l.split('/')).any(|one| {
            one.split(" AND ")
                .all(|l| LICENCES.contains(&l.trim_matches(['(', ')', ' '])))
        });
        assert!(acceptable, "{name} {version} has the licence {licence:?}");
    }
}

/// What is on the disk outlives the library that decides what gets there.
#[test]
fn the_log_on_disk_names_no_consensus_library() {
    let dir = halyard_tests::node::workspace().join("raft/src/wal");
    let files = std::fs::read_dir(dir).expect("the log is there");
    let mut count = 0;
    for file in files {
        let path = file.expect("listed").path();
        let source = std::fs::read_to_string(&path).expect("text");
        for name in ["openraft", "crate::types", "crate::adapter"] {
            let path = path.display();
            assert!(!source.contains(name), "{path} names {name}");
        }
        count += 1;
    }
    assert!(count > 5, "the log has several files");
}

#[test]
fn every_source_file_tells_its_story() {
    let root = halyard_tests::node::workspace();
    let list = Command::new("git")
        .args(["ls-files", "*.rs"])
        .current_dir(&root)
        .output()
        .expect("git runs");
    let files = String::from_utf8(list.stdout).expect("paths are text");
    assert!(files.lines().count() > 5, "git lists the sources");
    for file in files.lines() {
        let Ok(source) = std::fs::read_to_string(root.join(file)) else {
            continue;
        };
        assert!(
            source.starts_with("//!"),
            "{file} does not begin with its story"
        );
    }
}
