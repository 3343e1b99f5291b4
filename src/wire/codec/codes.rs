//! The reason codes that each packet may carry, and the MQTT 3 codes for them.

use super::super::reason::{Fault, ReasonCode};

/// The tables of allowed reason codes (MQTT 5 section 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CodeTable {
    ConnAck,
    /// PUBACK and PUBREC.
    PubAck,
    /// PUBREL and PUBCOMP.
    PubRel,
    SubAck,
    UnsubAck,
    Disconnect,
    Auth,
}

/// Converts a value to a reason code that the table allows.
///
/// # Errors
/// 0x82 for a value that is no reason code, or is not in the table \[MQTT-3.2.2-8, MQTT-3.4.2-1,
/// MQTT-3.5.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1, MQTT-3.9.3-2, MQTT-3.11.3-2, MQTT-3.14.2-1,
/// MQTT-3.15.2-1\].
pub(super) fn reason(value: u8, table: CodeTable) -> Result<ReasonCode, Fault> {
    const WRONG: Fault = Fault::protocol("reason code: not one that this packet may carry");
    let belongs = match table {
        CodeTable::ConnAck => matches!(
            value,
            0x00 | 0x80..=0x8a | 0x8c | 0x90 | 0x95 | 0x97 | 0x99..=0x9d | 0x9f
        ),
        CodeTable::PubAck => matches!(
            value,
            0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
        ),
        CodeTable::PubRel => matches!(value, 0x00 | 0x92),
        CodeTable::SubAck => matches!(
            value,
            0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91 | 0x97 | 0x9e | 0xa1 | 0xa2
        ),
        CodeTable::UnsubAck => {
            matches!(value, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91)
        }
        CodeTable::Disconnect => matches!(
            value,
            0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8b..=0x90 | 0x93..=0xa2
        ),
        CodeTable::Auth => matches!(value, 0x00 | 0x18 | 0x19),
    };
    if !belongs {
        return Err(WRONG);
    }
    ReasonCode::from_u8(value).ok_or(WRONG)
}

/// Converts a MQTT 3 CONNACK return code to a reason code.
pub(super) fn from_return_code(code: u8) -> Result<ReasonCode, Fault> {
    use ReasonCode::*;
    Ok(match code {
        0 => Success,
        1 => UnsupportedProtocolVersion,
        2 => ClientIdentifierNotValid,
        3 => ServerUnavailable,
        4 => BadUserNameOrPassword,
        5 => NotAuthorized,
        _ => return Err(Fault::protocol("CONNACK return code: not 0 to 5")),
    })
}

/// Converts a reason code to the nearest MQTT 3 CONNACK return code. The default is "server
/// unavailable".
pub(super) const fn return_code(reason: ReasonCode) -> u8 {
    use ReasonCode::*;
    match reason {
        Success => 0,
        UnsupportedProtocolVersion => 1,
        ClientIdentifierNotValid => 2,
        BadUserNameOrPassword | BadAuthenticationMethod => 4,
        NotAuthorized | Banned => 5,
        _ => 3,
    }
}

/// Converts a MQTT 3 SUBACK code to a reason code. MQTT 3.1 defines no failure code, but brokers
/// send 0x80 there as well.
pub(super) fn from_suback_code(code: u8) -> Result<ReasonCode, Fault> {
    match code {
        0x00..=0x02 | 0x80 => reason(code, CodeTable::SubAck),
        // [MQTT-3.9.3-2] of MQTT 3.1.1
        _ => Err(Fault::protocol("SUBACK code: not 0, 1, 2 or 0x80")),
    }
}

/// Converts a reason code to a MQTT 3 SUBACK code, which knows one failure.
pub(super) const fn suback_code(reason: ReasonCode) -> u8 {
    if reason.is_error() {
        0x80
    } else {
        reason.as_u8()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_packet_carries_the_codes_of_its_own_table() {
        let carried = |table| {
            (0..=255)
                .filter(|value| reason(*value, table).is_ok())
                .collect::<Vec<u8>>()
        };
        assert_eq!(
            carried(CodeTable::ConnAck),
            [
                0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90,
                0x95, 0x97, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f
            ]
        );
        assert_eq!(
            carried(CodeTable::PubAck),
            [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]
        );
        assert_eq!(carried(CodeTable::PubRel), [0x00, 0x92]);
        assert_eq!(
            carried(CodeTable::SubAck),
            [
                0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2
            ]
        );
        assert_eq!(
            carried(CodeTable::UnsubAck),
            [0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91]
        );
        assert_eq!(
            carried(CodeTable::Disconnect),
            [
                0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x90,
                0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0,
                0xa1, 0xa2
            ]
        );
        assert_eq!(carried(CodeTable::Auth), [0x00, 0x18, 0x19]);
    }

    #[test]
    fn return_codes_of_mqtt_3_go_both_ways() {
        for code in 0..=5 {
            assert_eq!(from_return_code(code).map(return_code), Ok(code));
        }
        assert!(from_return_code(6).is_err());
        assert_eq!(return_code(ReasonCode::QuotaExceeded), 3);
        assert_eq!(return_code(ReasonCode::ServerBusy), 3);
        assert_eq!(return_code(ReasonCode::Banned), 5);
        for code in [0, 1, 2, 0x80] {
            assert_eq!(from_suback_code(code).map(suback_code), Ok(code));
        }
        assert!(from_suback_code(3).is_err());
        assert!(
            from_suback_code(0x87).is_err(),
            "a code that only MQTT 5 has"
        );
        assert_eq!(suback_code(ReasonCode::NotAuthorized), 0x80);
    }
}
