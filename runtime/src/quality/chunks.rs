//! A text cut into chunks, and which positions of a chunk are scored.

use crate::{Error, Model};
use std::ops::Range;

/// The fewest tokens that a chunk can have: one position to score after one that is not.
const SHORTEST: usize = 4;

/// Token ids in chunks of equal length. What does not fill a chunk at the end is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunks {
    ids: Vec<u32>,
    context: usize,
    begin: Option<u32>,
}

impl Chunks {
    /// Cuts ids into chunks of `context`, `limit` of them at the most, for a model: its begin token, if it puts one
    /// before texts, takes the first place of every chunk.
    ///
    /// # Errors
    /// [`Error::TextTooShort`] if not one chunk is full, [`Error::ChunkTooShort`] for chunks below 4 tokens or none,
    /// [`Error::Token`] for an id that the vocabulary does not have.
    pub fn new(model: &Model, ids: Vec<u32>, context: usize, limit: Option<usize>) -> Result<Self, Error> {
        let begin = model.tokenizer().ok().filter(|tokenizer| tokenizer.add_bos()).and_then(|t| t.bos());
        Self::cut(ids, context, limit, begin, model.info().vocab)
    }

    pub(super) fn cut(
        mut ids: Vec<u32>,
        context: usize,
        limit: Option<usize>,
        begin: Option<u32>,
        vocabulary: usize,
    ) -> Result<Self, Error> {
        if context < SHORTEST || limit == Some(0) {
            return Err(Error::ChunkTooShort { tokens: context.min(limit.unwrap_or(context)) });
        }
        let count = (ids.len() / context).min(limit.unwrap_or(usize::MAX));
        if count == 0 {
            return Err(Error::TextTooShort { tokens: ids.len(), context });
        }
        ids.truncate(count * context);
        if let Some(&token) = ids.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::Token { token, vocabulary });
        }
        Ok(Self { ids, context, begin })
    }

    /// How many chunks.
    pub fn count(&self) -> usize {
        self.ids.len() / self.context
    }

    /// Tokens of a chunk.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The ids of all chunks, as they were given.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Positions of a chunk that are scored, each against the id after it: the second half but for the last.
    pub fn scored(&self) -> Range<usize> {
        self.context / 2..self.context - 1
    }

    /// Positions that are scored, all chunks together.
    pub fn positions(&self) -> usize {
        self.count() * self.scored().len()
    }

    /// Each chunk as it is evaluated, and as it was given.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Vec<u32>, &[u32])> {
        self.ids.chunks_exact(self.context).map(|given| {
            let mut input = given.to_vec();
            if let (Some(first), Some(begin)) = (input.first_mut(), self.begin) {
                *first = begin;
            }
            (input, given)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Chunks;
    use crate::Error;

    #[test]
    fn chunks_are_cut_as_llama_cpp_cuts_them() {
        let chunks = Chunks::cut((0..21).collect(), 8, None, Some(99), 100).unwrap();
        assert_eq!((chunks.count(), chunks.scored(), chunks.positions()), (2, 4..7, 6));
        let inputs: Vec<Vec<u32>> = chunks.iter().map(|(input, _)| input).collect();
        assert_eq!(inputs, [[99, 1, 2, 3, 4, 5, 6, 7], [99, 9, 10, 11, 12, 13, 14, 15]]);
        assert_eq!(
            Chunks::cut((0..21).collect(), 8, Some(1), None, 100).unwrap().ids(),
            [0, 1, 2, 3, 4, 5, 6, 7]
        );
    }

    #[test]
    fn what_cannot_be_scored_is_refused() {
        let cut = |len: u32, context, limit| Chunks::cut((0..len).collect(), context, limit, None, 50);
        assert!(matches!(cut(7, 8, None), Err(Error::TextTooShort { tokens: 7, context: 8 })));
        assert!(matches!(cut(7, 3, None), Err(Error::ChunkTooShort { tokens: 3 })));
        assert!(matches!(cut(7, 0, None), Err(Error::ChunkTooShort { tokens: 0 })));
        assert!(matches!(cut(9, 8, Some(0)), Err(Error::ChunkTooShort { tokens: 0 })));
        assert!(matches!(cut(64, 8, None), Err(Error::Token { token: 50, vocabulary: 50 })));
        assert!(matches!(cut(9, usize::MAX, None), Err(Error::TextTooShort { .. })));
        // an id that is not looked at does no harm
        assert!(cut(55, 50, None).is_ok());
    }
}
