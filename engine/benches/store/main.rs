//! The figures of the store on its own:
//! `cargo bench -p halyard-engine -- [--full | --millions N,N] [--write] [--only STAGE]`.
//!
//! Without `--full` 1 M messages (about 2 minutes); with it 1 M, 10 M and 50 M, 1 M and 10 M subjects (20 to 40 minutes,
//! 25 GB of disk for a while, 4 GB of memory); `--millions` chooses other sizes. `--write` puts the tables into docs/performance.md. `--only` names one of
//! `append`, `growth`, `subjects`, `streams`.
//!
//! A plain program and neither criterion nor divan. The questions are about one large store that takes minutes to build:
//! open it, purge one subject of a million, count once with the page cache dropped before. Harnesses repeat small
//! functions until the noise is averaged away; repeated here, most of these would measure a cache. And half of the
//! figures are no times: bytes written for each byte stored, files, memory for each subject.
//!
//! Each stage is a process of its own, so that memory is counted from a clean start. Times are the thread's CPU time and
//! wall time beside it, medians of rounds with the lowest and highest: other work on the machine shows in the second and
//! hardly in the first. "Cold" is a store without a cache of its own whose files were dropped from the operating
//! system's page cache (`posix_fadvise`) right before; what a host below a virtual disk still caches is out of reach.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program that prints tables"
)]

mod append;
mod fixture;
mod growth;
mod meter;
mod report;
mod streams;
mod subjects;

use std::process::{Command, Stdio};

use report::Rows;

const MILLION: u64 = 1_000_000;

/// Runs one stage in a process of its own, and takes in the rows that it prints.
fn stage(name: &str, args: &[String]) -> Rows {
    println!("-- {name} {}", args.join(" "));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--stage", name])
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{name} failed: {}", output.status);
    let rows = Rows::parse(&String::from_utf8(output.stdout).unwrap());
    print!("{rows}");
    rows
}

fn run_stage(args: &[String]) {
    let number = |at: usize| args[at].parse::<u64>().unwrap();
    let rows = match args[0].as_str() {
        "append" => append::run(number(1), number(2), number(3)),
        "build" => growth::build(args[1].as_ref(), number(2)),
        "open" => growth::open(args[1].as_ref()),
        "ask" => growth::ask(args[1].as_ref(), number(2)),
        "subjects-build" => subjects::build(args[1].as_ref(), number(2)),
        "subjects-open" => subjects::open(args[1].as_ref()),
        "streams" => streams::run(args[1].as_ref(), number(2)),
        "streams-open" => streams::open(args[1].as_ref(), number(2)),
        other => panic!("no stage {other}"),
    };
    print!("{rows}");
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == "--stage") {
        return run_stage(&args[at + 1..]);
    }
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let only = args.iter().position(|arg| arg == "--only");
    let only = only.map(|at| args[at + 1].as_str());
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let millions = args.iter().position(|arg| arg == "--millions");
    let sizes: Vec<u64> = match millions {
        Some(at) => args[at + 1]
            .split(',')
            .map(|text| text.parse::<u64>().unwrap() * MILLION)
            .collect(),
        None if has("--full") => vec![MILLION, 10 * MILLION, 50 * MILLION],
        None => vec![MILLION],
    };
    let mut page = report::Page::default();
    if wanted("append") {
        append::all(&mut page);
    }
    if wanted("growth") {
        growth::all(&mut page, &sizes);
    }
    if wanted("subjects") {
        subjects::all(&mut page, &sizes[..sizes.len().min(2)]);
    }
    if wanted("streams") {
        streams::all(&mut page, 100_000);
    }
    println!("\n{page}");
    if has("--write") {
        page.write_into("docs/performance.md");
    }
}
