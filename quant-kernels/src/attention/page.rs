//! Pages of keys and values in every form, and the domains that coded values are summed in.

use crate::codecs::{Codec, KeyCodec, Space, ValueCodec};
use half::f16;
use std::sync::Arc;

/// One KV head's keys or values of one page, `[PAGE][dim]`. The last page may be shorter unless it is coded.
#[derive(Debug)]
pub enum Page<'a, C: ?Sized> {
    /// Half precision.
    F16(&'a [f16]),
    /// The reference.
    F32(&'a [f32]),
    /// Encoded.
    Coded {
        /// Of vectors of `dim` values.
        codec: &'a C,
        /// A whole page: `codec.page_bytes()` bytes.
        bytes: &'a [u8],
    },
}

/// A page of keys, of `dk` values each.
pub type KeyPage<'a> = Page<'a, dyn KeyCodec + 'a>;
/// A page of values, of `dv` values each.
pub type ValuePage<'a> = Page<'a, dyn ValueCodec + 'a>;

// Derived, they would ask the same of the codec, which is only borrowed.
impl<C: ?Sized> Copy for Page<'_, C> {}
impl<C: ?Sized> Clone for Page<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: ?Sized + Codec> Page<'_, C> {
    /// Number `index` of a page that is not coded and has it.
    pub fn get(&self, index: usize) -> Option<f32> {
        match self {
            Self::F16(x) => x.get(index).map(|x| x.to_f32()),
            Self::F32(x) => x.get(index).copied(),
            Self::Coded { .. } => None,
        }
    }

    /// The bytes of a coded page.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Coded { bytes, .. } => bytes,
            _ => &[],
        }
    }

    /// Whether it has `rows` positions of `dim` values.
    pub(super) fn holds(&self, rows: usize, dim: usize) -> bool {
        match self {
            Self::F16(x) => x.len() >= rows * dim,
            Self::F32(x) => x.len() >= rows * dim,
            Self::Coded { codec, bytes } => codec.dim() == dim && bytes.len() == codec.page_bytes(),
        }
    }

    /// The space of its numbers, if it is coded.
    pub(super) fn space(&self) -> Option<Space> {
        match self {
            Self::Coded { codec, .. } => Some(codec.space()),
            _ => None,
        }
    }
}

/// The domains that coded values of a layer are summed in: one for each [`Space`] of its codecs, in the order of the
/// spaces. Made once, when the codecs are chosen.
///
/// A task may have domains that none of its pages needs: they take memory, but change no bit.
#[derive(Debug, Default, Clone)]
pub struct ValueDomains {
    domains: Vec<Domain>,
    len: usize,
}

/// One accumulator of a row.
#[derive(Debug, Clone)]
pub(super) struct Domain {
    pub space: Space,
    /// Finishes the sums of all codecs of the space.
    pub codec: Arc<dyn ValueCodec>,
    /// Where its sums begin among those of all domains.
    pub at: usize,
    pub len: usize,
}

impl ValueDomains {
    /// The domains of these codecs.
    pub fn new(codecs: impl IntoIterator<Item = Arc<dyn ValueCodec>>) -> Self {
        let mut domains: Vec<Domain> = Vec::new();
        for codec in codecs {
            let (space, len) = (codec.space(), codec.sum_len());
            if let Err(at) = domains.binary_search_by_key(&space, |domain| domain.space) {
                domains.insert(at, Domain { space, codec, at: 0, len });
            }
        }
        let mut len = 0;
        for domain in &mut domains {
            domain.at = len;
            len += domain.len;
        }
        Self { domains, len }
    }

    /// No domain: for tasks without coded values.
    pub fn none() -> &'static Self {
        static NONE: ValueDomains = ValueDomains { domains: Vec::new(), len: 0 };
        &NONE
    }

    /// Values of a row's sums in all domains.
    #[allow(clippy::len_without_is_empty, reason = "a size, not a list")]
    pub fn len(&self) -> usize {
        self.len
    }

    pub(super) fn of(&self, space: Space) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.space == space)
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Domain> {
        self.domains.iter()
    }
}

/// Queries for pages whose keys were turned for other positions than they have now (context shift): the same queries,
/// turned to fit.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueryVariants<'a> {
    /// Each laid out as the task's `q`.
    pub queries: &'a [&'a [f32]],
    /// For each page 0 for the task's `q`, or 1 + the index of the variant that scores it. May be shorter than the
    /// list of pages: 0 for those that lack.
    pub of_page: &'a [usize],
}

impl<'a> QueryVariants<'a> {
    /// The number of the queries that score a page.
    pub(super) fn at(&self, page: usize) -> usize {
        self.of_page.get(page).copied().unwrap_or(0)
    }
}
