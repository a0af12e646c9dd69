//! Tokens by their prefixes.

/// A trie over bytes. Children of a node are a sorted run of edges.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    edges: Vec<(u8, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    first_edge: u32,
    edges: u32,
    value: u32,
}

const NO_VALUE: u32 = u32::MAX;

impl Trie {
    /// Of texts that occur twice the last one counts.
    pub fn new<'a>(entries: impl Iterator<Item = (u32, &'a [u8])>) -> Self {
        let mut entries: Vec<(&[u8], u32)> = entries.map(|(id, text)| (text, id)).collect();
        entries.sort_by_key(|&(text, _)| text);
        let mut trie = Self {
            nodes: vec![Node {
                first_edge: 0,
                edges: 0,
                value: NO_VALUE,
            }],
            edges: Vec::new(),
        };
        // Breadth first: (node, depth, its entries), so that the edges of a node stand together.
        let mut queue = std::collections::VecDeque::from([(0u32, 0usize, 0..entries.len())]);
        while let Some((node, depth, mut range)) = queue.pop_front() {
            while !range.is_empty() && entries[range.start].0.len() == depth {
                trie.nodes[node as usize].value = entries[range.start].1;
                range.start += 1;
            }
            trie.nodes[node as usize].first_edge = trie.edges.len() as u32;
            while !range.is_empty() {
                let byte = entries[range.start].0[depth];
                let same = entries[range.clone()].partition_point(|(text, _)| text[depth] <= byte);
                let child = trie.nodes.len() as u32;
                trie.nodes.push(Node {
                    first_edge: 0,
                    edges: 0,
                    value: NO_VALUE,
                });
                trie.edges.push((byte, child));
                trie.nodes[node as usize].edges += 1;
                queue.push_back((child, depth + 1, range.start..range.start + same));
                range.start += same;
            }
        }
        trie
    }

    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        let node = &self.nodes[node as usize];
        let from = node.first_edge as usize;
        let edges = &self.edges[from..from + node.edges as usize];
        let at = edges.binary_search_by_key(&byte, |edge| edge.0).ok()?;
        Some(edges[at].1)
    }

    /// The entries that the text begins with, as (length, value), the shortest first.
    pub fn prefixes(&self, text: &[u8]) -> impl Iterator<Item = (usize, u32)> {
        let mut node = Some(0);
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                let next = self.child(node?, *text.get(at)?);
                node = next;
                at += 1;
                let value = self.nodes[next? as usize].value;
                if value != NO_VALUE {
                    return Some((at, value));
                }
            }
        })
    }

    /// The longest entry that the text begins with, as (length, value).
    pub fn longest_prefix(&self, text: &[u8]) -> Option<(usize, u32)> {
        self.prefixes(text).last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_all_prefixes() {
        let words: [&[u8]; 4] = [b"a", b"abc", b"ab", b"b"];
        let trie = Trie::new((0..).zip(words));
        let found: Vec<_> = trie.prefixes(b"abd").collect();
        assert_eq!(found, [(1, 0), (2, 2)]);
        assert_eq!(trie.longest_prefix(b"abcd"), Some((3, 1)));
        assert_eq!(trie.longest_prefix(b"x"), None);
        assert_eq!(trie.longest_prefix(b""), None);
    }
}
