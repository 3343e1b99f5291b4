//! Bridges over real sockets: device -> edge -> upstream -> consumer and back, with a link that
//! fails in every way and brokers that are killed.

mod both;
mod copy;
mod failover;
mod kill;
mod link;
mod mosquitto;
mod notify;
mod peers;
mod proxy;
mod reload;
mod ring;
mod secure;
mod side;
mod start;
mod through;
mod v1;

use std::time::Duration;

use support::{Connect, Message, Version, wait_until};

use proxy::{Mode, Proxy};
use side::*;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_waited_follows_in_order_when_the_link_is_there() {
    let cloud = cloud("");
    let proxy = Proxy::to(cloud.addr());
    proxy.set_mode(Mode::Refused);
    let mut edge = edge(proxy.addr(), "");
    expect_at(cloud.addr(), Version::V5, "consumer", "site/up/#");
    publish(edge.addr(), "up/a", 1, 0..300);
    publish(edge.addr(), "up/a", 2, 300..600);
    // The queue is on disk.
    edge.crash();
    proxy.set_mode(Mode::Pass);
    let got = collect(
        cloud.addr(),
        Version::V5,
        "consumer",
        "site/up/a",
        600,
        LONG,
    );
    assert_exactly_once(&got, 600, "after a link that was never there");
}

#[test]
fn both_directions_keep_topic_payload_properties_and_retain_flag() {
    let cloud = cloud("");
    let edge = edge(cloud.addr(), "");
    wait_for_state(edge.addr(), "connected");
    let mut there = Connect::new(Version::V5, "there").open(cloud.addr());
    there.subscribe_with(&support::Subscription::new("site/#", 2).retain_as_published());
    let mut here = Connect::new(Version::V5, "here").open(edge.addr());
    here.subscribe_with(&support::Subscription::new("down/#", 2).retain_as_published());
    let message = |topic: &str, qos| {
        Message::new(topic, "hello", qos)
            .retained()
            .with(|p| p.text(support::property::CONTENT_TYPE, "text/plain"))
    };
    for qos in 0..=2 {
        here.publish(&message("up/x", qos));
        let got = there.expect("site/up/x", "hello", qos);
        assert!(got.retain);
        assert_eq!(
            got.properties.string(support::property::CONTENT_TYPE),
            Some("text/plain")
        );
        there.publish(&message("site/down/y", qos));
        // What the cloud client published itself comes back to it, as it did not ask for no local.
        there.expect("site/down/y", "hello", qos);
        let got = here.expect("down/y", "hello", qos);
        assert!(got.retain);
    }
    here.expect_nothing();
    there.expect_nothing();
}

#[test]
fn two_brokers_that_bridge_everything_to_each_other_do_not_loop() {
    let one = cloud("");
    let proxy = Proxy::to(one.addr());
    let config = format!(
        "[[bridges]]\nname = \"cloud\"\naddress = \"{}\"\nremote_clientid = \"two\"\n\
         [[bridges.topics]]\npattern = \"#\"\ndirection = \"both\"\n",
        proxy.addr()
    );
    for version in ["5", "3.1.1"] {
        let config = config.replace(
            "remote_clientid",
            &format!("protocol_version = \"{version}\"\nremote_clientid"),
        );
        let two = cloud(&config);
        wait_for_state(two.addr(), "connected");
        let mut at_one = Connect::new(Version::V5, "at-one").open(one.addr());
        at_one.subscribe("loop/#", 1);
        let mut at_two = Connect::new(Version::V5, "at-two").open(two.addr());
        at_two.subscribe("loop/#", 1);
        at_one.publish(&Message::new("loop/1", "from one", 1));
        at_two.publish(&Message::new("loop/2", "from two", 1));
        let both = [&mut at_one, &mut at_two].map(|client| {
            let mut topics = [client.take().topic, client.take().topic];
            topics.sort();
            topics
        });
        std::thread::sleep(Duration::from_millis(200));
        at_one.expect_nothing();
        at_two.expect_nothing();
        for topics in both {
            assert_eq!(topics, ["loop/1", "loop/2"], "MQTT {version}");
        }
    }
}

#[test]
fn an_upstream_without_mqtt_5_is_spoken_to_in_3_1_1() {
    let listener = "[[listeners]]\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\nprotocol_versions = [\"3.1.1\"]\n";
    let old = cloud(listener);
    // The first listener is the one that is added.
    let edge = edge(old.addr(), "");
    wait_for_state(edge.addr(), "connected");
    wait_until("the log tells the version", || {
        edge.log().contains("version=V311")
    });
    expect_at(old.addr(), Version::V311, "consumer", "site/up/#");
    publish(edge.addr(), "up/a", 2, 0..10);
    let got = collect(old.addr(), Version::V311, "consumer", "site/up/a", 10, LONG);
    assert_exactly_once(&got, 10, "over MQTT 3.1.1");
}
