//! Terms of rows that lie in file order are transposed and added in the order of the contract, lane = row.

use std::arch::x86_64::*;

/// Lines of weights requested per 16 x 16 terms, about as many as come from memory while those are added.
const LINES: usize = 8;

/// The sums of rows whose terms lie in planes, row after row.
pub(super) struct RowSums<'a> {
    /// Planes of terms; after the last row's there are 16 more.
    pub terms: &'a [f32],
    /// Terms in a plane.
    pub plane: usize,
    /// Terms in a row.
    pub row_terms: usize,
    /// The weights to be requested meanwhile: memory would rest.
    pub ahead: *const u8,
}

impl RowSums<'_> {
    /// The sums of 16 rows for each token.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn of_tokens<const T: usize>(&self) -> [[f32; 16]; T] {
        let mut out = [[0.0; 16]; T];
        let sums = self.add::<T>(self.ahead, |t, row| t * self.plane + row * self.row_terms);
        for t in 0..T {
            // SAFETY: 16 floats.
            unsafe { _mm512_storeu_ps(out[t].as_mut_ptr(), sums[t]) };
        }
        out
    }

    /// The sums of `8 N` rows for each token less those of the minima, both of eight rows in one register.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn less_minima<const T: usize, const N: usize>(&self) -> [[f32; 16]; T] {
        let mut out = [[0.0; 16]; T];
        let mut ahead = self.ahead;
        for (t, out) in out.iter_mut().enumerate() {
            let place = |n, row| (t + row / 8 * T) * self.plane + (8 * n + row % 8) * self.row_terms;
            let sums = self.add::<N>(ahead, place);
            ahead = ahead.wrapping_add(64 * self.lines() * N * self.row_terms.div_ceil(16));
            for (sum, out) in sums.into_iter().zip(out.as_chunks_mut::<8>().0) {
                let less = _mm256_sub_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps::<1>(sum));
                // SAFETY: eight floats.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), less) };
            }
        }
        out
    }

    /// Lines to be requested per transposition.
    fn lines(&self) -> usize {
        LINES * self.row_terms.min(16) / 16
    }

    /// `N` times the sums of 16 rows, lane = row, whose terms are added one after the other. Those of row `r` of sums
    /// `n` begin at `place(n, r)`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn add<const N: usize>(&self, ahead: *const u8, place: impl Fn(usize, usize) -> usize) -> [__m512; N] {
        let (count, mut ahead) = (self.row_terms, ahead);
        let lines = self.lines();
        assert!(self.terms.len() >= place(N - 1, 15) + count + 16);
        let mut acc = [_mm512_setzero_ps(); N];
        for first in (0..count).step_by(16) {
            for n in 0..N {
                for line in 0..lines {
                    _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(64 * line).cast());
                }
                ahead = ahead.wrapping_add(64 * lines);
                let row = |r: usize| {
                    // SAFETY: `first < count`, and the last rows' terms are there, checked. What lies beyond a row's
                    // end is not added.
                    unsafe { _mm512_loadu_ps(self.terms.as_ptr().add(place(n, r) + first)) }
                };
                let columns = transpose(std::array::from_fn(row));
                for column in columns.iter().take(count - first) {
                    acc[n] = _mm512_add_ps(acc[n], *column);
                }
            }
        }
        acc
    }
}

/// Transposes 16 x 16 floats.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn transpose(rows: [__m512; 16]) -> [__m512; 16] {
    let mut a = rows;
    // Pairs of rows: a[4i + {0, 1, 2, 3}] becomes, in every 128-bit lane, columns 0 to 3 of rows 4i..4i + 4.
    for i in (0..16).step_by(4) {
        let (r0, r1, r2, r3) = (rows[i], rows[i + 1], rows[i + 2], rows[i + 3]);
        let low = [_mm512_unpacklo_ps(r0, r1), _mm512_unpacklo_ps(r2, r3)].map(|v| _mm512_castps_pd(v));
        let high = [_mm512_unpackhi_ps(r0, r1), _mm512_unpackhi_ps(r2, r3)].map(|v| _mm512_castps_pd(v));
        a[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(low[0], low[1]));
        a[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low[0], low[1]));
        a[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high[0], high[1]));
        a[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high[0], high[1]));
    }
    // Lane l of a[4i + c] is column 4l + c of rows 4i..4i + 4.
    let mut out = a;
    for c in 0..4 {
        let even = _mm512_shuffle_f32x4::<0x88>(a[c], a[4 + c]);
        let odd = _mm512_shuffle_f32x4::<0xdd>(a[c], a[4 + c]);
        let even2 = _mm512_shuffle_f32x4::<0x88>(a[8 + c], a[12 + c]);
        let odd2 = _mm512_shuffle_f32x4::<0xdd>(a[8 + c], a[12 + c]);
        out[c] = _mm512_shuffle_f32x4::<0x88>(even, even2);
        out[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
        out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even, even2);
        out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
    }
    out
}
