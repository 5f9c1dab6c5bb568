//! In which form a query sees a page: the rule, by positions alone.
//!
//! A query whose position lies in page `m` sees page `p` at the age of `m - p - 1` pages. Page `m` itself, and younger
//! ones than the window, are seen as they were written ([`RAW`]); older ones in the form of the last tier that begins at
//! or before their age, and the first pages of a sequence in a form of their own. Every form is made from the one before
//! it, never from anything else.

use crate::PAGE;

/// As written: f16 or f32.
pub(crate) const RAW: usize = 0;
/// In the codecs of the first tier.
pub(crate) const SEALED: usize = 1;
/// Forms of a page: as written, five tiers, sinks.
pub(crate) const MAX_FORMS: usize = 7;

/// A set of forms, a bit for each.
pub(crate) type Forms = u8;

/// The rule of one group of layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Ages in pages from which on each tier is seen; empty if pages stay as they were written.
    pub tiers: Vec<usize>,
    /// Pages at the beginning that have a form of their own.
    pub sinks: usize,
    /// Positions that a query sees at the most.
    pub sliding: Option<usize>,
}

impl Schedule {
    /// Forms there are.
    pub fn forms(&self) -> usize {
        if self.tiers.is_empty() { 1 } else { 1 + self.tiers.len() + usize::from(self.sinks > 0) }
    }

    /// The form of sinks.
    pub fn sink(&self) -> usize {
        1 + self.tiers.len()
    }

    /// The form that a form is made from.
    pub fn made_from(&self, form: usize) -> usize {
        if form == self.sink() { RAW } else { form.saturating_sub(1) }
    }

    /// In which form queries in page `m` see page `page`, `page <= m`; `None` if none of them sees it.
    pub fn form(&self, m: usize, page: usize) -> Option<usize> {
        // The first query of page m sees positions from 128 m + 1 - sliding on.
        if let Some(sliding) = self.sliding
            && (page + 1) * PAGE <= (m * PAGE + 1).saturating_sub(sliding)
        {
            return None;
        }
        let Some(age) = m.checked_sub(page + 1) else { return Some(RAW) };
        let tier = self.tiers.partition_point(|&from| from <= age);
        Some(if tier > 0 && page < self.sinks { self.sink() } else { tier })
    }

    /// The first page that queries in page `m` see.
    pub fn first(&self, m: usize) -> usize {
        self.sliding.map_or(0, |sliding| (m * PAGE + 1).saturating_sub(sliding) / PAGE)
    }

    /// The forms of a page that may still be asked for when the next query lies in page `m`, or in the one before it
    /// if up to 128 positions are taken back.
    pub fn kept(&self, m: usize, page: usize) -> Forms {
        let of = |m: usize| if page <= m { self.form(m, page).map_or(0, |form| 1 << form) } else { 0 };
        of(m) | m.checked_sub(1).map_or(0, of)
    }

    /// The forms from which `form` can be made, itself included.
    pub fn sources(&self, form: usize) -> Forms {
        if form == self.sink() { 1 << form | 1 << RAW } else { (2 << form) - 1 }
    }

    /// The forms that a page of the highest form in `have` must go through to reach `form`, itself included.
    pub fn steps(&self, have: Forms, form: usize) -> Forms {
        let from = have & self.sources(form);
        let above = !((1u32 << (Forms::BITS - from.leading_zeros())) - 1) as Forms;
        self.sources(form) & above
    }

    /// Pages as written that a sequence holds at the most, besides those that a pass of `chunk` positions writes.
    pub fn raw_pages(&self) -> usize {
        self.tiers.first().copied().unwrap_or(0) + 2
    }
}

#[cfg(test)]
mod tests {
    use super::{RAW, Schedule};
    use crate::PAGE;

    #[test]
    fn pages_are_sealed_by_position() {
        let plain = Schedule { tiers: vec![0], sinks: 0, sliding: None };
        assert_eq!([plain.form(3, 3), plain.form(3, 2), plain.form(3, 0)], [Some(RAW), Some(1), Some(1)]);
        // Queries in page 3 and, taken back, in page 2.
        assert_eq!([plain.kept(3, 3), plain.kept(3, 2), plain.kept(3, 1)], [1, 0b11, 0b10]);

        let all = Schedule { tiers: vec![1, 4], sinks: 1, sliding: None };
        let forms: Vec<_> = (0..=7).map(|page| all.form(7, page).unwrap()).collect();
        assert_eq!(forms, [3, 2, 2, 1, 1, 1, RAW, RAW]);
        assert_eq!([all.steps(0b001, 2), all.steps(0b010, 2), all.steps(0b100, 2)], [0b110, 0b100, 0]);
        assert_eq!([all.steps(0b001, 3), all.steps(0b001, RAW), all.steps(0, 1)], [0b1000, 0, 0b11]);
    }

    #[test]
    fn what_a_sliding_window_has_left_is_not_seen() {
        for sliding in [1, 127, 128, 129, 1000, 1024] {
            let rule = Schedule { tiers: vec![], sinks: 0, sliding: Some(sliding) };
            for m in 0..20 {
                let lowest = (m * PAGE + 1).saturating_sub(sliding);
                assert_eq!(rule.first(m), lowest / PAGE);
                for page in 0..=m {
                    assert_eq!(rule.form(m, page).is_some(), page >= rule.first(m), "{sliding} {m} {page}");
                }
            }
        }
    }
}
