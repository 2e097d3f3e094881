//! Sorting lists that are short, in little code.
//!
//! The sort of the standard library is made anew for each type and comparison: 4 KB each time, a quarter of a megabyte in
//! all. Here it is made once, for places in a list; only what moves the items is made for their type. Building a map
//! from an iterator sorts as well, so that is here too.

use std::cmp::Ordering;

/// Stable sorting of any slice.
pub trait Order<T> {
    /// By a comparison.
    fn order_by(&mut self, compare: impl FnMut(&T, &T) -> Ordering);

    /// By a key; it is asked for at every comparison.
    fn order_by_key<K: Ord>(&mut self, mut key: impl FnMut(&T) -> K) {
        self.order_by(|a, b| key(a).cmp(&key(b)));
    }

    /// By the items' own order.
    fn order(&mut self)
    where
        T: Ord,
    {
        self.order_by(T::cmp);
    }
}

impl<T> Order<T> for [T] {
    fn order_by(&mut self, mut compare: impl FnMut(&T, &T) -> Ordering) {
        let places = sorted_places(self.len(), &mut |a, b| compare(&self[a], &self[b]));
        for at in 0..places.len() {
            // What belongs here may have been moved already, by one of the swaps before.
            let mut from = places[at];
            while from < at {
                from = places[from];
            }
            self.swap(at, from);
        }
    }
}

fn sorted_places(len: usize, compare: &mut dyn FnMut(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..len).collect();
    places.sort_by(|&a, &b| compare(a, b));
    places
}

/// A map or a set of what comes; the last one of a key counts.
pub fn gather<C: Default + Extend<T>, T>(items: impl IntoIterator<Item = T>) -> C {
    let mut whole = C::default();
    whole.extend(items);
    whole
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn lists_are_sorted_as_the_standard_library_does_it() {
        let mut state = 7_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        for len in 0..60 {
            let list: Vec<(u32, usize)> = (0..len).map(|at| (random() % 8, at)).collect();
            let mut expected = list.clone();
            expected.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
            let mut ordered = list.clone();
            ordered.order_by_key(|(key, _)| std::cmp::Reverse(*key));
            assert_eq!(ordered, expected, "{list:?}");
            ordered.order();
            assert!(ordered.is_sorted());
        }
    }

    #[test]
    fn the_last_of_a_key_counts() {
        let map: BTreeMap<u8, char> = gather([(1, 'a'), (0, 'b'), (1, 'c')]);
        assert_eq!(map, [(0, 'b'), (1, 'c')].into());
    }
}
