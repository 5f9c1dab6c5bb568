//! A tree of pages that sequences had in common: from which stored pages a new sequence of tokens can start.
//!
//! A node is one full page: its [`PAGE`] tokens and what was computed for them. What was computed depends on every
//! token before, so a page is found by its path from the root, never by its own tokens alone:
//!
//! ```text
//! root ── "You are a helpful" ── "assistant. Answer" ── "in English: why is"    conversation 1
//!                            └── "assistant. Speak " ── "like a pirate. Tell"    conversation 2
//! ```
//!
//! Children are found by a hash of their tokens and then compared token by token: a collision costs a hit, never a wrong
//! answer. Only leaves are given up, the least recently used one first; time is counted in uses, not in seconds.

use crate::PAGE;
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

/// A page of the tree, as long as it is not evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(usize);

#[derive(Debug)]
struct Node<P> {
    parent: Option<NodeId>,
    tokens: Box<[u32]>,
    children: HashMap<u64, NodeId>,
    used: u64,
    page: P,
}

/// Pages by the tokens that led to them; `P` is what the cache keeps of a page.
#[derive(Debug)]
pub(crate) struct PrefixTree<P> {
    nodes: Vec<Option<Node<P>>>,
    free: Vec<NodeId>,
    roots: HashMap<u64, NodeId>,
    /// Nodes without children by their last use.
    leaves: BTreeSet<(u64, NodeId)>,
    uses: u64,
}

impl<P> Default for PrefixTree<P> {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), roots: HashMap::new(), leaves: BTreeSet::new(), uses: 0 }
    }
}

impl<P> PrefixTree<P> {
    /// Pages in the tree.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// What is kept of a page.
    pub fn page(&self, id: NodeId) -> Option<&P> {
        self.node(id).map(|node| &node.page)
    }

    /// The same, to be completed.
    pub fn page_mut(&mut self, id: NodeId) -> Option<&mut P> {
        self.node_mut(id).map(|node| &mut node.page)
    }

    /// The page of these tokens that follows `parent`, or that begins a sequence. This is a use.
    pub fn child(&mut self, parent: Option<NodeId>, tokens: &[u32]) -> Option<NodeId> {
        let id = *self.children(parent)?.get(&hash(tokens))?;
        if *self.node(id)?.tokens != *tokens {
            return None;
        }
        self.touch(id);
        Some(id)
    }

    /// Whether some page of the tree was made of the first tokens, as many as a page has. This is no use.
    pub fn knows(&self, tokens: &[u32]) -> bool {
        let Some(page) = tokens.get(..PAGE) else { return false };
        (0..self.nodes.len()).any(|id| self.node(NodeId(id)).is_some_and(|node| *node.tokens == *page))
    }

    /// The longest run of pages, beginning anywhere in the tree, that `tokens` begin with. This is a use of each.
    pub fn run(&mut self, tokens: &[u32]) -> Vec<NodeId> {
        let mut pages = tokens.chunks_exact(PAGE);
        let Some(first) = pages.next() else { return Vec::new() };
        let begins = |id: &NodeId| self.node(*id).is_some_and(|node| *node.tokens == *first);
        let starts: Vec<NodeId> = (0..self.nodes.len()).map(NodeId).filter(begins).collect();
        let mut longest = Vec::new();
        for start in starts {
            self.touch(start);
            let mut run = vec![start];
            for page in pages.clone() {
                match self.child(run.last().copied(), page) {
                    Some(id) => run.push(id),
                    None => break,
                }
            }
            if run.len() > longest.len() {
                longest = run;
            }
        }
        longest
    }

    fn touch(&mut self, id: NodeId) {
        self.uses += 1;
        let uses = self.uses;
        let Some(node) = self.node_mut(id) else { return };
        let last = std::mem::replace(&mut node.used, uses);
        if self.leaves.remove(&(last, id)) {
            self.leaves.insert((uses, id));
        }
    }

    /// The longest path of whole pages that `tokens` begin with. This is a use of each.
    pub fn path(&mut self, tokens: &[u32]) -> Vec<NodeId> {
        let mut path = Vec::new();
        for page in tokens.chunks_exact(PAGE) {
            match self.child(path.last().copied(), page) {
                Some(id) => path.push(id),
                None => break,
            }
        }
        path
    }

    /// Adds a page after `parent`, or as a beginning. Gives the page back if `parent` is gone, or the place is taken: by
    /// the same tokens, or by others of the same hash.
    pub fn insert(&mut self, parent: Option<NodeId>, tokens: &[u32], page: P) -> Result<NodeId, P> {
        let key = hash(tokens);
        if self.children(parent).is_none_or(|children| children.contains_key(&key)) {
            return Err(page);
        }
        self.uses += 1;
        let used = self.uses;
        let node = Node { parent, tokens: tokens.into(), children: HashMap::new(), used, page };
        let id = if let Some(id) = self.free.pop() {
            self.nodes[id.0] = Some(node);
            id
        } else {
            self.nodes.push(Some(node));
            NodeId(self.nodes.len() - 1)
        };
        match parent {
            None => {
                self.roots.insert(key, id);
            }
            Some(parent) => {
                if let Some(node) = self.node_mut(parent) {
                    node.children.insert(key, id);
                    let used = node.used;
                    self.leaves.remove(&(used, parent));
                }
            }
        }
        self.leaves.insert((used, id));
        Ok(id)
    }

    /// Removes the least recently used leaf of those that `can_go`, and returns what was kept of it.
    pub fn evict(&mut self, mut can_go: impl FnMut(&P) -> bool) -> Option<P> {
        let gone = |id: &NodeId| self.node(*id).is_some_and(|node| can_go(&node.page));
        let id = self.leaves.iter().map(|&(_, id)| id).find(gone)?;
        let node = self.nodes.get_mut(id.0)?.take()?;
        self.free.push(id);
        self.leaves.remove(&(node.used, id));
        let key = hash(&node.tokens);
        match node.parent {
            None => {
                self.roots.remove(&key);
            }
            Some(parent) => {
                if let Some(above) = self.node_mut(parent) {
                    above.children.remove(&key);
                    if above.children.is_empty() {
                        let used = above.used;
                        self.leaves.insert((used, parent));
                    }
                }
            }
        }
        Some(node.page)
    }

    fn children(&self, parent: Option<NodeId>) -> Option<&HashMap<u64, NodeId>> {
        match parent {
            None => Some(&self.roots),
            Some(parent) => self.node(parent).map(|node| &node.children),
        }
    }

    fn node(&self, id: NodeId) -> Option<&Node<P>> {
        self.nodes.get(id.0)?.as_ref()
    }

    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node<P>> {
        self.nodes.get_mut(id.0)?.as_mut()
    }
}

fn hash(tokens: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    tokens.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::{NodeId, PAGE, PrefixTree};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A sequence of whole pages, each of one repeated token.
    fn tokens(pages: &[u32]) -> Vec<u32> {
        pages.iter().flat_map(|&token| [token; PAGE]).collect()
    }

    /// Adds all pages of a sequence; a page is remembered as the tokens of its path.
    fn insert(tree: &mut PrefixTree<Vec<u32>>, pages: &[u32]) {
        let mut parent = None;
        for end in 1..=pages.len() {
            let page = [pages[end - 1]; PAGE];
            let id = tree.child(parent, &page);
            parent = Some(id.unwrap_or_else(|| tree.insert(parent, &page, pages[..end].to_vec()).unwrap()));
        }
    }

    #[test]
    fn finds_the_longest_path_of_whole_pages() {
        let mut tree = PrefixTree::default();
        insert(&mut tree, &[1, 2, 3]);
        insert(&mut tree, &[1, 2, 4]);
        insert(&mut tree, &[2]);
        assert_eq!(tree.len(), 5);
        let mut found = |query: &[u32]| {
            let path: Vec<NodeId> = tree.path(query);
            path.last().map(|&id| tree.page(id).unwrap().clone())
        };
        assert_eq!(found(&tokens(&[1, 2, 4, 9])), Some(vec![1, 2, 4]));
        assert_eq!(found(&tokens(&[1, 9])), Some(vec![1]));
        assert_eq!(found(&tokens(&[2, 3])), Some(vec![2]), "3 follows 1, 2 only");
        assert_eq!(found(&tokens(&[3])), None);
        assert_eq!(found(&tokens(&[1, 2])[..2 * PAGE - 1]), Some(vec![1]), "half a page is none");
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn finds_the_longest_run_anywhere() {
        let mut tree = PrefixTree::default();
        insert(&mut tree, &[1, 2, 3]);
        insert(&mut tree, &[2, 4, 5, 6]);
        let mut found = |query: &[u32]| {
            let run = tree.run(&tokens(query));
            (run.first().map(|&id| tree.page(id).unwrap().clone()), run.len())
        };
        assert_eq!(found(&[2, 3, 9]), (Some(vec![1, 2]), 2));
        assert_eq!(found(&[2, 4, 5]), (Some(vec![2]), 3));
        assert_eq!(found(&[5, 6, 7]), (Some(vec![2, 4, 5]), 2));
        assert_eq!(found(&[7]), (None, 0));
        assert_eq!(tree.run(&[1; PAGE - 1]), []);
    }

    #[test]
    fn what_is_there_is_not_replaced() {
        let mut tree = PrefixTree::default();
        let first = tree.insert(None, &[1; PAGE], "a").unwrap();
        assert_eq!(tree.insert(None, &[1; PAGE], "b"), Err("b"));
        assert_eq!(tree.evict(|_| true), Some("a"));
        assert_eq!(tree.insert(Some(first), &[2; PAGE], "c"), Err("c"), "its parent is gone");
        assert_eq!((tree.len(), tree.evict(|_| true)), (0, None));
    }

    #[test]
    fn the_least_recently_used_leaf_goes_first_and_never_a_parent() {
        let mut tree = PrefixTree::default();
        insert(&mut tree, &[1, 2]);
        insert(&mut tree, &[3]);
        insert(&mut tree, &[1, 4]);
        tree.path(&tokens(&[1, 2]));
        assert_eq!(tree.evict(|page| *page != [3]), Some(vec![1, 4]), "3 is older but in use");
        assert_eq!(tree.evict(|_| true), Some(vec![3]));
        assert_eq!(tree.evict(|_| true), Some(vec![1, 2]));
        assert_eq!(tree.evict(|_| true), Some(vec![1]));
        assert_eq!(tree.evict(|_| true), None);
    }

    proptest! {
        /// Against a map from paths to last uses.
        #[test]
        fn is_a_map_from_paths(steps in prop::collection::vec(
            (prop::collection::vec(0..3u32, 1..5), 0..3u8), 1..60)) {
            let mut tree = PrefixTree::default();
            let mut model: BTreeMap<Vec<u32>, u64> = BTreeMap::new();
            let mut clock = 0;
            for (pages, what) in steps {
                if what == 0 {
                    let leaf = |path: &Vec<u32>| {
                        !model.keys().any(|other| other.len() > path.len() && other.starts_with(path))
                    };
                    let oldest = model.iter().filter(|(path, _)| leaf(path)).min_by_key(|(_, used)| **used);
                    let expected = oldest.map(|(path, _)| path.clone());
                    if let Some(path) = &expected {
                        model.remove(path);
                    }
                    prop_assert_eq!(tree.evict(|_| true), expected);
                    continue;
                }
                if what == 1 {
                    insert(&mut tree, &pages);
                } else {
                    let known = (0..=pages.len()).rev().find(|&n| n == 0 || model.contains_key(&pages[..n]));
                    prop_assert_eq!(Some(tree.path(&tokens(&pages)).len()), known);
                }
                for end in 1..=pages.len() {
                    if what == 1 || model.contains_key(&pages[..end]) {
                        clock += 1;
                        model.insert(pages[..end].to_vec(), clock);
                    }
                }
                prop_assert_eq!(tree.len(), model.len());
            }
        }
    }
}
