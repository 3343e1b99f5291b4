//! A database that was cut or changed from outside: an error that names the file and the way out,
//! never a silent empty start.

use std::path::Path;

use support::{Broker, Random};

use crate::backlog::Backlog;
use crate::number;

/// A store with a backlog, closed or killed.
fn data(killed: bool) -> Option<(Broker, Backlog)> {
    let mut broker = Broker::durable()?;
    let mut backlog = Backlog::begin(broker.addr());
    assert_eq!(backlog.publish(broker.addr(), 500), Some(0));
    match killed {
        true => broker.kill(),
        false => broker.stop(),
    }
    Some((broker, backlog))
}

fn database(broker: &Broker) -> std::path::PathBuf {
    let files = std::fs::read_dir(broker.data_dir()).expect("there is data");
    let mut files = files.map(|file| file.expect("a file").path());
    files
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "redb")
        })
        .expect("there is a database")
}

/// Starts on a damaged file: it must refuse in so many words and leave the file as it is.
fn refuses(data_dir: &Path, database: &Path, damaged: &[u8]) {
    std::fs::write(database, damaged).expect("it can be written");
    let output = Broker::output_on(data_dir);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&database.display().to_string()), "{said}");
    assert!(
        said.contains("TIDEGATE_STORE__MOVE_CORRUPT_ASIDE=true"),
        "{said}"
    );
    let way = format!("tidegate export --file {}", database.display());
    assert!(said.contains(&way), "{said}");
    let after = std::fs::read(database).expect("it is still there");
    assert!(after == damaged, "the file was changed");
}

#[test]
fn a_file_that_was_cut_is_refused() {
    for killed in [false, true] {
        let Some((mut broker, backlog)) = data(killed) else {
            return;
        };
        let database = database(&broker);
        let whole = std::fs::read(&database).expect("it can be read");
        for part in [1, 2, 3, 7] {
            refuses(
                &broker.data_dir(),
                &database,
                &whole[..whole.len() * part / 8],
            );
        }
        refuses(&broker.data_dir(), &database, &whole[..5000]);
        // A good copy in its place, and all is there.
        std::fs::write(&database, &whole).expect("it can be written");
        broker.start_again();
        assert!(backlog.take_in(broker.addr()) >= backlog.acknowledged());
    }
}

#[test]
fn a_file_that_was_changed_is_refused_or_whole() {
    let rounds = number("TIDEGATE_CRASH_ROUNDS", 10);
    let mut random = Random::new(number("TIDEGATE_CRASH_SEED", 1));
    // Closed: in a file that was not, damage to the last commit looks like a commit that was cut
    // short, and is taken back.
    let Some((mut broker, backlog)) = data(false) else {
        return;
    };
    let database = database(&broker);
    let whole = std::fs::read(&database).expect("it can be read");
    let mut refused = 0;
    for _ in 0..rounds {
        let mut damaged = whole.clone();
        for _ in 0..=random.below(3) {
            // A page of nothing, as a disk gives for what it has lost.
            let page = random.below(damaged.len() as u64 / 4096) as usize * 4096;
            damaged[page..page + 4096].fill(0);
        }
        std::fs::write(&database, &damaged).expect("it can be written");
        if broker.try_start_again() {
            // The pages were free: everything is there.
            assert!(backlog.take_in(broker.addr()) >= backlog.acknowledged());
            broker.kill();
        } else {
            refuses(&broker.data_dir(), &database, &damaged);
            refused += 1;
        }
    }
    println!(
        "{rounds} files with lost pages: {refused} refused, the others whole; none taken for empty"
    );
    assert!(refused > 0);
}

#[test]
fn a_damaged_file_is_moved_aside_if_that_is_wanted() {
    let Some((mut broker, _)) = data(true) else {
        return;
    };
    let database = database(&broker);
    let whole = std::fs::read(&database).expect("it can be read");
    std::fs::write(&database, &whole[..whole.len() / 2]).expect("it can be written");
    broker.set_shell("TIDEGATE_STORE__MOVE_CORRUPT_ASIDE=true exec \"$@\"");
    broker.start_again();
    let told = broker.banner().join("\n");
    let aside = told.split("was moved to ").nth(1).expect("it says where");
    let aside = aside.lines().next().expect("a line").trim();
    let kept = std::fs::read(aside).expect("it is there");
    assert!(kept == whole[..whole.len() / 2], "the file was changed");
    Backlog::begin(broker.addr());
}
