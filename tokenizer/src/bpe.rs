//! Byte-level BPE: words from a pre-tokenizer, bytes merged by rank.

use crate::bytes::{SPELLING, spell};
use crate::error::Error;
use crate::hash::{MAX_MERGES, Merge, NONE, PairMap};
use crate::merge::{Merger, stretches};
use crate::pre::PreTokenizer;
use crate::vocabulary::Vocabulary;

/// Words of at most this many bytes are merged by scanning for the lowest rank: no queue to set up. Longer ones
/// would make that quadratic.
const SHORT: usize = 48;

#[derive(Debug)]
pub(crate) struct Bpe {
    /// The token of each byte, or [`NONE`].
    bytes: [u32; 256],
    merges: PairMap,
    pre: &'static PreTokenizer,
    /// Stands for a byte that has no token; without it such a byte is left out.
    unknown: Option<u32>,
}

impl Bpe {
    pub(crate) fn new<'a>(
        vocabulary: &Vocabulary,
        merges: impl ExactSizeIterator<Item = &'a str>,
        pre: &'static PreTokenizer,
        unknown: Option<u32>,
    ) -> Result<Self, Error> {
        let bytes = SPELLING.map(|c| vocabulary.id(c.encode_utf8(&mut [0; 4])).unwrap_or(NONE));
        Ok(Self { bytes, merges: read_merges(vocabulary, merges)?, pre, unknown })
    }

    pub(crate) fn encode(&self, text: &str, vocabulary: &Vocabulary, out: &mut Vec<u32>) {
        let mut work = Work::default();
        for text in stretches(text) {
            (self.pre.split)(text, &mut |word| self.word(word.as_bytes(), vocabulary, &mut work, out));
        }
    }

    fn word(&self, word: &[u8], vocabulary: &Vocabulary, work: &mut Work, out: &mut Vec<u32>) {
        if self.pre.ignore_merges {
            work.spelling.clear();
            spell(word, &mut work.spelling);
            if let Some(id) = vocabulary.plain_id(work.spelling.as_bytes()) {
                out.push(id);
                return;
            }
        }
        let known = |id: u32| if id == NONE { self.unknown } else { Some(id) };
        let ids = word.iter().map(|&byte| self.bytes[usize::from(byte)]);
        if word.len() <= SHORT {
            work.ids.clear();
            work.ids.extend(ids);
            self.merge_short(&mut work.ids, &mut work.pairs);
            out.extend(work.ids.iter().copied().filter_map(known));
        } else {
            work.merger.clear();
            for id in ids {
                work.merger.push(id, 1);
            }
            work.merger.merge(|l, r| self.merges.get(l.id, r.id).map(|merge| (merge.rank, merge.id)));
            out.extend(work.merger.symbols().filter_map(|symbol| known(symbol.id)));
        }
    }

    /// Merges `ids` in place; `pairs` is scratch: what each one and the next would merge to.
    fn merge_short(&self, ids: &mut Vec<u32>, pairs: &mut Vec<Merge>) {
        const NEVER: Merge = Merge { rank: u32::MAX, id: NONE };
        let pair = |left, right| self.merges.get(left, right).unwrap_or(NEVER);
        pairs.clear();
        pairs.extend(ids.windows(2).map(|two| pair(two[0], two[1])));
        while let Some((at, best)) = pairs.iter().copied().enumerate().min_by_key(|(_, merge)| merge.rank) {
            if best == NEVER {
                break;
            }
            ids[at] = best.id;
            ids.remove(at + 1);
            pairs.remove(at);
            if let Some(slot) = pairs.get_mut(at) {
                *slot = pair(best.id, ids[at + 1]);
            }
            if at > 0 {
                pairs[at - 1] = pair(ids[at - 1], best.id);
            }
        }
    }
}

/// Scratch of one call.
#[derive(Default)]
struct Work {
    spelling: String,
    ids: Vec<u32>,
    pairs: Vec<Merge>,
    merger: Merger,
}

/// The merge list as pairs of ids. A line is two tokens with a space between them.
fn read_merges<'a>(
    vocabulary: &Vocabulary,
    merges: impl ExactSizeIterator<Item = &'a str>,
) -> Result<PairMap, Error> {
    let mut map = PairMap::with_capacity(merges.len());
    let mut whole = Vec::new();
    let mut last = 0;
    for (index, line) in merges.enumerate() {
        let fault = |why| Error::Merge { index, merge: line.chars().take(64).collect(), why };
        let rank =
            u32::try_from(index).map_err(|_| Error::TooLarge { what: "merges", limit: u32::MAX as usize })?;
        // The left half has at least one character, which may be a space where a file isn't byte-level after all.
        let first = line.chars().next().map_or(0, char::len_utf8);
        let space = line.as_bytes()[first..]
            .iter()
            .position(|&b| b == b' ')
            .ok_or_else(|| fault("there is no space between two tokens"))?;
        let (left, right) = (&line[..first + space], &line[first + space + 1..]);
        let id = |text| vocabulary.id(text).ok_or_else(|| fault("a half of it is not a token"));
        let (l, r) = (id(left)?, id(right)?);
        whole.clear();
        whole.extend_from_slice(left.as_bytes());
        whole.extend_from_slice(right.as_bytes());
        // Merges mostly come in the order of the tokens they make: try the next id before the index.
        let next = last + 1;
        let merged = if (next as usize) < vocabulary.len() && vocabulary.bytes(next) == whole {
            next
        } else {
            vocabulary.id_of_bytes(&whole).ok_or_else(|| fault("the two together are not a token"))?
        };
        last = merged;
        if !map.insert(l, r, Merge { rank, id: merged }) {
            return Err(Error::TooLarge { what: "merges", limit: MAX_MERGES });
        }
    }
    Ok(map)
}
