//! Start and stop of the process.

use support::{Broker, Client, Connect, Message, Version, Will};

use crate::each_version_durable;

#[test]
fn a_stop_tells_clients_of_mqtt_5_and_exits_with_0() {
    // Section 4.13 and reason 0x8B
    for signal in ["TERM", "INT"] {
        let Some(mut broker) = Broker::durable() else {
            return;
        };
        let mut clients: Vec<Client> = Version::ALL
            .iter()
            .map(|&v| Connect::new(v, &format!("c-{v}")).open(broker.addr()))
            .collect();
        broker.signal(signal);
        for client in &mut clients {
            client.expect_disconnect(&[0x8b]);
        }
        let status = broker.wait();
        assert!(status.success(), "SIG{signal}: {status}");
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_stop() {
    each_version_durable(|broker, v| {
        let durable = Connect::durable(v, "sleeper");
        let mut client = durable.open(broker.addr());
        client.subscribe("a", 2);
        client.disconnect();
        let mut publisher = Connect::new(v, "publisher").open(broker.addr());
        for i in 0..50 {
            publisher.publish(&Message::new("a", i.to_string(), 1 + i % 2));
        }
        broker.stop();
        broker.start_again();
        let mut client = durable.open(broker.addr());
        for i in 0..50 {
            client.expect("a", i.to_string(), 1 + i % 2);
        }
        client.expect_nothing();
    });
}

#[test]
fn a_stop_publishes_the_wills_of_those_who_were_connected() {
    // [MQTT-3.1.2-8]: the server ends the connection, not the client. Either side of the restart
    // will do.
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let durable = Connect::durable(Version::V5, "watcher");
    let mut watcher = durable.open(broker.addr());
    watcher.subscribe("will", 1);
    let connect = Connect::new(Version::V5, "mortal").will(Will::new(Message::new("will", "x", 1)));
    let _mortal = connect.open(broker.addr());
    watcher.ping();
    watcher.drop_connection();
    broker.stop();
    broker.start_again();
    let mut watcher = durable.open(broker.addr());
    watcher.expect("will", "x", 1);
    watcher.expect_nothing();
}

#[test]
fn a_stop_does_not_wait_for_a_client_that_does_not_read() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let mut stuck = Connect::new(Version::V5, "stuck").open(broker.addr());
    stuck.subscribe("a", 0);
    let mut publisher = Connect::new(Version::V5, "publisher").open(broker.addr());
    for _ in 0..300 {
        publisher.send_publish(&Message::new("a", vec![0; 50_000], 0));
    }
    publisher.ping();
    broker.stop();
}

#[test]
fn the_banner_says_where_it_listens_where_its_data_is_and_what_is_durable() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let banner = broker.banner().join("\n");
    assert!(banner.contains(&broker.addr().to_string()), "{banner}");
    let data = broker.data_dir();
    assert!(banner.contains(&data.display().to_string()), "{banner}");
    assert!(banner.contains("fsync"), "{banner}");
}

#[test]
fn a_second_broker_on_the_same_data_refuses_to_start() {
    let Some(broker) = Broker::with("") else {
        return;
    };
    let refused = support::Broker::output_on(&broker.data_dir());
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    let data = broker.data_dir();
    assert!(said.contains(&data.display().to_string()), "{said}");
    Connect::new(Version::V5, "unharmed")
        .open(broker.addr())
        .ping();
}

#[test]
fn after_a_stop_the_next_start_finds_the_store_closed_and_after_a_kill_it_does_not() {
    let Some(mut broker) = Broker::durable() else {
        return;
    };
    let recovered = |broker: &Broker| broker.banner().join("\n");
    Connect::durable(Version::V5, "kept").open(broker.addr());
    broker.stop();
    broker.start_again();
    let told = recovered(&broker);
    assert!(told.contains("after a clean stop: 1 sessions"), "{told}");
    broker.crash();
    let told = recovered(&broker);
    assert!(told.contains("after a crash: 1 sessions"), "{told}");
}
