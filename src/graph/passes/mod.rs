//! Rewriting a graph before it becomes steps.
//!
//! Each pass is one walk over the operations, in this order. "Sole reader" means that no other
//! operation reads the value and it is no output of the graph; otherwise it must exist by itself.
//!
//! | pass | before | after |
//! |---|---|---|
//! | `unread` | operations that no output needs | nothing |
//! | `identities` | dropout, a pooling of single pixels, a padding with nothing, a concatenation of one, all channels of a value | their input |
//! | `flatten` | `linear(flatten(x))` | a convolution of x with a window as large as x |
//! | `padding` | a convolution of an image padded with zeros | a convolution with more padding |
//! | `batch_norm` | `batch_norm(layer(x))`, sole reader | the layer, its weights folded when they are packed |
//! | `pool_first` | `avg_pool(layer(x))`, a 1x1 layer, sole reader, smaller result | `layer(avg_pool(x))` |
//! | `scale` | `layer(x) * a + b`, sole reader | the layer, its weights and bias scaled when they are packed |
//! | `fuse_add` | `layer(x) + y`, sole reader | the layer with y as its residual |
//! | `fuse_activation` | ReLU or clamp of a layer, batch norm or sum, sole reader | the operation with it |
//!
//! A fused operation stands where the last of its parts stood, so that everything it reads has been
//! computed. Concatenation in place is not a rewriting but a question of where values lie: see
//! [`placement`](super::placement).

mod batch_norm;
mod flatten;
mod fuse;
mod identities;
mod padding;
mod pool_first;

use super::ir::{Graph, Layer, Op, Value};

/// Runs all passes; `outputs` are renamed where their operations are replaced.
pub(super) fn run(graph: &mut Graph, outputs: &mut [Value]) {
    graph.remove_unread(outputs);
    identities::run(graph, outputs);
    flatten::run(graph);
    padding::run(graph);
    graph.remove_unread(outputs);
    batch_norm::run(graph, outputs);
    pool_first::run(graph, outputs);
    batch_norm::scale(graph, outputs);
    fuse::add(graph, outputs);
    fuse::activation(graph, outputs);
}

pub(super) use batch_norm::run as fold_batch_norm;
pub(super) use fuse::{activation as fuse_activation, add as fuse_add};

/// The passes before layers grow, as far as training can go back through their results.
pub(super) fn simplify_for_training(graph: &mut Graph, outputs: &mut [Value]) {
    graph.remove_unread(outputs);
    identities::run(graph, outputs);
    padding::run(graph);
    graph.remove_unread(outputs);
}

impl Graph {
    /// Takes away what no output needs. Inputs stay.
    pub(super) fn remove_unread(&mut self, outputs: &[Value]) {
        let mut needed = vec![false; self.nodes.len()];
        outputs.iter().for_each(|&output| needed[output] = true);
        for value in (0..self.nodes.len()).rev() {
            let node = &mut self.nodes[value];
            match (needed[value], &node.op) {
                (true, _) => node.inputs.iter().for_each(|&input| needed[input] = true),
                (false, Op::Input(_)) => {}
                (false, _) => {
                    node.op = Op::Gone;
                    node.inputs.clear();
                }
            }
        }
    }

    /// How often each value is read, by operations and as an output.
    pub(super) fn readers(&self, outputs: &[Value]) -> Vec<usize> {
        let mut readers = vec![0; self.nodes.len()];
        let inputs = self.nodes.iter().flat_map(|node| &node.inputs);
        inputs.chain(outputs).for_each(|&value| readers[value] += 1);
        readers
    }

    /// Lets everybody who reads `value` read its first input instead.
    fn bypass(&mut self, value: Value, outputs: &mut [Value]) {
        let input = self.nodes[value].inputs[0];
        let inputs = self.nodes.iter_mut().flat_map(|node| &mut node.inputs);
        inputs.chain(outputs).filter(|v| **v == value).for_each(|v| *v = input);
        self.nodes[value].op = Op::Gone;
        self.nodes[value].inputs.clear();
    }

    /// The layer that computes `value`, if it can take something more behind its sums.
    fn open_layer(&mut self, value: Value) -> Option<&mut Layer> {
        match &mut self.nodes[value].op {
            Op::Layer(layer) if layer.activation == crate::conv::Activation::Identity => {
                Some(layer)
            }
            _ => None,
        }
    }

    /// Makes the operation of `from` compute `into`, reading what it read; `fused` says what it has
    /// taken over.
    pub(super) fn absorb(&mut self, from: Value, into: Value, fused: &'static str) {
        let gone = &mut self.nodes[from];
        let op = std::mem::replace(&mut gone.op, Op::Gone);
        let inputs = std::mem::take(&mut gone.inputs);
        let name = std::mem::take(&mut gone.name);
        let mut parts = std::mem::take(&mut gone.fused);
        parts.push(fused);
        let node = &mut self.nodes[into];
        (node.op, node.inputs, node.name, node.fused) = (op, inputs, name, parts);
    }
}
