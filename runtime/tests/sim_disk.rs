//! What the simulated disk does to un-synced bytes and names, and its faults.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use halyard_runtime::disk::{Disk, File, OpenMode, SECTOR_BYTES};
use halyard_runtime::sim::{DiskFaults, Place, SimDisk};

const DIR: &str = "/store";
const NAME: &str = "/store/a";

fn disk(seed: u64) -> SimDisk {
    disk_with(seed, DiskFaults::default())
}

fn disk_with(seed: u64, faults: DiskFaults) -> SimDisk {
    let disk = SimDisk::new(seed, faults);
    disk.create_dir_all(Path::new(DIR)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

/// A file whose name is durable.
fn file(disk: &SimDisk) -> Arc<dyn File> {
    let file = disk.open(Path::new(NAME), OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    file
}

fn content(disk: &SimDisk) -> Vec<u8> {
    disk.read(Path::new(NAME)).unwrap()
}

#[test]
fn synced_bytes_survive_and_others_meet_every_fate() {
    let mut fates = BTreeSet::new();
    for seed in 0..200 {
        let disk = disk(seed);
        let file = file(&disk);
        file.write_at(&[1; 4 * SECTOR_BYTES], 0).unwrap();
        file.sync().unwrap();
        file.write_at(&[2; 2 * SECTOR_BYTES], SECTOR_BYTES as u64)
            .unwrap();
        file.write_at(&[3; SECTOR_BYTES], 4 * SECTOR_BYTES as u64)
            .unwrap();
        disk.power_loss();
        assert!(
            file.write_at(b"x", 0).is_err(),
            "a handle from before is dead"
        );
        let bytes = content(&disk);
        assert!(bytes[..SECTOR_BYTES].iter().all(|byte| *byte == 1));
        for sector in bytes.chunks(SECTOR_BYTES) {
            assert!(
                sector.iter().all(|byte| *byte == sector[0]),
                "sectors are whole"
            );
        }
        let sector = |index: usize| bytes.get(index * SECTOR_BYTES).copied();
        assert_eq!(sector(3), Some(1));
        fates.insert((sector(1), sector(2), sector(4)));
    }
    let torn_and_reordered = (Some(1), Some(2), Some(3));
    let expected = [
        (Some(1), Some(1), None),
        (Some(2), Some(2), Some(3)),
        (Some(2), Some(1), None),
        (Some(1), Some(2), None),
        (Some(1), Some(1), Some(0)),
        torn_and_reordered,
    ];
    for fate in expected {
        assert!(fates.contains(&fate), "{fate:?} never happened: {fates:?}");
    }
}

#[test]
fn a_sector_holds_one_of_the_versions_that_it_had() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = disk(seed);
        let file = file(&disk);
        file.write_at(b"....", 0).unwrap();
        file.sync().unwrap();
        file.write_at(b"a", 0).unwrap();
        file.write_at(b"b", 1).unwrap();
        file.write_at(b"c", 2).unwrap();
        disk.power_loss();
        seen.insert(content(&disk));
    }
    let expected: BTreeSet<Vec<u8>> = [&b"...."[..], b"a...", b"ab..", b"abc."]
        .into_iter()
        .map(<[u8]>::to_vec)
        .collect();
    assert_eq!(
        seen, expected,
        "never a later write without an earlier one in the same sector"
    );
}

#[test]
fn shortening_survives_or_not_but_never_mixes() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = disk(seed);
        let file = file(&disk);
        file.write_at(&[1; 1024], 0).unwrap();
        file.sync().unwrap();
        file.set_len(0).unwrap();
        file.write_at(&[2; 512], 0).unwrap();
        disk.power_loss();
        let bytes = content(&disk);
        seen.insert((bytes.len(), bytes.first().copied()));
    }
    let expected = [(1024, Some(1)), (0, None), (512, Some(2)), (512, Some(0))];
    assert_eq!(seen, expected.into_iter().collect());
}

#[test]
fn unsynced_names_may_vanish_and_synced_ones_stay() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = disk(seed);
        drop(file(&disk));
        let new = disk
            .open(Path::new("/store/b.tmp"), OpenMode::CreateNew)
            .unwrap();
        new.write_at(b"new", 0).unwrap();
        new.sync().unwrap();
        disk.rename(Path::new("/store/b.tmp"), Path::new("/store/b"))
            .unwrap();
        disk.remove_file(Path::new(NAME)).unwrap();
        disk.power_loss();
        let names: Vec<String> = disk
            .list(Path::new(DIR))
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        if names.contains(&"b".to_owned()) {
            assert_eq!(disk.read(Path::new("/store/b")).unwrap(), b"new");
        }
        seen.insert(names.join(" "));
    }
    let expected: BTreeSet<String> = ["a", "a b.tmp", "a b", "b"].map(str::to_owned).into();
    assert_eq!(seen, expected, "changes survive in order");
    let disk = disk(1);
    disk.create_dir_all(Path::new("/store/deep/er")).unwrap();
    disk.sync_dir(Path::new("/store/deep")).unwrap();
    drop(
        disk.open(Path::new("/store/deep/er/x"), OpenMode::Create)
            .unwrap(),
    );
    disk.sync_dir(Path::new("/store/deep/er")).unwrap();
    disk.power_loss();
    let there = disk.exists(Path::new("/store/deep")).unwrap();
    assert_eq!(disk.exists(Path::new("/store/deep/er/x")).unwrap(), there);
}

#[test]
fn a_killed_process_loses_nothing_but_its_handles_and_locks() {
    let disk = disk(1);
    let file = file(&disk);
    let lock = disk.lock(Path::new("/store/lock")).unwrap();
    file.write_at(b"in the page cache", 0).unwrap();
    disk.process_died();
    assert!(file.sync().is_err());
    assert_eq!(content(&disk), b"in the page cache");
    let again = disk.lock(Path::new("/store/lock")).unwrap();
    drop(lock);
    assert!(
        disk.lock(Path::new("/store/lock")).is_err(),
        "the dead one's guard frees nothing"
    );
    drop(again);
}

#[test]
fn a_failed_sync_is_not_made_good_by_a_second_one() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = disk(seed);
        let file = file(&disk);
        file.write_at(&[7; 4096], 0).unwrap();
        disk.set_faults(|faults| faults.sync_error_ppm = 1_000_000);
        assert!(file.sync().is_err());
        disk.set_faults(|faults| faults.sync_error_ppm = 0);
        file.sync().unwrap();
        assert_eq!(content(&disk), [7; 4096], "it still reads well");
        disk.power_loss();
        lost += u32::from(content(&disk) != [7; 4096]);
    }
    assert!(lost > 40, "{lost}");
}

#[test]
fn a_full_disk_says_so_and_has_room_again() {
    let disk = disk_with(
        1,
        DiskFaults {
            capacity_bytes: 10_000,
            ..DiskFaults::default()
        },
    );
    let file = file(&disk);
    file.write_at(&[1; 9000], 0).unwrap();
    assert_eq!(disk.free_bytes(Path::new(DIR)).unwrap(), 1000);
    let error = file.write_at(&[1; 2000], 9000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(
        file.allocate(20_000).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    file.write_at(&[2; 9000], 0).unwrap();
    file.set_len(1000).unwrap();
    file.write_at(&[1; 2000], 1000).unwrap();
    // A longer length takes no space, what is written there does.
    file.set_len(50_000).unwrap();
    assert_eq!(disk.free_bytes(Path::new(DIR)).unwrap(), 7000);
    let error = file.write_at(&[1; 1000], 9500).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    file.write_at(&[1; 1000], 9000).unwrap();
    assert_eq!(disk.free_bytes(Path::new(DIR)).unwrap(), 0);
}

#[test]
fn errors_short_reads_and_rot() {
    let faults = DiskFaults {
        read_error_ppm: 200_000,
        write_error_ppm: 200_000,
        short_read_ppm: 200_000,
        ..DiskFaults::default()
    };
    let disk = disk_with(3, faults);
    let file = file(&disk);
    let writes: Vec<bool> = (0..100)
        .map(|_| file.write_at(&[5; 1000], 0).is_ok())
        .collect();
    assert!(writes.contains(&true) && writes.contains(&false));
    let mut buffer = [0; 1000];
    let reads: Vec<Option<usize>> = (0..100)
        .map(|_| file.read_at(&mut buffer, 0).ok())
        .collect();
    assert!(reads.contains(&None) && reads.contains(&Some(1000)));
    assert!(reads.iter().flatten().any(|count| *count < 1000));
    disk.set_faults(|faults| *faults = DiskFaults::default());
    file.sync().unwrap();
    let offset = disk.rot(Path::new(NAME)).unwrap();
    let bytes = content(&disk);
    let changed: Vec<u64> = (0..)
        .zip(&bytes)
        .filter(|(_, b)| **b != 5)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(changed, [offset]);
    assert!(disk.break_sector(Path::new(NAME), 600));
    assert!(file.read_at(&mut [0; 100], 0).is_ok(), "another sector");
    assert!(file.read_at(&mut [0; 100], 500).is_err());
    file.write_at(&[1; 512], 512).unwrap();
    assert!(file.read_at(&mut [0; 100], 500).is_ok(), "written again");
}

#[test]
fn writes_and_reads_go_astray() {
    let mut kinds = BTreeSet::new();
    for seed in 0..50 {
        for kind in [
            "lost",
            "misdirected write",
            "misdirected read",
            "stale read",
        ] {
            let disk = disk(seed);
            let file = file(&disk);
            let page = |version: u8| -> Vec<u8> {
                (0..8)
                    .flat_map(|sector| [version * 16 + sector; SECTOR_BYTES])
                    .collect()
            };
            disk.set_faults(|faults| faults.stale_read_ppm = 1);
            file.write_at(&page(1), 0).unwrap();
            file.sync().unwrap();
            disk.set_faults(|faults| match kind {
                "lost" => faults.lost_write_ppm = 1_000_000,
                "misdirected write" => faults.misdirected_write_ppm = 1_000_000,
                "misdirected read" => faults.misdirected_read_ppm = 1_000_000,
                _ => faults.stale_read_ppm = 1_000_000,
            });
            file.write_at(&page(2), 0).unwrap();
            file.sync().unwrap();
            if kind.contains("read") {
                let mut read = vec![0; 4096];
                file.read_exact_at(&mut read, 0).unwrap();
                let wrong = read
                    .chunks(512)
                    .zip(page(2).chunks(512))
                    .filter(|(a, b)| a != b)
                    .count();
                assert!(wrong <= 1, "{kind}");
                kinds.extend((wrong == 1).then_some(kind));
                continue;
            }
            assert_eq!(content(&disk), page(2), "the cache hides it");
            disk.power_loss();
            disk.set_faults(|faults| *faults = DiskFaults::default());
            let read = content(&disk);
            let wrong = read
                .chunks(512)
                .zip(page(2).chunks(512))
                .filter(|(a, b)| a != b)
                .count();
            // A misdirected write may by chance go where it belongs.
            assert!(wrong <= 2, "{kind} {wrong}");
            kinds.extend((wrong > 0).then_some(kind));
        }
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

#[test]
fn slow_syncs_tell_their_cost() {
    let faults = DiskFaults {
        sync_time: (Duration::from_micros(100), Duration::from_millis(4)),
        stall_ppm: 100_000,
        stall: Duration::from_secs(30),
        ..DiskFaults::default()
    };
    let disk = disk_with(1, faults);
    let file = file(&disk);
    let mut costs = Vec::new();
    for _ in 0..200 {
        file.sync().unwrap();
        costs.push(file.sync_cost());
    }
    assert!(costs.iter().all(|cost| *cost >= Duration::from_micros(100)));
    let stalls = costs
        .iter()
        .filter(|cost| **cost > Duration::from_millis(4))
        .count();
    assert!((5..50).contains(&stalls), "{stalls}");
}

/// Runs the same writes with a crash at every one of their operations.
#[test]
fn a_crash_at_each_operation_keeps_what_was_synced() {
    let mut crashes = 0;
    for seed in 0..20 {
        for at in 0.. {
            let disk = disk(seed);
            let struck = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let noted = Arc::clone(&struck);
            disk.on_crash(move || noted.store(true, std::sync::atomic::Ordering::Relaxed));
            disk.crash_after(at);
            let mut promised = 0u8;
            let work = |promised: &mut u8| -> std::io::Result<()> {
                let file = disk.open(Path::new(NAME), OpenMode::Create)?;
                disk.sync_dir(Path::new(DIR))?;
                for count in 1..=3u8 {
                    file.write_at(
                        &[count; SECTOR_BYTES],
                        (u64::from(count) - 1) * SECTOR_BYTES as u64,
                    )?;
                    file.sync()?;
                    *promised = count;
                }
                Ok(())
            };
            let finished = work(&mut promised).is_ok();
            assert_ne!(finished, struck.load(std::sync::atomic::Ordering::Relaxed));
            if finished {
                break;
            }
            crashes += 1;
            if promised > 0 {
                let bytes = content(&disk);
                for count in 1..=promised {
                    assert_eq!(
                        bytes[usize::from(count - 1) * SECTOR_BYTES],
                        count,
                        "seed {seed} at {at}"
                    );
                }
            }
        }
    }
    assert_eq!(crashes, 20 * 8, "each of the operations was hit");
}

#[test]
fn nothing_that_was_written_escapes_the_search() {
    let disk = disk(1);
    let file = file(&disk);
    let canary = b"CANARY-1234567";
    let places = |disk: &SimDisk| -> Vec<Place> {
        disk.find(canary)
            .into_iter()
            .map(|found| found.place)
            .collect()
    };
    file.write_at(canary, 4090).unwrap();
    assert_eq!(
        places(&disk),
        [Place::Cache],
        "over the border of two pages"
    );
    file.sync().unwrap();
    assert_eq!(places(&disk), [Place::Cache, Place::Platter]);
    file.set_len(0).unwrap();
    assert_eq!(
        places(&disk),
        [Place::Platter],
        "shortening frees, and frees only once synced"
    );
    file.sync().unwrap();
    assert_eq!(places(&disk), [Place::Freed]);
    disk.overwrite_freed();
    file.write_at(canary, 0).unwrap();
    file.sync().unwrap();
    drop(file);
    disk.remove_file(Path::new(NAME)).unwrap();
    assert_eq!(
        places(&disk),
        [Place::Cache, Place::Platter],
        "a power loss may bring it back"
    );
    disk.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(places(&disk), [Place::Freed, Place::Freed]);
}

#[test]
fn bytes_overwritten_before_they_are_freed_are_gone() {
    let disk = disk(1);
    let file = file(&disk);
    file.write_at(b"CANARY", 100).unwrap();
    file.sync().unwrap();
    file.write_at(&[0; 6], 100).unwrap();
    file.sync().unwrap();
    drop(file);
    disk.remove_file(Path::new(NAME)).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(disk.find(b"CANARY"), []);
}

#[test]
fn a_lying_sync_is_found_out_by_the_first_power_loss() {
    let mut lost = 0;
    for seed in 0..30 {
        let disk = disk(seed);
        let file = file(&disk);
        disk.set_faults(|faults| faults.lying_sync = true);
        file.write_at(&[7; 4096], 0).unwrap();
        file.sync().unwrap();
        disk.power_loss();
        lost += u32::from(content(&disk) != [7; 4096]);
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn the_same_seed_gives_the_same_damage() {
    let run = |seed| {
        let disk = disk(seed);
        let file = file(&disk);
        for count in 0..50 {
            file.write_at(&[count; 700], u64::from(count) * 333)
                .unwrap();
        }
        disk.power_loss();
        content(&disk)
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
    assert!((1..20).any(|seed| run(seed) != run(0)));
}
