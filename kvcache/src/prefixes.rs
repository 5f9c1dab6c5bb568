//! Prefixes across requests: full pages that outlive their sequences, so that the next one that begins alike goes on from
//! there with the bits of a straight run.
//!
//! The pages stay within the cache's budget. When a reserve needs memory, pages that no sequence holds are given up, the
//! least recently used end of a prefix first.

use crate::prefix_tree::PrefixTree;
use crate::{Error, KvCache, PAGE, PageHold, SequenceId};

/// The pages kept.
pub(crate) type Prefixes = PrefixTree<PageHold>;

impl KvCache {
    /// Keeps the full pages of a sequence for others that begin alike; `tokens` are those that its positions were made
    /// from, at least as far as pages are to be kept. Returns how many pages were not known before.
    ///
    /// # Errors
    /// [`Error::Shifted`], [`Error::Reduced`], [`Error::UnknownSequence`].
    pub fn remember(&mut self, id: SequenceId, tokens: &[u32]) -> Result<usize, Error> {
        self.sequence(id)?.straight()?;
        let pages = self.len(id)?.min(tokens.len()) / PAGE;
        let mut prefixes = std::mem::take(&mut self.prefixes);
        let mut added = Ok(0);
        let mut parent = None;
        for (index, tokens) in tokens.chunks_exact(PAGE).take(pages).enumerate() {
            let known = prefixes.child(parent, tokens);
            if let Some(page) = known.and_then(|known| prefixes.page_mut(known)) {
                parent = known;
                if self.is_incomplete(page) {
                    let rest = self.hold(id, index).map(|hold| self.complete(page, hold));
                    added = added.and_then(|count| rest.map(|rest| (self.drop_hold(rest), count).1));
                }
                continue;
            }
            let hold = match self.hold(id, index) {
                Ok(hold) => hold,
                Err(error) => {
                    added = Err(error);
                    break;
                }
            };
            match prefixes.insert(parent, tokens, hold) {
                Ok(new) => {
                    added = added.map(|count| count + 1);
                    parent = Some(new);
                }
                // Another page with the same hash: this prefix can't be kept further.
                Err(hold) => {
                    self.drop_hold(hold);
                    break;
                }
            }
        }
        self.prefixes = prefixes;
        added
    }

    /// A new sequence with the longest past that is known of these tokens, and how many positions that are: none for a
    /// beginning that is new. The sequence goes on with the bits of a straight run.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn resume(&mut self, tokens: &[u32]) -> Result<(SequenceId, usize), Error> {
        let mut prefixes = std::mem::take(&mut self.prefixes);
        let path = prefixes.path(tokens);
        let result = self.attach(path.iter().filter_map(|&page| prefixes.page(page)));
        self.prefixes = prefixes;
        result
    }

    /// Forgets all prefixes; pages that no sequence holds are free.
    pub fn forget(&mut self) {
        let mut prefixes = std::mem::take(&mut self.prefixes);
        while let Some(hold) = prefixes.evict(|_| true) {
            self.drop_hold(hold);
        }
    }

    /// Gives up the prefix page that is missed least, of those whose memory would be free; `false` if there is none.
    pub(crate) fn evict(&mut self) -> bool {
        let mut prefixes = std::mem::take(&mut self.prefixes);
        let evicted = prefixes.evict(|hold| self.hold_bytes(hold) > 0);
        self.prefixes = prefixes;
        match evicted {
            Some(hold) => {
                self.drop_hold(hold);
                true
            }
            None => false,
        }
    }
}
