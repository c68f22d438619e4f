//! `cargo sim SEED`: plays one seed, twice, and prints what it stands for and what came of it.
//!
//! - `cargo sim SEED [--trace]` prints the whole trace as well.
//! - `cargo sim --range A..B` plays many seeds, a line for each (`--once`: without the second run that proves that the
//!   trace repeats).
//! - `cargo sim SEED --plant NAME` and `--range A..B --plant NAME` switch on a planted bug (`--plants` lists them).
//! - `cargo sim SEED --against ADDRESS` plays the clients' part of a seed, without faults, against a running server.
//!
//! The exit status is 0 when every promise was kept.

#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::net::SocketAddr;
use std::process::ExitCode;

use halyard_sim::{Options, Plant, Report, run, run_twice};

struct Arguments {
    seeds: std::ops::Range<u64>,
    range: bool,
    trace: bool,
    once: bool,
    plant: Option<Plant>,
    against: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(text) => {
            println!(
                "{text}\nusage: cargo sim SEED | --range A..B [--trace] [--once] [--plant NAME] [--against ADDRESS]"
            );
            return ExitCode::from(2);
        }
    };
    if let Some(address) = arguments.against {
        return against(&arguments, address);
    }
    let mut bad = 0;
    let count = arguments.seeds.end - arguments.seeds.start;
    for seed in arguments.seeds.clone() {
        let mut options = Options::from_seed(seed);
        if let Some(plant) = arguments.plant {
            options = options.with_plant(plant);
        }
        let report = if arguments.once {
            run(options)
        } else {
            run_twice(options)
        };
        bad += u64::from(!report.is_good());
        print(&report, &arguments);
    }
    if arguments.range {
        println!("{bad} of {count} seeds broke a promise");
    }
    if bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print(report: &Report, arguments: &Arguments) {
    if arguments.trace {
        report.trace.iter().for_each(|line| println!("{line}"));
    }
    if !arguments.range || !report.is_good() {
        println!("{}", compact(&report.options));
    }
    println!("{report}");
}

/// The options, each field of the outermost level on a line.
fn compact(options: &Options) -> String {
    let mut text = String::new();
    for line in format!("{options:#?}").lines() {
        let depth = line.len() - line.trim_start().len();
        let begins = depth <= 4 && !line.trim_start().starts_with(['}', ']', ')']);
        if begins && !text.is_empty() {
            text.push('\n');
        } else if !text.ends_with(['{', '[', '(']) && !text.is_empty() && depth > 4 {
            text.push(' ');
        }
        text.push_str(if begins { line } else { line.trim_start() });
    }
    text
}

fn against(arguments: &Arguments, address: SocketAddr) -> ExitCode {
    let options = Options::from_seed(arguments.seeds.start);
    println!("{}", compact(&options));
    match halyard_runtime::task::block_on(2, halyard_sim::against(options, address)) {
        Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
        Ok(broken) => {
            broken
                .iter()
                .for_each(|one| println!("{}: {}", one.promise, one.text));
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("{error}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        seeds: 0..0,
        range: false,
        trace: false,
        once: false,
        plant: None,
        against: None,
    };
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("{text} is not a seed"))
    };
    while let Some(argument) = given.next() {
        let mut value = || {
            given
                .next()
                .ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--trace" => arguments.trace = true,
            "--once" => arguments.once = true,
            "--range" => {
                let range = value()?;
                let (from, to) = range.split_once("..").ok_or("a range is A..B")?;
                arguments.seeds = number(from)?..number(to)?;
                arguments.range = true;
            }
            "--plant" => {
                let name = value()?;
                let found = Plant::ALL.into_iter().find(|plant| plant.name() == name);
                arguments.plant = Some(found.ok_or(format!("no bug is called {name}"))?);
            }
            "--plants" => return Err(Plant::ALL.map(Plant::name).join("\n")),
            "--against" => {
                let address = value()?;
                arguments.against = Some(
                    address
                        .parse()
                        .map_err(|_| format!("{address} is no address"))?,
                );
            }
            seed => {
                let seed = number(seed)?;
                arguments.seeds = seed..seed + 1;
            }
        }
    }
    if arguments.seeds.is_empty() {
        Err("which seed?".to_owned())
    } else {
        Ok(arguments)
    }
}
