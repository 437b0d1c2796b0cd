//! Operations that give back their input.

use super::super::ir::{Graph, Node, Op, Value};
use crate::layers::avg_pool::Divisor;
use crate::layers::windows::{Pool2d, Window};

pub(super) fn run(graph: &mut Graph, outputs: &mut [Value]) {
    for value in 0..graph.nodes.len() {
        if is_identity(graph, &graph.nodes[value]) {
            graph.bypass(value, outputs);
        }
    }
}

fn is_identity(graph: &Graph, node: &Node) -> bool {
    match &node.op {
        Op::Dropout => true,
        Op::MaxPool(pool) => sees_itself(pool),
        // The mean of one pixel is that pixel, whatever the padding around it would have counted.
        Op::AvgPool(pool, Divisor::Pixels) => sees_itself(pool),
        Op::Gather(gather, _) => gather.is_identity(),
        Op::Concat => node.inputs.len() == 1,
        Op::Channels(_) | Op::Flatten => node.shape == graph.nodes[node.inputs[0]].shape,
        _ => false,
    }
}

/// Whether window i is pixel i along both axes, as in the adaptive pooling of VGG and AlexNet over
/// images of the size they were made for.
fn sees_itself(pool: &Pool2d) -> bool {
    let along = |windows: &[Window], size: usize| {
        let mut places = windows.iter().enumerate();
        windows.len() == size && places.all(|(i, w)| w.taps == 1 && w.first == i)
    };
    along(&pool.rows, pool.input.0) && along(&pool.cols, pool.input.1)
}
