//! `-D packet name value`: the properties of MQTT 5 on the command line.

use crate::wire::property::BlockKind;
use crate::wire::{Properties, PropertiesBuf, Property};

/// The property blocks of the packets that a client sends.
#[derive(Clone, Debug, Default)]
pub struct PacketProperties {
    /// CONNECT.
    pub connect: PropertiesBuf,
    /// The will.
    pub will: PropertiesBuf,
    /// PUBLISH.
    pub publish: PropertiesBuf,
    /// SUBSCRIBE.
    pub subscribe: PropertiesBuf,
    /// UNSUBSCRIBE.
    pub unsubscribe: PropertiesBuf,
    /// DISCONNECT.
    pub disconnect: PropertiesBuf,
}

impl PacketProperties {
    /// Parses the words after all `-D` flags in order: packet, name and value; a user property has
    /// two values.
    ///
    /// # Errors
    /// A sentence for the user: an unknown packet or name, a value that does not fit, or a property
    /// that the packet must not have.
    pub fn parse(words: &[String]) -> Result<PacketProperties, String> {
        let mut all = PacketProperties::default();
        let mut rest = words.iter().map(String::as_str);
        while let Some(packet) = rest.next() {
            let mut word = |what: &str| {
                rest.next()
                    .ok_or_else(|| format!("-D {packet}: the {what} is missing"))
            };
            let name = word("property's name")?;
            let value = word("value")?;
            let property = if name == "user-property" {
                Property::UserProperty(value, word("user property's value")?)
            } else {
                property(name, value).map_err(|what| format!("-D {packet} {name}: {what}"))?
            };
            let (block, kind) = all.block(packet)?;
            block.push(property);
            Properties::parse(block.as_properties().as_bytes(), kind)
                .map_err(|fault| format!("-D {packet} {name}: {}", fault.what))?;
        }
        Ok(all)
    }

    fn block(&mut self, packet: &str) -> Result<(&mut PropertiesBuf, BlockKind), String> {
        Ok(match packet.to_ascii_lowercase().as_str() {
            "connect" => (&mut self.connect, BlockKind::Connect),
            "will" => (&mut self.will, BlockKind::Will),
            "publish" => (&mut self.publish, BlockKind::Publish),
            "subscribe" => (&mut self.subscribe, BlockKind::Subscribe),
            "unsubscribe" => (&mut self.unsubscribe, BlockKind::Unsubscribe),
            "disconnect" => (&mut self.disconnect, BlockKind::Disconnect),
            _ => {
                return Err(format!(
                    "-D {packet}: expected connect, will, publish, subscribe, unsubscribe or disconnect"
                ));
            }
        })
    }
}

fn property<'a>(name: &str, value: &'a str) -> Result<Property<'a>, String> {
    use Property::*;
    Ok(match name {
        "payload-format-indicator" => PayloadFormatIndicator(number(value)?),
        "message-expiry-interval" => MessageExpiryInterval(number(value)?),
        "content-type" => ContentType(value),
        "response-topic" => ResponseTopic(value),
        "correlation-data" => CorrelationData(value.as_bytes()),
        "subscription-identifier" => SubscriptionIdentifier(number(value)?),
        "session-expiry-interval" => SessionExpiryInterval(number(value)?),
        "authentication-method" => AuthenticationMethod(value),
        "authentication-data" => AuthenticationData(value.as_bytes()),
        "request-problem-information" => RequestProblemInformation(number(value)?),
        "will-delay-interval" => WillDelayInterval(number(value)?),
        "request-response-information" => RequestResponseInformation(number(value)?),
        "reason-string" => ReasonString(value),
        "receive-maximum" => ReceiveMaximum(number(value)?),
        "topic-alias-maximum" => TopicAliasMaximum(number(value)?),
        "topic-alias" => TopicAlias(number(value)?),
        "maximum-packet-size" => MaximumPacketSize(number(value)?),
        _ => return Err("there is no property of this name that a client sends".to_owned()),
    })
}

fn number<T: TryFrom<u64>>(value: &str) -> Result<T, String> {
    let number = value.parse::<u64>().ok();
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| {
            let bits = 8 * size_of::<T>();
            format!("found {value:?}, expected a whole number of at most {bits} bits")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<PacketProperties, String> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        PacketProperties::parse(&words)
    }

    #[test]
    fn properties_go_to_their_packets_in_order() {
        let all = parse(
            "publish user-property k v CONNECT session-expiry-interval 3600 publish content-type text/plain \
             publish user-property k w disconnect session-expiry-interval 0 will will-delay-interval 5 \
             subscribe subscription-identifier 7",
        )
        .expect("good properties");
        let publish: Vec<Property<'_>> = all.publish.as_properties().iter().collect();
        assert_eq!(
            publish,
            [
                Property::UserProperty("k", "v"),
                Property::ContentType("text/plain"),
                Property::UserProperty("k", "w")
            ]
        );
        let connect: Vec<Property<'_>> = all.connect.as_properties().iter().collect();
        assert_eq!(connect, [Property::SessionExpiryInterval(3600)]);
        let subscribe: Vec<Property<'_>> = all.subscribe.as_properties().iter().collect();
        assert_eq!(subscribe, [Property::SubscriptionIdentifier(7)]);
        assert!(!all.will.as_properties().is_empty());
        assert!(!all.disconnect.as_properties().is_empty());
        assert!(all.unsubscribe.as_properties().is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (words, needle) in [
            ("publish", "name is missing"),
            ("publish content-type", "value is missing"),
            (
                "publish user-property k",
                "user property's value is missing",
            ),
            ("ping content-type x", "expected connect, will, publish"),
            ("publish colour red", "no property of this name"),
            (
                "connect receive-maximum many",
                "found \"many\", expected a whole number of at most 16 bits",
            ),
            ("connect receive-maximum 65536", "at most 16 bits"),
            ("connect receive-maximum 0", "-D connect receive-maximum: "),
            ("connect content-type x", "-D connect content-type: "),
            (
                "publish topic-alias 1 publish topic-alias 2",
                "-D publish topic-alias: ",
            ),
            (
                "publish payload-format-indicator 2",
                "-D publish payload-format-indicator: ",
            ),
        ] {
            let error = parse(words).expect_err(words);
            assert!(error.contains(needle), "{words}: {error}");
        }
    }
}
