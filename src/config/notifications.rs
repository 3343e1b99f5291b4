//! Notifications of a bridge: where it is told whether it is connected.

use super::tree::Section;
use crate::broker::bridge::Notifications;
use crate::wire::{text::is_plain, topic};

/// Reads `notifications`, `notification_topic` and `notifications_local_only`.
pub(super) fn notifications(
    s: &mut Section<'_, '_>,
    remote_clientid: &str,
) -> Option<Notifications> {
    let is_on = s.flag("notifications", false);
    let expected = "a topic name such as \"sites/berlin/state\"";
    let topic = s.optional("notification_topic", expected, |value| {
        let text = value.as_text()?;
        (topic::is_valid_name(text) && is_plain(text)).then(|| text.into())
    });
    let topic: Option<Box<str>> = topic.ok().flatten();
    let local_only = s.flag("notifications_local_only", false);
    if !is_on && (topic.is_some() || local_only) {
        s.reject(
            "notifications",
            "there is a key for notifications; expected notifications = true",
        );
    }
    is_on.then(|| Notifications {
        topic: topic.unwrap_or_else(|| {
            let topic = format!("$SYS/broker/connection/{remote_clientid}/state");
            topic.into_boxed_str()
        }),
        local_only,
    })
}
