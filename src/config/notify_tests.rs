//! Channels as they are typed.

use std::path::Path;

use serde_json::Value;

use super::env::Env;
use super::notify::{ChannelConfig, Encryption, QuietHours, Service, notify_channels};
use super::table::BadKey;
use crate::alert::Level;

fn parse(text: &str) -> Result<Vec<ChannelConfig>, BadKey> {
    let doc: toml_edit::DocumentMut = text.parse().unwrap();
    let value: Value = super::json::of_table(doc.as_table());
    let env = Env::of([("NTFY_TOKEN", "tk_secret")]);
    notify_channels(value["notify"].as_object().unwrap(), &env, Path::new("/nowhere"))
}

#[test]
fn channels_are_read_and_secrets_hidden() {
    let channels = parse(
        "[notify.ntfy]\ntopic = 'home'\ntoken = '${NTFY_TOKEN}'\nquiet = '22:00-07:00'\nmin_level = 'warning'\n\
         match = { site = 'home' }\npriority = { info = 2 }\n\
         [notify.boss]\ntype = 'email'\nserver = 'mail.lan'\nfrom = 'Holt <h@e.net>'\nto = 'a@e.net'\nescalate_after = '15m'\n\
         [notify.off]\ntype = 'gotify'\nenabled = false\n[notify.console]\n",
    )
    .unwrap();
    let names: Vec<_> = channels.iter().map(|channel| (channel.name.as_str(), channel.service.name())).collect();
    assert_eq!(names, [("boss", "email"), ("console", "console"), ("ntfy", "ntfy")]);
    let ntfy = &channels[2];
    assert_eq!(ntfy.quiet, Some(QuietHours { from: 22 * 60, to: 7 * 60 }));
    assert_eq!(ntfy.min_level, Level::Warning);
    let Service::Ntfy(service) = &ntfy.service else { panic!() };
    assert_eq!(service.token.as_deref(), Some("tk_secret"));
    assert_eq!(service.priorities, [5, 4, 2, 3]);
    assert!(!format!("{channels:?}").contains("tk_secret"));
    let Service::Email(email) = &channels[0].service else { panic!() };
    assert_eq!((email.port, email.encryption), (587, Encryption::StartTls));
}

#[test]
fn what_cannot_work_is_refused_by_its_key() {
    let check = |text: &str, key: &str, reason: &str| {
        let (bad, why) = parse(text).unwrap_err();
        assert_eq!(bad, key, "{text}: {why}");
        assert!(why.contains(reason), "{text}: {why}");
        assert!(!why.contains("hunter2"));
    };
    check("[notify.x]\n", "notify.x.type", "ntfy");
    check("[notify]\nntfy = 1\n", "notify.ntfy", "table");
    check("[notify.'a b']\ntype = 'console'", "notify.a b", "name");
    check("[notify.ntfy]\n", "notify.ntfy.topic", "given");
    check("[notify.ntfy]\ntopic = 'a/b'", "notify.ntfy.topic", "A-Z");
    check("[notify.ntfy]\ntopic = 'a'\ntokn = 'hunter2'", "notify.ntfy.tokn", "token");
    check("[notify.ntfy]\ntopic = 'a'\ntoken = '${GONE}'", "notify.ntfy.token", "GONE");
    check("[notify.ntfy]\ntopic = 'a'\nquiet = '22-7'", "notify.ntfy.quiet", "22:00-07:00");
    check("[notify.ntfy]\ntopic = 'a'\nserver = 'http://u:hunter2@h'", "notify.ntfy.server", "user name");
    check("[notify.ntfy]\ntopic = 'a'\nmin_level = 'bad'", "notify.ntfy.min_level", "Warning");
    check("[notify.ntfy]\ntopic = 'a'\nrate = 0", "notify.ntfy.rate", "from 1");
    check("[notify.ntfy]\ntopic = 'a'\npriority = { info = 9 }", "notify.ntfy.priority.info", "from 1 to 5");
    check("[notify.webhook]\nurl = 'ftp://h'", "notify.webhook.url", "http");
    let mail = "[notify.email]\nserver = 'm'\nfrom = 'a@b'\n";
    check(mail, "notify.email.to", "address");
    check(&format!("{mail}to = ['a@b\\r\\nX: 1']").replace('\'', "\""), "notify.email.to", "address");
    check(&format!("{mail}to = 'a@b'\ntls = 'none'\nuser = 'u'\npassword = 'hunter2'"), "notify.email.password", "TLS");
    check("[notify.mqtt]\nserver = 'tcp://h:1'", "notify.mqtt.server", "host name");
    check("[notify.mqtt]\nserver = 'h'\nprefix = 'a/#'", "notify.mqtt.prefix", "topic");
}
