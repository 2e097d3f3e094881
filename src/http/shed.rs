//! Whom to let go when there are too many connections: never those with a request in work.

use crate::http::conn::Phase;

/// What a slot holds, as one atomic byte.
pub(super) mod class {
    /// Nothing.
    pub(in crate::http) const FREE: u8 = 0;
    /// With a worker, a turn, or known and being flushed: left alone.
    pub(in crate::http) const BUSY: u8 = 1;
    /// Nobody knows who it is: sending a request, or silent between two. One class, so that a newcomer whose request is
    /// still on its way does not go before those who only hold a place.
    pub(in crate::http) const STRANGER: u8 = 2;
    /// Between requests, and has proved who it is.
    pub(in crate::http) const IDLE: u8 = 3;
    /// Sending a request after it has proved who it is.
    pub(in crate::http) const KNOWN: u8 = 4;
    /// Has its last answer.
    pub(in crate::http) const LINGER: u8 = 5;
    /// Does not read its answer, nobody knows who it is.
    pub(in crate::http) const UNREAD: u8 = 6;
}

/// The class of a parked connection.
pub(super) fn class_of(phase: Phase, authenticated: bool) -> u8 {
    match phase {
        Phase::Idle if authenticated => class::IDLE,
        Phase::Head | Phase::Body if authenticated => class::KNOWN,
        Phase::Flush if authenticated => class::BUSY,
        Phase::Flush => class::UNREAD,
        Phase::Idle | Phase::Head | Phase::Body => class::STRANGER,
        Phase::Linger => class::LINGER,
    }
}

/// The slot to empty: the longest parked of the first class that has any; None when all are in work.
pub(super) fn victim(slots: impl Iterator<Item = (usize, u8, u64)> + Clone) -> Option<usize> {
    [class::LINGER, class::STRANGER, class::IDLE, class::UNREAD].into_iter().find_map(|wanted| {
        slots
            .clone()
            .filter(|(_, class, _)| *class == wanted)
            .min_by_key(|(_, _, since)| *since)
            .map(|(slot, _, _)| slot)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_go_before_idle_ones_and_work_is_left_alone() {
        let check = |slots: &[(usize, u8, u64)], expected| assert_eq!(victim(slots.iter().copied()), expected);
        check(&[(0, class::BUSY, 1), (1, class::IDLE, 2), (2, class::STRANGER, 9), (3, class::STRANGER, 8)], Some(3));
        check(&[(0, class::BUSY, 1), (1, class::IDLE, 5), (2, class::IDLE, 4)], Some(2));
        check(&[(0, class::BUSY, 1), (1, class::KNOWN, 5), (2, class::FREE, 0)], None);
        check(&[(0, class::STRANGER, 1), (1, class::LINGER, 5)], Some(1));
        check(&[(0, class::BUSY, 1), (1, class::KNOWN, 2), (2, class::UNREAD, 3)], Some(2));
        check(&[(0, class::UNREAD, 1), (1, class::IDLE, 2)], Some(1));
        assert_eq!(class_of(Phase::Flush, true), class::BUSY);
        assert_eq!((class_of(Phase::Idle, true), class_of(Phase::Idle, false)), (class::IDLE, class::STRANGER));
        assert_eq!(class_of(Phase::Head, false), class::STRANGER);
        assert_eq!(class_of(Phase::Body, true), class::KNOWN);
    }
}
