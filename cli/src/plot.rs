//! The plot of `quant kv-table`: divergence against size, as an SVG file.

use std::fmt::Write;

/// One KV cache.
#[derive(Debug, Clone)]
pub struct Point {
    pub name: String,
    /// Bits of a stored number.
    pub bits: f64,
    /// Mean divergence.
    pub mean: f64,
    /// Divergence that one position of a thousand exceeds.
    pub high: f64,
}

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
/// What two labels keep between them, from line to line.
const LABEL: f64 = 15.0;

/// Where numbers lie on the paper.
struct Axes {
    bits: f64,
    /// Powers of ten at the bottom and at the top.
    decades: [i32; 2],
}

impl Axes {
    fn of(points: &[Point]) -> Self {
        let (mut bits, mut low, mut high) = (1f64, f64::INFINITY, 0f64);
        for point in points {
            bits = bits.max(point.bits);
            low = low.min(point.mean).min(point.high);
            high = high.max(point.mean).max(point.high);
        }
        let floor = |x: f64| x.log10().floor().clamp(-12.0, 6.0) as i32;
        let bottom = if low.is_finite() { floor(low) } else { -6 };
        Self { bits: (bits + 1.0).ceil(), decades: [bottom, floor(high.max(1e-12)).max(bottom) + 1] }
    }

    fn x(&self, bits: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * bits / self.bits
    }

    fn y(&self, divergence: f64) -> f64 {
        let [bottom, top] = self.decades.map(f64::from);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (divergence.log10() - bottom) / (top - bottom)
    }
}

/// Draws the points: the mean as a dot, the 99.9 % position as a ring above it. A divergence of zero has no place on a
/// logarithmic axis and is left out.
pub fn svg(title: &str, points: &[Point]) -> String {
    let mut points: Vec<Point> = points.iter().filter(|p| p.mean > 0.0 && p.high > 0.0).cloned().collect();
    points.sort_by(|a, b| a.bits.total_cmp(&b.bits));
    let axes = Axes::of(&points);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\" fill=\"#222\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    grid(&mut out, &axes);
    let mut taken: Vec<(f64, f64, f64)> = Vec::new();
    for point in &points {
        let (x, mean, high) = (axes.x(point.bits), axes.y(point.mean), axes.y(point.high));
        // Writing to a string can't fail, here and below.
        let _ = write!(
            out,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{high:.1}\" y2=\"{mean:.1}\" stroke=\"#8ab\"/>\n\
             <circle cx=\"{x:.1}\" cy=\"{high:.1}\" r=\"3.5\" fill=\"#fff\" stroke=\"#8ab\"/>\n\
             <circle cx=\"{x:.1}\" cy=\"{mean:.1}\" r=\"5\" fill=\"#1f5fa8\"/>\n"
        );
        let label = format!("{} ({:.2})", point.name, point.bits);
        // About how wide the letters are.
        let width = 7.2 * label.chars().count() as f64;
        let at = if x + 10.0 + width > WIDTH { x - 10.0 - width } else { x + 10.0 };
        let mut y = mean + 4.0;
        while taken
            .iter()
            .any(|&(left, right, line)| at < right && left < at + width && (y - line).abs() < LABEL)
        {
            y += LABEL;
        }
        taken.push((at, at + width, y));
        let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{y:.1}\">{}</text>", escaped(&label));
    }
    out += "</svg>\n";
    out
}

fn grid(out: &mut String, axes: &Axes) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let step = if axes.bits > 12.0 { 2 } else { 1 };
    for bits in (0..=axes.bits as u32).step_by(step) {
        let x = axes.x(f64::from(bits));
        let _ = write!(
            out,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#eee\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{bits}</text>\n",
            bottom + 20.0
        );
    }
    let [low, high] = axes.decades;
    for decade in low..=high {
        let y = axes.y(10f64.powi(decade));
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">1e{decade}</text>\n",
            LEFT - 8.0,
            y + 4.0
        );
    }
    let (x, y) = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
    let _ = write!(
        out,
        "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#888\"/>\n\
         <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">bits of a key or value, everything counted</text>\n\
         <text transform=\"translate(22 {y:.1}) rotate(-90)\" text-anchor=\"middle\">KL divergence from the exact \
         cache, nats: mean (dot), 99.9 % (ring)</text>\n",
        right - LEFT,
        bottom - TOP,
        bottom + 44.0
    );
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Point, svg};

    fn point(name: &str, bits: f64, mean: f64) -> Point {
        Point { name: name.to_owned(), bits, mean, high: 30.0 * mean }
    }

    #[test]
    fn every_point_is_on_the_paper() {
        let points = [
            point("8", 8.5, 2e-5),
            point("4 <&>", 4.6, 4e-3),
            point("also 4", 4.6, 4e-3),
            point("f16", 16.0, 0.0),
        ];
        let plot = svg("a \"title\"", &points);
        // two circles for each but the one without a divergence
        assert_eq!(plot.matches("<circle").count(), 6);
        assert!(plot.contains("4 &lt;&amp;&gt; (4.60)") && plot.contains("a &quot;title&quot;"));
        assert!(!plot.contains("f16") && !plot.contains("NaN") && !plot.contains("inf"));
        for part in plot.split(" cy=\"").skip(1) {
            let y: f64 = part.split('"').next().unwrap().parse().unwrap();
            assert!((50.0..=460.0).contains(&y), "{y}");
        }
        // the two labels of one place lie apart
        let line = |name: &str| {
            let end = plot.find(name).unwrap();
            let start = plot[..end].rfind("y=\"").unwrap() + 3;
            plot[start..].split('"').next().unwrap().parse::<f64>().unwrap()
        };
        assert!((line("4 &lt;") - line("also 4")).abs() >= 14.0);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let plot = svg("", &[]);
        assert!(plot.ends_with("</svg>\n") && !plot.contains("NaN"));
        svg("", &[point("x", f64::NAN, 1e-300), point("y", 1.0, f64::INFINITY)]);
    }
}
