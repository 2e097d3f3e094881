//! Who may do what on which machine (contract agent-link 8, point 3): nobody, until a rule says so. Admins may everything.

use crate::agents::remote::Operation;
use crate::chat::access::Caller;
use crate::config::AccessRule;
use crate::store::machines::Machine;

/// Whether the rules let the caller do that to the machine. Whoever may do anything to it may also see it.
pub(super) fn allows(rules: &[AccessRule], caller: &Caller, machine: &Machine, operation: Operation) -> bool {
    if caller.writes_all {
        return true;
    }
    rules.iter().any(|rule| {
        (rule.who == "*" || rule.who == caller.identity)
            && (operation == Operation::View && !rule.allow.is_empty()
                || rule.allow.iter().any(|name| name == operation.name()))
            && means(rule, machine)
    })
}

fn means(rule: &AccessRule, machine: &Machine) -> bool {
    let named = |name: &String| {
        name == "*" || *name == machine.id || (!machine.display_name.is_empty() && *name == machine.display_name)
    };
    if rule.machines.iter().any(named) {
        return true;
    }
    let has = |name: &String, value: &String| {
        // What people gave it wins, also against what the machine says of itself.
        machine.own_labels.get(name).or_else(|| machine.labels.get(name)) == Some(value)
    };
    !rule.labels.is_empty() && rule.labels.iter().all(|(name, value)| has(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Db, MachineStore};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn machine() -> Machine {
        let machines = MachineStore::new(Arc::new(Db::in_memory().unwrap()));
        machines.admit_shared("id-1").unwrap();
        let own = BTreeMap::from([("site".to_owned(), "home".to_owned())]);
        machines.set("id-1", Some("nas"), Some(&own), None).unwrap();
        let mut machine = machines.get("id-1").unwrap().unwrap();
        machine.labels = BTreeMap::from([("site".into(), "work".into()), ("role".into(), "store".into())]);
        machine
    }

    fn rule(who: &str, machines: &[&str], labels: &[(&str, &str)], allow: &[&str]) -> AccessRule {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        AccessRule {
            who: who.to_owned(),
            machines: owned(machines),
            labels: labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            allow: owned(allow),
        }
    }

    #[test]
    fn what_no_rule_allows_is_denied() {
        let machine = machine();
        let check = |rules: &[AccessRule], operation, expected: bool| {
            let caller = Caller { identity: "key:phone".into(), reads_all: true, writes_all: false };
            assert_eq!(allows(rules, &caller, &machine, operation), expected, "{rules:?} {operation:?}");
        };
        check(&[], Operation::View, false);
        for (rule, expected) in [
            (rule("key:phone", &["id-1"], &[], &["chat"]), true),
            (rule("*", &["nas"], &[], &["view", "chat"]), true),
            (rule("*", &["*"], &[], &["chat"]), true),
            (rule("*", &[], &[("site", "home"), ("role", "store")], &["chat"]), true),
            (rule("*", &[], &[("site", "work")], &["chat"]), false),
            (rule("key:other", &["*"], &[], &["chat"]), false),
            (rule("key:phone", &["id-2"], &[], &["chat"]), false),
            (rule("key:phone", &["*"], &[], &["diagnose"]), false),
            (rule("key:phone", &["*"], &[], &[]), false),
        ] {
            check(&[rule], Operation::Chat, expected);
        }
        check(&[rule("*", &["*"], &[], &["chat"])], Operation::View, true);
        check(&[rule("*", &["*"], &[], &[])], Operation::View, false);
        let admin = Caller { identity: "key:admin".into(), reads_all: true, writes_all: true };
        assert!(allows(&[], &admin, &machine, Operation::Diagnose));
    }
}
