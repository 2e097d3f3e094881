//! First-run setup (contract 3.4; W-2, W-3): possible until it succeeded once, by key or by PIN.

use std::sync::Arc;

use rusqlite::Connection;
use subtle::ConstantTimeEq;

use crate::limits;
use crate::store::{Db, StoreError, meta, time};

/// What became of a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinCheck {
    Right,
    Wrong,
    /// None is pending: setup is done, or too many wrong ones were tried.
    NonePending,
}

/// The state of setup, kept in the database so that the command line can renew the PIN while the hub runs.
pub struct Setup {
    db: Arc<Db>,
}

impl Setup {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Called at start: `credential_exists` (a configured key or password, or any stored key) counts as done for ever.
    /// Otherwise a fresh PIN is made and returned, to be printed.
    pub fn begin(&self, credential_exists: bool) -> Result<Option<String>, StoreError> {
        if meta::setup_done(&self.db)? {
            return Ok(None);
        }
        if credential_exists {
            self.complete()?;
            return Ok(None);
        }
        self.renew_pin().map(Some)
    }

    /// A new PIN, six digits; the old one is void, and so are its wrong tries.
    pub fn renew_pin(&self) -> Result<String, StoreError> {
        let pin = random_pin()?;
        self.db.write(|tx| meta::set(tx, meta::SETUP_PIN, &format!("{pin}:0")))?;
        Ok(pin)
    }

    /// Whether nobody has set this hub up yet.
    pub fn is_required(&self) -> Result<bool, StoreError> {
        Ok(!meta::setup_done(&self.db)?)
    }

    /// Whether a PIN is pending.
    pub fn pin_pending(&self) -> Result<bool, StoreError> {
        self.db.read(|conn| Ok(pending(conn)?.is_some()))
    }

    /// Checks a PIN; wrong tries are counted, and the tenth kills it.
    pub fn check_pin(&self, pin: &str) -> Result<PinCheck, StoreError> {
        self.db.write(|tx| {
            let Some((expected, tries)) = pending(tx)? else {
                return Ok(PinCheck::NonePending);
            };
            if bool::from(expected.as_bytes().ct_eq(pin.trim().as_bytes())) {
                return Ok(PinCheck::Right);
            }
            if tries + 1 >= limits::PIN_TRIES_MAX {
                meta::delete(tx, meta::SETUP_PIN)?;
            } else {
                meta::set(tx, meta::SETUP_PIN, &format!("{expected}:{}", tries + 1))?;
            }
            Ok(PinCheck::Wrong)
        })
    }

    /// Setup has succeeded, for ever; the PIN is void.
    pub fn complete(&self) -> Result<(), StoreError> {
        self.db.write(|tx| {
            meta::set(tx, meta::SETUP_DONE, &time::now_text())?;
            meta::delete(tx, meta::SETUP_PIN)
        })
    }
}

/// Inside a transaction: whether setup may still happen.
pub fn may_set_up(conn: &Connection) -> Result<bool, StoreError> {
    Ok(meta::get(conn, meta::SETUP_DONE)?.is_none())
}

fn pending(conn: &Connection) -> Result<Option<(String, u32)>, StoreError> {
    if !may_set_up(conn)? {
        return Ok(None);
    }
    let stored = meta::get(conn, meta::SETUP_PIN)?;
    Ok(stored.and_then(|text| {
        let (pin, tries) = text.split_once(':')?;
        Some((pin.to_owned(), tries.parse().ok()?))
    }))
}

fn random_pin() -> Result<String, StoreError> {
    // Rejection keeps the six digits uniform: 4,294,000,000 is the largest multiple of a million below 2^32.
    loop {
        let mut bytes = [0_u8; 4];
        getrandom::fill(&mut bytes).map_err(|_| StoreError::Random)?;
        let number = u32::from_le_bytes(bytes);
        if number < 4_294_000_000 {
            return Ok(format!("{:06}", number % 1_000_000));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_lives_until_success_or_ten_wrong_tries() {
        let setup = Setup::new(Arc::new(Db::in_memory().unwrap()));
        let pin = setup.begin(false).unwrap().unwrap();
        assert_eq!(pin.len(), 6);
        let wrong = if pin == "000000" { "000001" } else { "000000" };
        for _ in 0..limits::PIN_TRIES_MAX - 1 {
            assert_eq!(setup.check_pin(wrong).unwrap(), PinCheck::Wrong);
        }
        assert_eq!(setup.check_pin(&format!(" {pin}\n")).unwrap(), PinCheck::Right);
        assert_eq!(setup.check_pin(wrong).unwrap(), PinCheck::Wrong);
        assert_eq!(setup.check_pin(&pin).unwrap(), PinCheck::NonePending);
        assert!(!setup.pin_pending().unwrap() && setup.is_required().unwrap());
        let renewed = setup.renew_pin().unwrap();
        assert_eq!(setup.check_pin(&renewed).unwrap(), PinCheck::Right);
        setup.complete().unwrap();
        assert_eq!(setup.check_pin(&renewed).unwrap(), PinCheck::NonePending);
        assert_eq!(setup.begin(false).unwrap(), None);
    }

    #[test]
    fn an_existing_credential_counts_as_done_for_ever() {
        let setup = Setup::new(Arc::new(Db::in_memory().unwrap()));
        assert_eq!(setup.begin(true).unwrap(), None);
        assert_eq!(setup.begin(false).unwrap(), None);
        assert!(!setup.is_required().unwrap());
    }
}
