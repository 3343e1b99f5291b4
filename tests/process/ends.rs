//! What happened to a client is to be seen.

use support::{Connect, Message, Version, wait_until};

use super::{figure, free_address, within};

#[test]
fn the_end_of_a_connection_is_a_line_and_what_is_denied_is_counted() {
    let metrics = free_address();
    let config = format!("[metrics]\nbind = \"{metrics}\"\n[[acl_rules]]\ntopic = \"ok\"\n");
    let broker = within(&config, "exec \"$@\"");
    let mut client = Connect::new(Version::V311, "pump").open(broker.addr());
    let sent = Connect::new(Version::V311, "pump").bytes().len();
    for _ in 0..3 {
        client.publish(&Message::new("denied", "x", 1));
    }
    client.drop_connection();
    let line = |with: &str| {
        let log = broker.log();
        let mut lines = log.lines().filter(|line| line.contains("pump"));
        lines.find(|line| line.contains(with)).map(str::to_owned)
    };
    wait_until("the log tells of the end", || {
        line("connection ended").is_some()
    });
    let ended = line("connection ended").expect("it is there");
    // Three PUBLISH of 13 bytes; a CONNACK and three PUBACKs.
    let bytes = format!("received={} sent={}", sent + 3 * 13, 4 + 3 * 4);
    for part in ["INFO", "why=", "seconds=", &bytes] {
        assert!(ended.contains(part), "{part}: {ended}");
    }
    let denied = line("a message is refused").expect("it is there");
    assert!(
        denied.contains("WARN") && denied.contains("denied"),
        "{denied}"
    );
    let log = broker.log();
    assert_eq!(log.matches("a message is refused").count(), 1, "{log}");
    let counted = figure(metrics, "tidegate_publishes_not_authorized_acknowledged");
    assert_eq!(counted, Some(3.0));
}
