//! What must hold where a driver never removed anything.
//!
//! Owns: that everything that is left has a name, is told of, and is found by the sweep. Must not: change anything.

use std::collections::BTreeSet;

use super::World;
use crate::kube::controller::backup::view::ContentView;

/// The user's own content.
const THEIRS: &str = "theirs-c";

fn handle(content: &ContentView) -> Option<&str> {
    Some(content.original.as_ref()?.handle.as_str())
}

impl World {
    /// The backup has ended although its driver never removed anything.
    pub(in super::super) fn assert_left_behind(&self) {
        assert!(self.phase().is_terminal() || self.gone());
        assert!(!self.slot, "a place is kept");
        self.assert_finalizer();
        self.assert_named();
        self.assert_found();
        if !self.gone() {
            self.assert_told();
        }
    }

    /// Each snapshot of the driver is named by an object.
    fn assert_named(&self) {
        let contents = [
            &self.seen.content,
            &self.seen.copy_content,
            &self.seen.base_content,
        ];
        let handles: BTreeSet<&str> = contents.into_iter().flatten().filter_map(handle).collect();
        let mut all = self.backend.iter();
        assert!(
            all.all(|handle| handles.contains(handle.as_str())),
            "nothing names one of {:?}",
            self.backend
        );
    }

    /// The message names what is left, but for what is kept on purpose.
    fn assert_told(&self) {
        let message = self.message().unwrap_or_default();
        let base = self.base_handle();
        let content = self.seen.content.as_ref().filter(|content| {
            let kept = base.is_some() && handle(content) == base.as_deref();
            content.name != THEIRS && content.ours && !kept
        });
        let volume = self.seen.volume.as_ref().map(|volume| &volume.name);
        let copy = self.seen.copy_content.as_ref().map(|copy| &copy.name);
        let all = [volume, content.map(|content| &content.name), copy];
        for name in all.into_iter().flatten() {
            let told = message.contains(name.as_str());
            assert!(told, "{name} is not in: {message}");
        }
    }

    /// By its own labels, or by those of its snapshot.
    fn assert_found(&self) {
        let snapshot = self.seen.snapshot.as_ref();
        for content in self.seen.content.iter().chain(&self.seen.copy_content) {
            let found = content.name == THEIRS
                || content.ours
                || content.name.starts_with("snaphaul-")
                || snapshot.is_some_and(|snapshot| snapshot.ours);
            assert!(found, "the sweep does not find {content:?}");
        }
    }
}
