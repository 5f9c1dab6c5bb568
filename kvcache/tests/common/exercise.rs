//! Uses all that outside bytes can say to the cache, as the fuzz targets and the tests of hostile input do.

use crate::common::{Loop, tokens};
use quant_kvcache::{Bytes, Error, ExportPart, ImportPart, KvCache, LayerShape, PAGE, Past, Policy, Turn};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Reads a text as a policy and, if it is one, plans with it. Returns whether it was accepted.
///
/// # Panics
/// If a policy that was accepted does not fit together, is not what it prints, or plans nonsense.
pub fn policy(text: &str) -> bool {
    let parsed = match Policy::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(error.to_string().len() < 2000, "a message of a screen");
            return false;
        }
    };
    let policy = parsed.policy;
    policy.check().unwrap();
    assert_eq!(policy.to_string().parse::<Policy>().unwrap(), policy, "{text:?}");
    for dim in [64, 80, 40] {
        let shape = LayerShape { kv_heads: 2, key_dim: dim, value_dim: dim };
        let Ok(cache) = KvCache::new(vec![shape; 3], &policy, 1 << 20) else { continue };
        let (needed, least) = (cache.bytes_for(1000, 200), cache.least_bytes_for(1000, 200));
        assert!(0 < least && least <= needed && cache.positions_in(needed, 200) >= 1000, "{text:?}");
        assert_eq!(cache.bytes_for(usize::MAX, usize::MAX), usize::MAX);
    }
    true
}

/// Bytes of a block, by group and form.
type Sizes = BTreeMap<(usize, usize), usize>;

/// A policy with forms of all kinds: sinks, and sealed pages that may be reduced.
fn imports() -> &'static (Policy, Sizes) {
    static IMPORTS: OnceLock<(Policy, Sizes)> = OnceLock::new();
    IMPORTS.get_or_init(|| {
        let policy: Policy = "k=5,v=4,sinks=128,drop=2".parse().unwrap();
        let mut sizes = Sizes::new();
        // A reduced page is as large as one that was encoded with so many bits.
        for (like, reduced) in [("k=5,v=4,sinks=128", 0), ("k=4,v=4", 2), ("k=2,v=2", 3)] {
            let mut one = Loop::new(&like.parse().unwrap(), 1 << 26);
            let id = one.cache.create();
            one.pass_without_queries(id, &tokens(4 * PAGE, 1)).unwrap();
            for part in one.cache.export(id).unwrap().parts {
                if part.form > 0 || reduced == 0 {
                    sizes.insert((part.group, part.form + reduced), part.blocks[0].len());
                }
            }
        }
        (policy, sizes)
    })
}

/// Makes a past and its parts of some bytes, imports them and uses what comes of it. Returns whether they were accepted.
///
/// # Panics
/// If anything is left behind, or a sequence that was accepted can't be used as any other.
pub fn parts(bytes: &[u8]) -> bool {
    let (policy, sizes) = imports();
    let mut bytes = bytes.iter().copied();
    let mut next = || usize::from(bytes.next().unwrap_or(0));
    let len = next() * 7 + next() % 7;
    let turns = |next: &mut dyn FnMut() -> usize| {
        let mut first_page = 0;
        (0..next() % 4)
            .map(|_| {
                let turn = Turn { first_page, offset: (next() as isize - 64) * 32 };
                first_page += next() % 8;
                turn
            })
            .collect()
    };
    let turns = turns(&mut next);
    let past = Past { len, turns, reduced: next() % 2 == 1 };
    let count = next() % 9;
    let mut list = Vec::new();
    for _ in 0..count {
        let (group, form) = (next() % 3, next() % 6);
        let (first, count, step) = (next() % 8, next() % 16, 1 + next() % 16 / 15);
        let pages: Vec<u32> = (0..count).map(|i| (first + i * step) as u32).collect();
        let size = sizes.get(&(group, form)).copied().unwrap_or(64);
        let fill = next() as u8;
        let bytes = size * pages.len() - if fill == 77 { pages.len().min(1) } else { 0 };
        let skip = if fill.is_multiple_of(3) { 1 } else { 0 };
        let memory = vec![fill; bytes + 64 + skip];
        let at = memory.as_ptr().align_offset(64).min(63) + skip;
        let bytes = Bytes::new(Arc::new(memory), at..at + bytes).unwrap();
        list.push(ImportPart { group, form, pages, bytes });
    }
    let mut one = Loop::new(policy, 6 << 20);
    let id = match one.cache.import(&past, &list) {
        Ok(id) => id,
        Err(Error::Snapshot { .. } | Error::OutOfMemory { .. }) => {
            let stats = one.cache.stats();
            assert_eq!((stats.used_bytes, stats.mapped_bytes, stats.f16_bytes), (0, 0, 0));
            return false;
        }
        Err(other) => panic!("{other}"),
    };
    assert_eq!((one.cache.len(id), one.cache.turns(id)), (Ok(len), Ok(&past.turns[..])));
    let again: Vec<ImportPart> = one.cache.export(id).unwrap().parts.into_iter().map(stored).collect();
    let copy = one.cache.import(&past, &again).or_else(|_| one.cache.fork(id)).unwrap();
    for id in [id, copy] {
        // Numbers that no page was made of may not fit in a codec, and what is reserved may not fit in the budget.
        let _ = one.feed(id, &tokens(150, 3));
        let _ = one.cache.shift(id, 1..2);
        let len = one.cache.len(id).unwrap();
        one.cache.rewind(id, len.saturating_sub(140)).unwrap();
        let _ = one.feed(id, &tokens(3, 4));
    }
    one.cache.raise(0).unwrap();
    for id in [id, copy] {
        one.cache.release(id).unwrap();
    }
    let stats = one.cache.stats();
    assert_eq!((stats.used_bytes, stats.mapped_bytes, stats.f16_bytes), (0, 0, 0));
    true
}

fn stored(part: ExportPart<'_>) -> ImportPart {
    let bytes = part.blocks.concat();
    let len = bytes.len();
    let bytes = Bytes::new(Arc::new(bytes), 0..len).unwrap();
    ImportPart { group: part.group, form: part.form, pages: part.pages, bytes }
}

/// Bytes that [`parts`] accepts: pages of both groups, as written, sealed and reduced, moved or not.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    // Five and a half pages; the group with the sliding window holds the last three, as written and sealed.
    let of = |turns: &[u8], reduced: u8, parts: &[[u8; 6]]| {
        let mut out = vec![100, 3, turns.len() as u8 / 2];
        out.extend(turns);
        out.extend([reduced, parts.len() as u8]);
        parts.iter().for_each(|part| out.extend(part));
        out
    };
    let written = [[0, 0, 4, 2, 0, 1], [1, 0, 3, 3, 0, 0]];
    let whole = [[0, 1, 1, 4, 0, 1], [0, 2, 0, 1, 0, 1], [1, 1, 2, 3, 0, 0]];
    let reduced = [[0, 1, 3, 2, 0, 1], [0, 3, 1, 2, 0, 1], [0, 2, 0, 1, 0, 1], [1, 1, 2, 3, 0, 0]];
    vec![
        ("whole", of(&[], 0, &[&written[..], &whole[..]].concat())),
        ("reduced", of(&[], 1, &[&written[..], &reduced[..]].concat())),
        ("moved", of(&[64, 2, 72, 1], 0, &[&written[..], &whole[..]].concat())),
    ]
}
