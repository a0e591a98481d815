//! What a test does to a store behind its back: no request, no rule.

use bytes::Bytes;

use super::MemoryStore;

impl MemoryStore {
    /// An object that is there.
    pub(crate) fn object(&self, name: &str) -> Bytes {
        self.peek(name).unwrap()
    }

    /// Puts any bytes anywhere.
    pub(crate) fn set(&self, name: &str, bytes: impl Into<Bytes>) {
        let mut state = self.state();
        let now = state.now;
        state.objects.insert(name.to_owned(), (bytes.into(), now));
    }

    /// Loses an object that is there.
    pub(crate) fn remove(&self, name: &str) {
        self.state().objects.remove(name).unwrap();
    }

    /// Turns one bit in the middle of an object.
    pub(crate) fn damage(&self, name: &str) {
        self.alter(name, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
    }

    /// Changes an object in place.
    pub(crate) fn alter(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.object(name).to_vec();
        change(&mut bytes);
        self.set(name, bytes);
    }
}
