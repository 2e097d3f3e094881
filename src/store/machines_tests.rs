//! Machines and their tokens: who may take part, and until when.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::store::machines::*;
use crate::store::{Db, JoinCodeStore, StoreError};

fn stores() -> (MachineStore, JoinCodeStore) {
    let db = Arc::new(Db::in_memory().unwrap());
    (MachineStore::new(Arc::clone(&db)), JoinCodeStore::new(db))
}

fn facts(hostname: &str) -> Facts {
    Facts { hostname: hostname.into(), plugins: vec!["cpu".into()], ..Facts::default() }
}

#[test]
fn a_request_waits_until_somebody_decides() {
    let (machines, _) = stores();
    let hash = hash_token("hr_a");
    assert!(machines.ask("a", &hash, &facts("pi"), 1).unwrap());
    assert!(machines.ask("a", &hash, &facts("pi2"), 1).unwrap());
    assert!(!machines.ask("a", &hash_token("hr_other"), &facts("pi"), 1).unwrap());
    assert!(!machines.ask("b", &hash_token("hr_b"), &facts("nas"), 1).unwrap());
    let owner = machines.owner_of(&hash).unwrap().unwrap();
    assert_eq!((owner.state, owner.is_next), (MachineState::Pending, false));
    assert!(machines.hand_out_token("a").unwrap().is_none());
    assert_eq!(machines.find("PI2").unwrap().token_code, &hash[..8]);

    machines.approve("a", "key:admin").unwrap();
    assert!(matches!(machines.approve("a", ""), Err(StoreError::NotFound)));
    let first = machines.hand_out_token("a").unwrap().unwrap();
    // It was lost on the way: there is another one, and the request's own token still counts.
    let token = machines.hand_out_token("a").unwrap().unwrap();
    assert!(machines.owner_of(&hash_token(&first)).unwrap().is_none());
    assert!(machines.owner_of(&hash).unwrap().is_some());
    assert!(machines.owner_of(&hash_token(&token)).unwrap().unwrap().is_next);
    machines.promote_token("a", &hash_token(&token)).unwrap();
    assert!(machines.owner_of(&hash).unwrap().is_none());
    assert!(!machines.owner_of(&hash_token(&token)).unwrap().unwrap().is_next);
    assert!(machines.hand_out_token("a").unwrap().is_none());

    machines.rotate("a").unwrap();
    assert!(machines.get("a").unwrap().unwrap().is_rotating);
    assert!(machines.owner_of(&hash_token(&token)).unwrap().is_some(), "its time has not begun");
    let rotated = machines.hand_out_token("a").unwrap().unwrap();
    assert!(machines.owner_of(&hash_token(&token)).unwrap().is_some());
    let late = "UPDATE machines SET token_until = token_until - 600001";
    machines.db.write(|tx| Ok(tx.execute(late, [])?)).unwrap();
    assert!(machines.owner_of(&hash_token(&token)).unwrap().is_none());
    assert!(machines.owner_of(&hash_token(&rotated)).unwrap().is_some());
    machines.revoke("a").unwrap();
    assert!(machines.owner_of(&hash_token(&token)).unwrap().is_none());
    assert!(matches!(machines.revoke("a"), Err(StoreError::NotFound)));
    machines.forget("a").unwrap();
    assert!(machines.list().unwrap().is_empty());
}

#[test]
fn a_shared_token_takes_no_id_of_another() {
    let (machines, codes) = stores();
    let (_, code) = codes.create("pi", &BTreeMap::new(), 60_000, "cli").unwrap();
    assert!(codes.redeem(&hash_token(&code), "a").unwrap());
    assert!(!machines.admit_shared("a").unwrap());
    assert!(machines.admit_shared("b").unwrap() && machines.admit_shared("b").unwrap());
    machines.revoke("b").unwrap();
    assert!(!machines.admit_shared("b").unwrap());
    assert!(matches!(machines.rotate("b"), Err(StoreError::NotFound)));
}

#[test]
fn what_people_gave_stays_at_a_registration() {
    let (machines, _) = stores();
    assert!(machines.admit_shared("a").unwrap());
    let labels = BTreeMap::from([("room".to_owned(), "cellar".to_owned())]);
    machines.set("a", Some("nas"), Some(&labels), Some(true)).unwrap();
    let mut said = facts("host");
    said.labels = BTreeMap::from([("room".to_owned(), "attic".to_owned()), ("os".to_owned(), "x".to_owned())]);
    machines.register("a", &said, 5).unwrap();
    machines.set("a", None, None, None).unwrap();
    let machine = machines.find("nas").unwrap();
    assert_eq!((machine.presence, machine.presence_at, machine.last_seen_at), (Presence::Online, 5, 5));
    assert!(machine.expected_off && machine.is_shared);
    assert_eq!(machine.all_labels()["room"], "cellar");
    assert_eq!(machine.all_labels()["os"], "x");
    assert!(matches!(machines.find("other"), Err(StoreError::NotFound)));
    assert!(matches!(machines.set("x", None, None, None), Err(StoreError::NotFound)));
}
