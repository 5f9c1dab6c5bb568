//! Stop strings in a stream: text that might be the beginning of one is held back until that is decided.

/// Watches a stream of text for the first stop string to be complete.
///
/// The result does not depend on how the text is cut into pieces: what ends first stops the text, and of two that
/// end together the one that begins first.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

impl StopMatcher {
    /// A watcher for these strings; empty ones are ignored.
    pub(crate) fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|s| !s.is_empty()).cloned().collect();
        Self { stops, held: String::new() }
    }

    /// Takes the next piece. Returns the text that may be shown, and whether a stop string is complete; that
    /// string and what follows it are not shown.
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        let first_end = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start)))
            .min();
        if let Some((_, start)) = first_end {
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), true);
        }
        let open = self.open_from();
        let held = self.held.split_off(open);
        (std::mem::replace(&mut self.held, held), false)
    }

    /// What was held back, when the text ends otherwise.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the longest end of the text begins that begins a stop string.
    fn open_from(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let first = self.held.len().saturating_sub(longest.saturating_sub(1));
        (first..self.held.len())
            .filter(|&at| self.held.is_char_boundary(at))
            .find(|&at| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..])))
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::StopMatcher;
    use proptest::prelude::*;

    /// Over the whole text at once: where the first stop string to end begins.
    fn naive(text: &str, stops: &[String]) -> (String, bool) {
        for end in 0..=text.len() {
            for start in 0..end {
                if stops.iter().any(|s| text.get(start..end) == Some(s)) {
                    return (text[..start].to_owned(), true);
                }
            }
        }
        (text.to_owned(), false)
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let mut matcher = StopMatcher::new(&stops);
            let (mut shown, mut stopped) = (String::new(), false);
            for piece in &pieces {
                let (text, stop) = matcher.push(piece);
                shown.push_str(&text);
                if stop {
                    stopped = true;
                    break;
                }
                // What is shown is never taken back, and no more is held than could begin a stop string.
                prop_assert!(matcher.held.len() < stops.iter().map(String::len).max().unwrap_or(1));
            }
            if !stopped {
                shown.push_str(&matcher.finish());
            }
            prop_assert_eq!((shown, stopped), naive(&pieces.concat(), &stops));
        }
    }

    #[test]
    fn a_partial_match_is_held_and_released() {
        let mut matcher = StopMatcher::new(&["\n\n".into(), "User:".into(), String::new()]);
        assert_eq!(matcher.push("Hi\n"), ("Hi".into(), false));
        assert_eq!(matcher.push("Us"), ("\n".into(), false));
        assert_eq!(matcher.push("e it"), ("Use it".into(), false));
        assert_eq!(matcher.push(" User: hello"), (" ".into(), true));
        assert_eq!(matcher.finish(), "");
    }
}
