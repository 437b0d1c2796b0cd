//! Rewriting a graph for training: what must be kept apart for the way back stays apart.
//!
//! | pass | before | after |
//! |---|---|---|
//! | `identities`, `padding` | as for evaluation | |
//! | `batch_norm` | a batch norm of which nothing is trained, behind a layer | the layer, its weights folded |
//! | `add_to_norm` | `batch_norm(x) + y`, by the statistics of the batch, sole reader | the batch norm with y as its residual |
//! | `fuse_add` | `layer(x) + y`, sole reader | the layer with y as its residual |
//! | `activation` | ReLU or clamp of a layer, a batch norm or a sum, sole reader | the operation with it |
//!
//! Fully connected layers keep their flatten, and scaled residuals their scale: folding either would
//! have to be undone for the gradients of the weights.

use super::super::ir::{Graph, Op, Value, activation_name};
use super::super::passes;
use crate::conv::Activation;
use crate::layers::activation::Function;

/// Runs all passes; `outputs` are renamed where their operations are replaced.
pub(super) fn run(graph: &mut Graph, outputs: &mut [Value]) {
    passes::simplify_for_training(graph, outputs);
    passes::fold_batch_norm(graph, outputs);
    add_to_norm(graph, outputs);
    passes::fuse_add(graph, outputs);
    activation(graph, outputs);
    passes::fuse_activation(graph, outputs);
}

fn add_to_norm(graph: &mut Graph, outputs: &[Value]) {
    let readers = graph.readers(outputs);
    for value in 0..graph.nodes.len() {
        let Op::Add(_) = graph.nodes[value].op else { continue };
        let (a, b) = (graph.nodes[value].inputs[0], graph.nodes[value].inputs[1]);
        for (from, other) in [(a.max(b), a.min(b)), (a.min(b), a.max(b))] {
            let Op::TrainNorm(norm) = &mut graph.nodes[from].op else { continue };
            let open = norm.activation == Activation::Identity && !norm.residual;
            if readers[from] == 1 && open && norm.running.is_none() {
                norm.residual = true;
                graph.absorb(from, value, "add");
                graph.nodes[value].inputs.push(other);
                break;
            }
        }
    }
}

fn activation(graph: &mut Graph, outputs: &[Value]) {
    let readers = graph.readers(outputs);
    for value in 0..graph.nodes.len() {
        let Op::Map(Function::Clamp(function)) = graph.nodes[value].op else { continue };
        let from = graph.nodes[value].inputs[0];
        let Op::TrainNorm(norm) = &mut graph.nodes[from].op else { continue };
        if readers[from] == 1 && norm.activation == Activation::Identity {
            norm.activation = function;
            graph.absorb(from, value, activation_name(function));
        }
    }
}
