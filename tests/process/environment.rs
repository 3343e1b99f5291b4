//! Variables of others that begin as ours do.

use support::tidegate;

use super::within;

#[test]
fn a_service_with_our_name_and_our_own_tests_do_not_keep_it_from_starting() {
    let broker = within(
        "",
        "export TIDEGATE_PORT=tcp://10.96.0.7:1883 TIDEGATE_SERVICE_HOST=10.96.0.7 TIDEGATE_SERVICE_PORT=1883 \
         TIDEGATE_SERVICE_PORT_MQTT=1883 TIDEGATE_PORT_1883_TCP=tcp://10.96.0.7:1883 TIDEGATE_PORT_1883_TCP_ADDR=10.96.0.7 \
         TIDEGATE_PORT_1883_TCP_PORT=1883 TIDEGATE_PORT_1883_TCP_PROTO=tcp TIDEGATE_NAME=/app/tidegate TIDEGATE_ENV_A=1 \
         TIDEGATE_SIM_SEEDS=7 TIDEGATE_WORKER_THREADS=1; exec \"$@\"",
    );
    broker.expect_log("TIDEGATE_SIM_SEEDS");
    let log = broker.log();
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("TIDEGATE_"))
        .collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(
        told[0].contains("TIDEGATE_SERVICE_PORT_MQTT, TIDEGATE_SIM_SEEDS"),
        "{log}"
    );
    assert!(!told[0].contains("WORKER"), "{log}");
}

#[test]
fn a_typo_in_a_variable_is_still_an_error() {
    for (name, value) in [("TIDEGATE_PORT", "1883"), ("TIDEGATE_DATADIR", "/d")] {
        let mut command = tidegate(&["check"]);
        let output = command.env(name, value).output().expect("built");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("{name}: ")), "{said}");
    }
}
