//! Histories: changes, jobs that may lose their power, full disks, repairs, restarts under other keys, on one store or two
//! on one disk; drawn from a seed or from a fuzzer's bytes.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use halyard_engine::{Cipher, Encryption, Error, Key, Options};

use crate::world::{Draw, Kind, World, is_power_loss};

fn cipher(draw: &mut Draw) -> Cipher {
    if draw.one_in(2) {
        Cipher::ChaCha20Poly1305
    } else {
        Cipher::Aes256Gcm
    }
}

pub fn options(draw: &mut Draw) -> Options {
    let encryption = Encryption {
        cipher: cipher(draw),
        key: Key([7; 32]),
        previous: None,
    };
    Options {
        merge_width: 2 + draw.below(2) as usize,
        reserve_bytes: if draw.one_in(5) { 2048 } else { 0 },
        compress: draw.one_in(4),
        encryption: draw.one_in(6).then_some(encryption),
        scrub_bytes: 1 + draw.below(2000),
        ..Options::default()
    }
}

/// Another key, another cipher, compressed or not, encrypted from now on or not any more.
fn changed(options: &Options, draw: &mut Draw) -> Options {
    let mut options = options.clone();
    options.compress = draw.one_in(2);
    options.encryption = match options.encryption {
        Some(Encryption { key, .. }) => Some(Encryption {
            cipher: cipher(draw),
            key: Key([key.0[0].wrapping_add(1); 32]),
            previous: Some(key),
        }),
        None if draw.one_in(3) => Some(Encryption {
            cipher: cipher(draw),
            key: Key([50; 32]),
            previous: None,
        }),
        None => None,
    };
    options
}

fn kind(draw: &mut Draw) -> Kind {
    match draw.below(10) {
        0..=5 => Kind::Flush,
        6..=8 => Kind::Maintenance,
        _ => Kind::Scrub,
    }
}

/// Some changes, a job that may lose its power, a recovery; again and again.
pub fn history(seed: u64, draw: &mut Draw) -> Vec<World> {
    let drawn = options(draw);
    let mut worlds = vec![World::new(seed, drawn)];
    if draw.one_in(5) {
        let drawn = options(draw);
        let second = worlds[0].beside("other", drawn);
        worlds.push(second);
    }
    let disk = worlds[0].disk.clone();
    for _ in 0..1 + draw.below(7) {
        let at = draw.below(worlds.len() as u64) as usize;
        let world = &mut worlds[at];
        for _ in 0..draw.below(24) {
            let op = draw.op();
            world.change(&op);
        }
        if draw.one_in(6) {
            let used: u64 = disk.files().iter().map(|(_, len)| len).sum();
            let room = draw.below(6000);
            disk.set_faults(|faults| faults.capacity_bytes = used + room);
        }
        let crash_after = draw.one_in(2).then(|| draw.below(24));
        let struck = if draw.one_in(12) {
            world.replace(draw, crash_after)
        } else {
            let kind = kind(draw);
            match world.job(draw, kind, crash_after) {
                Some(Err(error)) if is_power_loss(&error) => true,
                Some(Err(Error::Full { .. })) => {
                    let is_full = matches!(world.store.accepting(), Err(Error::Full { .. }));
                    assert!(is_full || !matches!(kind, Kind::Flush));
                    false
                }
                Some(Err(error)) => panic!("{error}"),
                Some(Ok(())) | None => false,
            }
        };
        if draw.one_in(2) {
            disk.set_faults(|faults| faults.capacity_bytes = u64::MAX);
        }
        if struck || draw.one_in(3) {
            if !struck && draw.one_in(4) {
                disk.process_died();
            } else if !struck {
                disk.power_loss();
            }
            let worlds = &mut worlds;
            worlds
                .iter_mut()
                .for_each(|world| world.lose_power_again(draw));
            worlds.iter_mut().for_each(World::open_and_replay);
        } else if draw.one_in(10) {
            disk.set_faults(|faults| faults.capacity_bytes = u64::MAX);
            let world = &mut worlds[at];
            let options = changed(&world.options, draw);
            // Everything that is there is under the key of now before that becomes the previous one.
            world.change(&crate::model::Op::Skip {
                stream: 1,
                count: 1,
            });
            world.restart_with(options);
        }
    }
    disk.set_faults(|faults| faults.capacity_bytes = u64::MAX);
    worlds
}

/// A whole history and its end.
pub fn run(seed: u64, draw: &mut Draw) {
    for mut world in history(seed, draw) {
        world.end();
    }
}
