//! The pages of a list, until there are no more.
//!
//! Owns: which page is asked for next, and when a list is given up. Must not: ask anybody.
//!
//! From the specification: an empty `next_token` ends the list; `ABORTED` says that a token is not valid any more, and the list is
//! to be asked for from its beginning.

use std::collections::BTreeSet;

/// Pages of one list: a driver with one entry a page that looks at no filter.
pub(super) const MAX_PAGES: usize = 10_000;

/// Why a list is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endless {
    /// A page names one as the next that was there before.
    Loop,
    /// There is no end.
    TooMany,
    /// The list was begun again, and its token was refused again.
    Aborted,
}

impl Endless {
    /// In words that follow "list the snapshots: ".
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Loop => "a page is followed by one that was there before",
            Self::TooMany => "there is no end after 10000 pages",
            Self::Aborted => "the driver takes its own token for the next page back, twice",
        }
    }
}

/// A list that is being read.
#[derive(Debug, Default)]
pub(super) struct Pages {
    token: String,
    seen: BTreeSet<String>,
    asked: usize,
    was_restarted: bool,
}

impl Pages {
    /// The token of the page that is to be asked for; empty for the first.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// A page came, and names the next. Whether there is one.
    pub(super) fn follow(&mut self, next: String) -> Result<bool, Endless> {
        self.asked += 1;
        if next.is_empty() {
            return Ok(false);
        }
        if self.asked >= MAX_PAGES {
            return Err(Endless::TooMany);
        }
        if !self.seen.insert(next.clone()) {
            return Err(Endless::Loop);
        }
        self.token = next;
        Ok(true)
    }

    /// The token was refused: from the beginning, once.
    pub(super) fn restart(&mut self) -> Result<(), Endless> {
        if self.was_restarted {
            return Err(Endless::Aborted);
        }
        self.was_restarted = true;
        self.token.clear();
        self.seen.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let mut pages = Pages::default();
        assert_eq!(pages.token(), "");
        assert_eq!(pages.follow("b".to_owned()), Ok(true));
        assert_eq!(pages.token(), "b");
        assert_eq!(pages.follow("a".to_owned()), Ok(true));
        assert_eq!(pages.token(), "a");
        assert_eq!(pages.follow(String::new()), Ok(false));
    }

    #[test]
    fn a_loop_is_one_however_long_it_is() {
        for len in 1..5 {
            let mut pages = Pages::default();
            for page in 0..len {
                assert_eq!(pages.follow(page.to_string()), Ok(true));
            }
            assert_eq!(pages.follow("0".to_owned()), Err(Endless::Loop));
        }
    }

    #[test]
    fn a_list_begins_again_once_and_may_name_the_same_pages_then() {
        let mut pages = Pages::default();
        assert_eq!(pages.follow("b".to_owned()), Ok(true));
        assert_eq!(pages.restart(), Ok(()));
        assert_eq!(pages.token(), "");
        assert_eq!(pages.follow("b".to_owned()), Ok(true));
        assert_eq!(pages.restart(), Err(Endless::Aborted));
    }

    #[test]
    fn a_list_without_an_end_ends() {
        let mut pages = Pages::default();
        let end = (0..).find_map(|page| pages.follow(format!("{page}")).err());
        assert_eq!(end, Some(Endless::TooMany));
    }
}
