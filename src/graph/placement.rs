//! Where values lie: in rows of their own, or in a range of columns of a wider value.
//!
//! A slice of channels is a range of its input's columns. A concatenation is the wide value, and
//! what its inputs' producers write goes into its columns at once, if three things hold: the input
//! is computed by an operation (not the caller's array), it may lie in wider rows (an output of the
//! graph may not, nor the image that a fully connected layer reads as one row), and its producer
//! reads nothing from the rows it would then write to. Otherwise the concatenation copies it.
//!
//! Concatenations are placed last to first. In a dense block each is a prefix of the one behind it:
//! all its inputs then already lie side by side, and it is a range of columns itself.

use super::ir::{Graph, Op, Value};

/// For each value, the value whose rows hold it, and its first column there.
pub(super) struct Placement {
    parents: Vec<Option<(Value, usize)>>,
}

impl Placement {
    /// Places every value. Those of `outputs` keep rows of their own.
    pub(super) fn new(graph: &Graph, outputs: &[Value]) -> Self {
        let mut placement = Self::views(graph);
        let pinned: Vec<Value> = outputs.iter().copied().chain(flattened(graph)).collect();
        for value in (0..graph.nodes.len()).rev() {
            if matches!(graph.nodes[value].op, Op::Concat) {
                placement.place_concat(graph, value, &pinned);
            }
        }
        placement
    }

    /// Only what lies in another value by its nature: slices of channels, and a flatten of single
    /// pixels.
    pub(super) fn views(graph: &Graph) -> Self {
        let parent = |node: &super::ir::Node| match node.op {
            Op::Channels(first) => Some((node.inputs[0], first)),
            Op::Flatten if graph.nodes[node.inputs[0]].shape.pixels() == 1 => {
                Some((node.inputs[0], 0))
            }
            _ => None,
        };
        Placement { parents: graph.nodes.iter().map(parent).collect() }
    }

    /// The value whose rows hold `value`, and the first column.
    pub(super) fn find(&self, value: Value) -> (Value, usize) {
        let (mut root, mut column) = (value, 0);
        while let Some((parent, first)) = self.parents[root] {
            (root, column) = (parent, column + first);
        }
        (root, column)
    }

    /// Whether `value` is a range of columns of another one.
    pub(super) fn is_view(&self, value: Value) -> bool {
        self.parents[value].is_some()
    }

    /// Whether the input of a concatenation lies where the concatenation wants it.
    pub(super) fn is_in_place(&self, input: Value, concat: Value, first: usize) -> bool {
        let (root, column) = self.find(concat);
        self.find(input) == (root, column + first)
    }

    fn place_concat(&mut self, graph: &Graph, concat: Value, pinned: &[Value]) {
        let inputs = &graph.nodes[concat].inputs;
        let first_columns = first_columns(graph, concat);
        if !pinned.contains(&concat) && self.parents[concat].is_none() {
            let (root, column) = self.find(inputs[0]);
            let together = root != inputs[0]
                && inputs
                    .iter()
                    .zip(&first_columns)
                    .all(|(&input, first)| self.find(input) == (root, column + first));
            if together {
                self.parents[concat] = Some((root, column));
                if self.is_sound(graph, root) {
                    return;
                }
                self.parents[concat] = None;
            }
        }
        // Concatenations among the inputs go first, with all that they hold: rather one value is
        // copied into the wide rows than several into the narrow ones.
        for nested in [true, false] {
            for (&input, &first) in inputs.iter().zip(&first_columns) {
                let op = &graph.nodes[input].op;
                let free = self.parents[input].is_none() && !pinned.contains(&input);
                if !free || matches!(op, Op::Input(_)) || matches!(op, Op::Concat) != nested {
                    continue;
                }
                self.parents[input] = Some((concat, first));
                if !self.is_sound(graph, self.find(concat).0) {
                    self.parents[input] = None;
                } else if nested {
                    self.place_concat(graph, input, pinned);
                }
            }
        }
    }

    /// Whether no operation that writes to the rows of `root` also reads from them.
    fn is_sound(&self, graph: &Graph, root: Value) -> bool {
        graph.nodes.iter().enumerate().all(|(value, node)| {
            let writes = self.find(value).0 == root;
            let first_columns = match node.op {
                Op::Concat if writes => first_columns(graph, value),
                Op::Channels(_) | Op::Input(_) | Op::Gone => return true,
                Op::Flatten if self.is_view(value) => return true,
                _ => vec![],
            };
            !writes
                || node.inputs.iter().enumerate().all(|(index, &input)| {
                    let in_place = first_columns
                        .get(index)
                        .is_some_and(|&first| self.is_in_place(input, value, first));
                    in_place || self.find(input).0 != root
                })
        })
    }
}

/// Images that fully connected layers read as one row.
fn flattened(graph: &Graph) -> impl Iterator<Item = Value> {
    graph.nodes.iter().filter_map(|node| match &node.op {
        Op::Layer(layer) if layer.linear => {
            node.inputs.first().copied().filter(|&input| graph.nodes[input].shape.pixels() > 1)
        }
        _ => None,
    })
}

/// First column of each input of a concatenation.
pub(super) fn first_columns(graph: &Graph, concat: Value) -> Vec<usize> {
    let widths =
        graph.nodes[concat].inputs.iter().map(|&input| graph.nodes[input].shape.channels());
    widths
        .scan(0, |next, width| {
            let first = *next;
            *next += width;
            Some(first)
        })
        .collect()
}
