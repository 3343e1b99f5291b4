//! A database that was cut or changed from outside: an error that names the file and the way out, never a silent empty start.

use std::path::Path;

use support::Broker;

use crate::backlog::Backlog;

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
    assert!(said.contains("store.move_corrupt_aside = true"), "{said}");
    let after = std::fs::read(database).expect("it is still there");
    assert!(after == damaged, "the file was changed");
}

#[test]
fn a_file_that_was_cut_is_refused() {
    for killed in [false, true] {
        let Some((broker, _)) = data(killed) else {
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
    }
}
