//! A data directory that was copied: two brokers with one identity are found out upstream, and one
//! gets another.

use std::fs;
use std::path::Path;

use support::{Broker, tidegate, wait_until};

use super::side::{cloud, edge, wait_for_state};

/// What `tidegate new-identity` says of a data directory, and whether it succeeds.
fn new_identity(data_dir: &Path) -> (bool, String) {
    let data_dir = data_dir.to_str().expect("plain names");
    let output = tidegate(&["new-identity", "--data-dir", data_dir]).output();
    let output = output.expect("it has been built");
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(text).expect("it writes text");
    (output.status.success(), text)
}

fn is_found_out(cloud: &Broker) -> bool {
    cloud.log().contains("come with one identity")
}

#[test]
fn a_copied_data_directory_is_found_out_upstream_and_gets_a_new_identity() {
    let cloud = cloud("");
    let mut original = edge(cloud.addr(), "");
    wait_for_state(original.addr(), "connected");
    // Started again it is still one broker, after a crash as well.
    original.crash();
    wait_for_state(original.addr(), "connected");
    original.stop();
    let mut copy = edge(cloud.addr(), "");
    copy.stop();
    let store = |broker: &Broker| broker.data_dir().join("tidegate.redb");
    fs::copy(store(&original), store(&copy)).expect("it can be copied");
    assert!(!is_found_out(&cloud), "{}", cloud.log());

    original.start_again();
    copy.start_again();
    // Both take the place of the other again and again.
    wait_until("the upstream has found out", || is_found_out(&cloud));

    let (done, said) = new_identity(&copy.data_dir());
    assert!(!done && said.contains("another process"), "{said}");
    copy.stop();
    let (done, said) = new_identity(&copy.data_dir());
    assert!(done && said.contains("is now"), "{said}");
    let (done, again) = new_identity(&copy.data_dir());
    let last = said.trim_end().rsplit(' ').next().expect("a number");
    assert!(
        done && again.contains(&format!("identity {last} is now")),
        "{said}{again}"
    );
    copy.start_again();

    let (done, said) = new_identity(&copy.data_dir().join("nowhere"));
    assert!(!done && said.contains("there is no store"), "{said}");
}
