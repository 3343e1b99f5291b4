//! Figures and health over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::{Broker, TIMEOUT, tidegate, wait_until};

use super::{figure, free_address, get};

fn broker(config: &str) -> (Broker, std::net::SocketAddr) {
    let metrics = free_address();
    let config = format!("[metrics]\nbind = \"{metrics}\"\n{config}");
    let broker = Broker::with(&config).expect("these tests are for Tidegate");
    (broker, metrics)
}

#[test]
fn a_healthy_broker_says_so() {
    let (broker, metrics) = broker("");
    let answer = get(metrics, "/health");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    assert_eq!(figure(metrics, "tidegate_log_lines_lost"), Some(0.0));
    assert!(get(metrics, "/other").starts_with("HTTP/1.1 404"));
    assert!(
        !broker.log().contains("without a login"),
        "{}",
        broker.log()
    );
}

#[test]
fn connections_that_ask_nothing_keep_nobody_out() {
    let (_broker, metrics) = broker("");
    // More than there are places; some with the beginning of a request.
    let mut idle: Vec<TcpStream> = (0..80)
        .map(|_| TcpStream::connect(metrics).expect("somebody listens"))
        .collect();
    for stream in idle.iter_mut().step_by(2) {
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHo")
            .expect("written");
    }
    let answer = get(metrics, "/health");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    for mut stream in idle {
        let timeout = TIMEOUT + Duration::from_secs(10);
        stream.set_read_timeout(Some(timeout)).expect("set");
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let reset = std::io::ErrorKind::ConnectionReset;
        assert!(ended.is_ok() || ended.is_err_and(|it| it.kind() == reset));
    }
}

#[test]
fn the_series_of_a_bridge_go_with_it() {
    let bridge = format!(
        "[[bridges]]\nname = \"cloud\"\naddress = \"{}\"\nremote_clientid = \"b\"\ntopics = [{{ pattern = \"a/#\", direction = \"out\" }}]\n",
        free_address()
    );
    let (mut broker, metrics) = broker(&bridge);
    assert!(get(metrics, "/metrics").contains("bridge=\"cloud\""));
    broker.configure(&format!("[metrics]\nbind = \"{metrics}\"\n"));
    let file = broker.config_file();
    let output = tidegate(&["reload", "--config", file.to_str().expect("text")]).output();
    let output = output.expect("the binary has been built");
    assert!(output.status.success(), "{output:?}");
    let text = get(metrics, "/metrics");
    assert!(!text.contains("cloud"), "{text}");
    assert!(text.contains("tidegate_clients_connected 0"), "{text}");
}

#[test]
fn an_address_that_others_reach_is_warned_about() {
    let port = free_address().port();
    let config = format!("[metrics]\nbind = \"0.0.0.0:{port}\"\n");
    let broker = Broker::with(&config).expect("these tests are for Tidegate");
    wait_until("the log warns", || {
        let log = broker.log();
        let line = log.lines().find(|line| line.contains("without a login"));
        line.is_some_and(|line| line.contains("WARN") && line.contains("0.0.0.0"))
    });
}

#[test]
fn a_store_without_room_is_not_healthy() {
    let (broker, metrics) = broker("[store]\nmin_free_disk = \"1000000TB\"\n");
    let answer = get(metrics, "/health");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("the store has no room"), "{answer}");
    drop(broker);
}
