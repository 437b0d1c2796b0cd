//! Average pooling behind a 1x1 layer, as in DenseNet's transitions.
//!
//! Both are linear, one across pixels and one across channels, so they may change places; pooling
//! first leaves the layer a quarter of the pixels. The bias comes through unchanged where every
//! window divides by the number of its pixels.

use super::super::ir::{Graph, Op, Shape, Value};
use crate::conv::Conv2d;
use crate::layers::avg_pool::Divisor;
use crate::layers::windows::Pool2d;

pub(super) fn run(graph: &mut Graph, outputs: &[Value]) {
    let readers = graph.readers(outputs);
    for value in 0..graph.nodes.len() {
        let Op::AvgPool(pool, divisor) = graph.nodes[value].op.clone() else { continue };
        let from = graph.nodes[value].inputs[0];
        let windows = pool.rows.len() * pool.cols.len();
        let smaller = windows < pool.input.0 * pool.input.1;
        if readers[from] != 1 || !smaller || !divides_by_pixels(&pool, divisor) {
            continue;
        }
        let Some(layer) = graph.open_layer(from).filter(|l| !l.linear && l.conv.is_pointwise())
        else {
            continue;
        };
        let channels = layer.conv.in_channels;
        let (height, width) = (pool.rows.len(), pool.cols.len());
        layer.conv = Conv2d { input: (height, width), output: (height, width), ..layer.conv };
        // The two nodes swap what they do: the earlier one pools, the later one multiplies.
        let inputs = std::mem::take(&mut graph.nodes[from].inputs);
        let shape = graph.nodes[value].shape;
        graph.nodes.swap(from, value);
        let pooling = &mut graph.nodes[from];
        pooling.op = Op::AvgPool(Pool2d { channels, ..pool }, divisor);
        pooling.shape = Shape::Image { channels, height, width };
        pooling.inputs = inputs;
        let layer = &mut graph.nodes[value];
        (layer.inputs, layer.shape) = (vec![from], shape);
    }
}

fn divides_by_pixels(pool: &Pool2d, divisor: Divisor) -> bool {
    let inside =
        |size: usize, w: &crate::layers::windows::Window| w.begin >= 0 && w.end <= size as i64;
    match divisor {
        Divisor::Pixels => pool.rows.iter().chain(&pool.cols).all(|w| w.taps > 0),
        Divisor::PaddedWindow => {
            pool.rows.iter().all(|w| inside(pool.input.0, w))
                && pool.cols.iter().all(|w| inside(pool.input.1, w))
        }
        Divisor::Fixed(_) => false,
    }
}
