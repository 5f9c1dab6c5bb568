//! The state update of gated DeltaNet (Yang, Kautz and Hatamizadeh, arXiv 2412.06464), token by token.
//!
//! Each head keeps a matrix `S` of `key_dim` rows and `value_dim` columns. For one token with query `q`, key `k`, value
//! `v`, log decay `g` and step size `beta`:
//!
//! ```text
//! S     = S * exp(g)
//! delta = (v - S^T k) * beta
//! S     = S + k delta^T
//! out   = S^T q                        with the updated state
//! ```
//!
//! Both products are sums over rows in order, from +0.0, multiply then add; columns do not meet. So the bits depend on
//! neither tier nor threads nor on how tokens are cut into calls, and there is no other form for prefill: columns are
//! walked 64 at a time with all tokens, the part of the state that they need staying in the first-level cache.

use crate::exp::exp;
use crate::matmul::Shared;
use crate::simd::{self, Kernel, LANES, Simd};
use crate::{Error, Isa, Parallel};

/// Which key head a value head uses, where there are fewer key heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHeads {
    /// Head `h` uses key head `h mod key_heads` (Qwen3.5).
    Tiled,
    /// Neighbouring heads share a key head (Qwen3-Next).
    Grouped,
}

/// Sizes of a layer.
#[derive(Debug, Clone, Copy)]
pub struct DeltaNet {
    /// Value heads: states.
    pub heads: usize,
    /// Heads of queries and keys; divides `heads`.
    pub key_heads: usize,
    /// Rows of a state.
    pub key_dim: usize,
    /// Columns of a state.
    pub value_dim: usize,
    /// Which of them a value head uses.
    pub sharing: KeyHeads,
}

/// What the tokens bring.
#[derive(Debug, Clone, Copy)]
pub struct DeltaNetInput<'a> {
    /// `[tokens][key_heads][key_dim]`, normed and scaled.
    pub q: &'a [f32],
    /// `[tokens][key_heads][key_dim]`, normed.
    pub k: &'a [f32],
    /// `[tokens][heads][value_dim]`.
    pub v: &'a [f32],
    /// Log decay, at most 0: `[tokens][heads]`.
    pub g: &'a [f32],
    /// Step size, 0 to 1: `[tokens][heads]`.
    pub beta: &'a [f32],
}

impl DeltaNet {
    /// Values of all states, `[heads][key_dim][value_dim]`.
    pub fn state_len(&self) -> usize {
        self.heads * self.key_dim * self.value_dim
    }

    /// Takes the tokens in order into the state and writes `out`, `[tokens][heads][value_dim]`.
    ///
    /// # Errors
    /// [`Error::Length`] for shapes that do not fit.
    pub fn forward(
        &self,
        isa: Isa,
        parallel: &dyn Parallel,
        input: DeltaNetInput<'_>,
        state: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), Error> {
        let tokens = self.check(&input, state, out)?;
        let (size, width) = (self.key_dim * self.value_dim, self.heads * self.value_dim);
        let (states, outs) = (Shared::new(state), Shared::new(out));
        parallel.run(self.heads, &|_, head| {
            // SAFETY: a head's state belongs to its task.
            let state = unsafe { states.slice(head * size, size) };
            let emit = |token: usize, column: usize, values: &[f32]| {
                // SAFETY: so do the columns of its output.
                let out = unsafe { outs.slice(token * width + head * self.value_dim + column, values.len()) };
                out.copy_from_slice(values);
            };
            simd::dispatch(isa, Head { net: self, input, tokens, head, state, emit });
        });
        Ok(())
    }

    /// Checks all shapes; returns the number of tokens.
    fn check(&self, input: &DeltaNetInput<'_>, state: &[f32], out: &[f32]) -> Result<usize, Error> {
        let check = |what, expected: usize, got: usize| {
            if expected == got { Ok(()) } else { Err(Error::Length { what, expected, got }) }
        };
        let shared = self.key_heads * self.heads.checked_div(self.key_heads).unwrap_or(0);
        check("DeltaNet heads of each key head, together", self.heads, shared)?;
        let tokens = input.g.len() / self.heads.max(1);
        let keys = tokens * self.key_heads * self.key_dim;
        let values = tokens * self.heads * self.value_dim;
        check("DeltaNet decays", tokens * self.heads, input.g.len())?;
        check("DeltaNet step sizes", tokens * self.heads, input.beta.len())?;
        check("DeltaNet queries", keys, input.q.len())?;
        check("DeltaNet keys", keys, input.k.len())?;
        check("DeltaNet values", values, input.v.len())?;
        check("DeltaNet output", values, out.len())?;
        check("DeltaNet state", self.state_len(), state.len())?;
        Ok(tokens)
    }

    /// The key head of a value head.
    fn key_head(&self, head: usize) -> usize {
        match self.sharing {
            KeyHeads::Tiled => head % self.key_heads,
            KeyHeads::Grouped => head / (self.heads / self.key_heads),
        }
    }
}

/// One head with all tokens.
struct Head<'a, F> {
    net: &'a DeltaNet,
    input: DeltaNetInput<'a>,
    tokens: usize,
    head: usize,
    state: &'a mut [f32],
    emit: F,
}

/// What one token brings to one head.
struct Token<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    decay: f32,
    beta: f32,
}

impl<'a, F: Fn(usize, usize, &[f32])> Head<'a, F> {
    #[inline(always)]
    fn token(&self, t: usize) -> Token<'a> {
        let DeltaNet { heads, key_heads, key_dim, value_dim, .. } = *self.net;
        let key = (t * key_heads + self.net.key_head(self.head)) * key_dim;
        let at = t * heads + self.head;
        let DeltaNetInput { q, k, v, g, beta } = self.input;
        Token {
            q: &q[key..][..key_dim],
            k: &k[key..][..key_dim],
            v: &v[at * value_dim..][..value_dim],
            decay: exp(g[at]),
            beta: beta[at],
        }
    }

    /// `W` vectors of columns from `first` on.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "one index walks several arrays of registers")]
    fn columns<S: Simd, const W: usize>(&mut self, s: S, first: usize) {
        let stride = self.net.value_dim;
        for t in 0..self.tokens {
            let Token { q, k, v, decay, beta } = self.token(t);
            let (decay, beta) = (s.splat(decay), s.splat(beta));
            let mut product = [s.splat(0.0); W];
            for (row, &k) in self.state.chunks_exact(stride).zip(k) {
                let (row, k) = (vectors::<W>(&row[first..]), s.splat(k));
                for w in 0..W {
                    product[w] = s.add(product[w], s.mul(s.mul(s.load(&row[w]), decay), k));
                }
            }
            let (v, mut delta) = (vectors::<W>(&v[first..]), product);
            for w in 0..W {
                // v - product: negation is exact.
                let difference = s.add(s.load(&v[w]), s.mul(product[w], s.splat(-1.0)));
                delta[w] = s.mul(difference, beta);
            }
            let mut out = [s.splat(0.0); W];
            for (row, (&k, &q)) in self.state.chunks_exact_mut(stride).zip(k.iter().zip(q)) {
                let (k, q) = (s.splat(k), s.splat(q));
                let row = vectors_mut::<W>(&mut row[first..]);
                for w in 0..W {
                    let new = s.add(s.mul(s.load(&row[w]), decay), s.mul(k, delta[w]));
                    s.store(new, &mut row[w]);
                    out[w] = s.add(out[w], s.mul(new, q));
                }
            }
            for (w, out) in out.iter().enumerate() {
                (self.emit)(t, first + w * LANES, &s.lanes(*out));
            }
        }
    }

    /// One column: the formula in plain words, for widths that are not whole vectors.
    #[inline(always)]
    fn column(&mut self, column: usize) {
        let stride = self.net.value_dim;
        for t in 0..self.tokens {
            let Token { q, k, v, decay, beta } = self.token(t);
            let product = self
                .state
                .chunks_exact(stride)
                .zip(k)
                .fold(0.0, |sum, (row, k)| sum + (row[column] * decay) * k);
            let delta = (v[column] - product) * beta;
            let mut out = 0.0;
            for (row, (k, q)) in self.state.chunks_exact_mut(stride).zip(k.iter().zip(q)) {
                row[column] = row[column] * decay + k * delta;
                out += row[column] * q;
            }
            (self.emit)(t, column, &[out]);
        }
    }
}

/// The first `W` vectors of a row; there are as many. An array, so that loops over it unroll.
#[inline(always)]
fn vectors<const W: usize>(row: &[f32]) -> &[[f32; LANES]; W] {
    row.as_chunks().0.first_chunk().expect("W vectors")
}

/// [`vectors`], to be changed.
#[inline(always)]
fn vectors_mut<const W: usize>(row: &mut [f32]) -> &mut [[f32; LANES]; W] {
    row.as_chunks_mut().0.first_chunk_mut().expect("W vectors")
}

impl<F: Fn(usize, usize, &[f32])> Kernel for Head<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let columns = self.net.value_dim;
        let mut first = 0;
        while columns - first >= 4 * LANES {
            self.columns::<S, 4>(s, first);
            first += 4 * LANES;
        }
        while columns - first >= LANES {
            self.columns::<S, 1>(s, first);
            first += LANES;
        }
        for column in first..columns {
            self.column(column);
        }
    }
}
