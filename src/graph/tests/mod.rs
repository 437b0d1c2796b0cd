//! Plans against the eager kernels, run node by node over the graph as it was built.

mod net;
mod training;

use super::*;
use crate::conv::reference::{close, values};
use crate::conv::{Activation, Padding, Precision};
use crate::layers::activation::Function;
use crate::layers::avg_pool::Divisor;
use crate::layers::gather::{Border, Every};
use crate::layers::response_norm::ResponseNorm;
use crate::layers::testing::same_for_any_thread_count;

use net::{Net, OPTIONS, sliding};

#[test]
fn every_operation_agrees_with_its_eager_kernel() {
    type Build = fn(&mut Net, Value) -> Value;
    let table: &[(&str, Build)] = &[
        ("conv2d", |n, x| n.conv(x, 7, 3, 2)),
        ("batch_norm", Net::norm),
        ("relu", Net::relu),
        ("clamp", |n, x| {
            n.graph.map(x, Function::Clamp(Activation::Clamp(-0.1, 0.3)), "").unwrap()
        }),
        ("sigmoid", |n, x| n.graph.map(x, Function::Sigmoid, "").unwrap()),
        ("tanh", |n, x| n.graph.map(x, Function::Tanh, "").unwrap()),
        ("scale", |n, x| n.graph.map(x, Function::Scale(0.5, -1.0), "").unwrap()),
        ("add", |n, x| n.add(x, x)),
        ("max_pool2d", |n, x| n.graph.max_pool2d(x, sliding(3, 2, 1, true), "").unwrap()),
        ("avg_pool2d", |n, x| {
            n.graph.avg_pool2d(x, sliding(3, 2, 1, true), Divisor::PaddedWindow, "").unwrap()
        }),
        ("avg_pool2d", |n, x| n.mean(x, 2)),
        ("max_pool2d", |n, x| n.graph.adaptive_max_pool2d(x, (2, 3), "").unwrap()),
        ("pad", |n, x| {
            let border = Border::Constant(-1.5);
            n.graph.pad(x, Padding { top: 1, ..Default::default() }, (2, 3), border, "").unwrap()
        }),
        ("pad", |n, x| {
            n.graph.pad(x, Padding::symmetric(2, 1), (0, 0), Border::Reflect, "").unwrap()
        }),
        ("slice", |n, x| {
            let every = |count| Every { first: 1, count, step: 2 };
            n.graph.slice(x, every(2), every(3), "").unwrap()
        }),
        ("interpolate", |n, x| n.graph.nearest2d(x, (13, 4), (None, None), false, "").unwrap()),
        ("interpolate", |n, x| n.graph.bilinear2d(x, (13, 4), (None, None), true, "").unwrap()),
        ("local_response_norm", |n, x| {
            n.graph.response_norm(x, ResponseNorm::new(5, 0.5, 0.75, 2.0).unwrap(), "").unwrap()
        }),
        ("copy", |n, x| n.pad(x, 0)),
        ("flatten", Net::flatten),
        ("softmax", |n, x| n.graph.softmax(x, false, "").unwrap()),
        ("log_softmax", |n, x| n.graph.softmax(x, true, "").unwrap()),
        ("copy", |n, x| n.graph.channels(x, 2, 3, "").unwrap()),
        ("copy", |n, x| n.graph.dropout(x, "").unwrap()),
    ];
    for (op, build) in table {
        for (channels, size) in [(5, 6), (40, 9)] {
            let (mut net, x) = Net::image(channels, size, size + 1);
            let y = build(&mut net, x);
            assert_eq!(net.check(&[y]), [*op]);
        }
    }
}

#[test]
fn vectors_go_through_layers_norms_and_softmax() {
    let mut net = Net::default();
    let x = net.graph.input(Shape::Vector(13)).unwrap();
    let y = net.linear(x, 9);
    let y = net.norm(y);
    let y = net.relu(y);
    let z = net.linear(y, 4);
    let z = net.graph.softmax(z, false, "softmax").unwrap();
    assert_eq!(net.check(&[z]), ["linear+batch_norm+relu", "linear", "softmax"]);
    assert_eq!(net.check(&[y, z])[0], "linear+batch_norm+relu");
}

#[test]
fn residual_sums_are_fused_in_either_order() {
    for swapped in [false, true] {
        for downsample in [false, true] {
            for with_norm in [false, true] {
                let (mut net, x) = Net::image(6, 8, 8);
                let x = net.conv(x, 6, 1, 1);
                let mut y = net.conv(x, 6, 3, 1);
                if with_norm {
                    y = net.norm(y);
                }
                let identity = if downsample { net.conv(x, 6, 1, 1) } else { x };
                let sum = if swapped { net.add(identity, y) } else { net.add(y, identity) };
                let sum = net.relu(sum);
                let steps = net.check(&[sum]);
                let last = if with_norm && !downsample {
                    "conv2d+batch_norm+add+relu"
                } else {
                    "conv2d+add+relu"
                };
                assert_eq!(steps.last().unwrap(), last, "{steps:?}");
                assert_eq!(steps.len(), 2 + usize::from(downsample));
            }
        }
    }
}

#[test]
fn convolutions_add_the_zeros_around_their_input() {
    for (channels, kernel, stride) in [(3, 3, 1), (3, 7, 2), (40, 3, 1), (5, 1, 2)] {
        let (mut net, x) = Net::image(channels, 9, 8);
        let x = net.relu(x);
        let padded = net.pad(x, 2);
        let y = net.conv(padded, 6, kernel, stride);
        assert_eq!(net.check(&[y]), ["relu", "conv2d+pad"]);
        assert_eq!(net.check(&[y, padded]), ["relu", "pad", "conv2d+pad"]);
        // Only zeros, and only around the image.
        let border = Border::Constant(1.0);
        let ones = net.graph.pad(x, Padding::symmetric(1, 1), (0, 0), border, "pad").unwrap();
        let y = net.conv(ones, 6, kernel, stride);
        assert_eq!(net.check(&[y]), ["relu", "pad", "conv2d"]);
    }
}

#[test]
fn scaled_residuals_are_one_step() {
    let (mut net, x) = Net::image(6, 8, 8);
    let x = net.relu(x);
    let y = net.conv(x, 6, 3, 1);
    let scaled = net.scale(y, 0.17, -0.0);
    let sum = net.add(scaled, x);
    let sum = net.relu(sum);
    assert_eq!(net.check(&[sum]), ["relu", "conv2d+scale+add+relu"]);
    assert_eq!(net.check(&[sum, y]), ["relu", "conv2d", "scale", "add+relu"]);
    // Behind a batch norm; a second one finds no place.
    let normed = net.norm(y);
    let once = net.scale(normed, -2.0, 0.5);
    assert_eq!(net.check(&[once]), ["relu", "conv2d+batch_norm+scale"]);
    let twice = net.scale(once, 0.5, 1.0);
    assert_eq!(net.check(&[twice]), ["relu", "conv2d+batch_norm+scale", "scale"]);
    // What is not finite would not leave the weights as they are where it is multiplied by 0.
    let endless = net.scale(y, f32::INFINITY, 0.0);
    let endless = net.scale(endless, 0.0, 1.0);
    assert_eq!(net.compile(&[endless], &PackedWeights::new()).steps().count(), 4);
    let flat = net.flatten(x);
    let rows = net.linear(flat, 5);
    let rows = net.scale(rows, 3.0, 1.0);
    assert_eq!(net.check(&[rows]), ["relu", "linear+flatten+scale"]);
}

#[test]
fn layers_of_one_weight_and_several_scales_are_packed_apart() {
    let (mut net, x) = Net::image(6, 8, 8);
    let y = net.conv(x, 6, 3, 1);
    let scaled = net.scale(y, 3.0, 0.0);
    let packed = PackedWeights::new();
    let plans = [net.compile(&[y], &packed), net.compile(&[scaled], &packed)];
    let input = net.inputs(1).remove(0);
    let [plain, tripled] = plans.each_ref().map(|plan| plan.run(1, &[&input]).unwrap().remove(0));
    assert!(close(&tripled, &plain.iter().map(|v| 3.0 * v).collect::<Vec<_>>(), 1e-6));
    assert_eq!(packed.len(), 2);
}

#[test]
fn what_others_read_stays_by_itself() {
    let (mut net, x) = Net::image(4, 6, 6);
    let y = net.conv(x, 4, 3, 1);
    let normed = net.norm(y);
    let active = net.relu(normed);
    // The convolution's own value is an output: nothing may be drawn into it.
    assert_eq!(net.check(&[active, y]), ["conv2d", "batch_norm+relu"]);
    assert_eq!(net.check(&[active, normed]), ["conv2d+batch_norm", "relu"]);
    assert_eq!(net.check(&[active]), ["conv2d+batch_norm+relu"]);
    // A sum of one value with itself has two readers of it.
    let twice = net.add(y, y);
    assert_eq!(net.check(&[twice]), ["conv2d", "add"]);
    // Only the first of two residuals fits into a layer, only the first activation too.
    let sum = net.add(y, x);
    let sum = net.add(sum, x);
    let sum = net.relu(sum);
    let sum = net.graph.map(sum, Function::Clamp(Activation::Clamp(0.0, 0.5)), "clamp").unwrap();
    assert_eq!(net.check(&[sum]), ["conv2d+add", "add+relu", "clamp"]);
}

#[test]
fn a_norm_behind_an_activation_is_not_folded() {
    let (mut net, x) = Net::image(4, 6, 6);
    let y = net.conv(x, 4, 3, 1);
    let y = net.relu(y);
    let y = net.norm(y);
    let y = net.norm(y);
    assert_eq!(net.check(&[y]), ["conv2d+relu", "batch_norm", "batch_norm"]);
}

#[test]
fn a_classifier_reads_the_image_through_its_flatten() {
    let (mut net, x) = Net::image(3, 9, 9);
    let y = net.conv(x, 20, 3, 1);
    let y = net.mean(y, 4);
    let flat = net.flatten(y);
    let dropped = net.graph.dropout(flat, "dropout").unwrap();
    let z = net.linear(dropped, 11);
    assert_eq!(net.check(&[z]), ["conv2d", "avg_pool2d", "linear+flatten"]);
    assert_eq!(net.check(&[z, flat]), ["conv2d", "avg_pool2d", "flatten", "linear+flatten"]);
    // Pooled to one pixel, and to as many as there are.
    for (size, steps) in [(1, 3), (9, 2)] {
        let (mut net, x) = Net::image(3, 9, 9);
        let y = net.conv(x, 20, 3, 1);
        let y = net.mean(y, size);
        let flat = net.flatten(y);
        let z = net.linear(flat, 11);
        assert_eq!(net.check(&[z]).len(), steps);
        assert_eq!(net.check(&[flat]).len(), 2);
    }
}

#[test]
fn what_a_classifier_reads_as_one_row_has_no_gaps() {
    let (mut net, x) = Net::image(3, 4, 4);
    let a = net.conv(x, 5, 3, 1);
    let b = net.conv(x, 6, 3, 1);
    let cat = net.concat(&[a, b]);
    let part = net.graph.channels(b, 2, 3, "part").unwrap();
    let scores: Vec<Value> = [a, cat, part]
        .iter()
        .map(|&image| {
            let flat = net.flatten(image);
            net.linear(flat, 7)
        })
        .collect();
    let steps = net.check(&scores);
    assert_eq!(steps.iter().filter(|s| *s == "linear+flatten").count(), 2, "{steps:?}");
    let norm = net.norm(scores[1]);
    net.check(&[norm]);
}

#[test]
fn branches_write_into_their_concatenation() {
    let (mut net, x) = Net::image(5, 8, 8);
    let stem = net.conv(x, 9, 3, 1);
    let a = net.conv(stem, 6, 1, 1);
    let b = net.conv(stem, 5, 3, 1);
    let b = net.norm(b);
    let b = net.relu(b);
    let c = net.graph.max_pool2d(stem, sliding(3, 1, 1, false), "pool").unwrap();
    let cat = net.concat(&[a, b, c]);
    let y = net.conv(cat, 4, 1, 1);
    let steps = net.check(&[y]);
    assert_eq!(
        steps,
        ["conv2d", "conv2d+concat", "conv2d+batch_norm+relu+concat", "max_pool2d+concat", "conv2d"]
    );
    // As an output it is written in place too; an output among its inputs is copied.
    assert_eq!(net.check(&[cat]).len(), 4);
    assert_eq!(net.check(&[cat, a])[4], "copy");
    // Concatenations of concatenations, of inputs, of a value twice.
    let wide = net.concat(&[cat, stem]);
    let twice = net.concat(&[y, y]);
    let with_input = net.concat(&[x, y]);
    assert_eq!(net.check(&[wide]).iter().filter(|s| *s == "copy").count(), 1);
    assert_eq!(net.check(&[twice]).iter().filter(|s| *s == "copy").count(), 2);
    assert_eq!(net.check(&[with_input]).iter().filter(|s| *s == "copy").count(), 1);
    net.check(&[wide, twice, with_input, cat, stem]);
}

#[test]
fn a_dense_block_copies_nothing() {
    let (mut net, x) = Net::image(3, 16, 16);
    let mut features = vec![net.conv(x, 8, 3, 1)];
    for _ in 0..4 {
        let cat = net.concat(&features);
        let y = net.norm(cat);
        let y = net.relu(y);
        let y = net.conv(y, 10, 1, 1);
        let y = net.norm(y);
        let y = net.relu(y);
        features.push(net.conv(y, 4, 3, 1));
    }
    let cat = net.concat(&features);
    let y = net.norm(cat);
    let y = net.relu(y);
    let y = net.conv(y, 12, 1, 1);
    let y = net.graph.avg_pool2d(y, sliding(2, 2, 0, false), Divisor::PaddedWindow, "").unwrap();
    let steps = net.check(&[y]);
    assert!(!steps.iter().any(|step| step == "copy"), "{steps:?}");
    assert_eq!(steps.len(), 1 + 4 * 3 + 3);
    // The pooling comes first: the 1x1 convolution sees a quarter of the pixels.
    assert_eq!(steps[steps.len() - 2..], ["avg_pool2d", "conv2d"]);
}

#[test]
fn a_producer_that_reads_its_own_concatenation_is_not_in_place() {
    let (mut net, x) = Net::image(3, 6, 6);
    let a = net.conv(x, 4, 3, 1);
    let b = net.conv(a, 4, 3, 1);
    let cat = net.concat(&[a, b]);
    let y = net.conv(cat, 2, 1, 1);
    let steps = net.check(&[y]);
    assert_eq!(steps.iter().filter(|step| *step == "copy").count(), 1, "{steps:?}");
    // The residual counts as read.
    let c = net.add(b, a);
    let cat = net.concat(&[a, c]);
    net.check(&[cat]);
}

#[test]
fn outputs_are_arrays_of_their_own() {
    let (mut net, x) = Net::image(6, 5, 5);
    let y = net.conv(x, 6, 3, 1);
    let part = net.graph.channels(y, 1, 4, "part").unwrap();
    let parts = net.concat(&[part, y, x]);
    net.check(&[x, y, y, part, part, parts]);
}

#[test]
fn slices_and_scaling_of_the_input() {
    // torchvision's transform_input.
    let (mut net, x) = Net::image(3, 7, 8);
    let channels: Vec<Value> = (0..3)
        .map(|c| {
            let slice = net.graph.channels(x, c, 1, "slice").unwrap();
            net.graph.map(slice, Function::Scale(0.4 + c as f32, -0.1), "scale").unwrap()
        })
        .collect();
    let x = net.concat(&channels);
    let y = net.conv(x, 4, 3, 1);
    assert_eq!(net.check(&[y]), ["scale+concat", "scale+concat", "scale+concat", "conv2d"]);
}

#[test]
fn a_smaller_last_group_has_the_memory_it_needs() {
    // Up to 17 images a group. Winograd transforms 13 images of the second layer as a whole, which
    // takes more memory than the parts of 14.
    let (mut net, x) = Net::image(64, 28, 28);
    let y = net.conv(x, 64, 3, 1);
    let y = net.conv(y, 160, 3, 1);
    let y = net.conv(y, 2, 3, 1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for batch in [27, 31] {
        // A new plan, which has no memory of an earlier run.
        let plan = net.compile_for(Precision::Winograd, &[y], &PackedWeights::new());
        let images = net.inputs(batch);
        let run = || plan.run(batch, &[&images[0]]).unwrap();
        let together = pool.install(run);
        let last = images[0].len() / batch * (batch - 1);
        let alone = plan.run(1, &[&images[0][last..]]).unwrap();
        assert_eq!(together[0][together[0].len() - alone[0].len()..], alone[0], "{batch} images");
    }
}

#[test]
fn random_networks_agree() {
    for seed in 0..60 {
        let mut state = values(400, 1000 + seed).into_iter();
        let mut draw = |n: usize| ((state.next().unwrap() + 1.0) / 2.0 * n as f32) as usize % n;
        let (mut net, x) = Net::image(1 + draw(6), 6, 7);
        let mut pool = vec![x];
        for _ in 0..draw(14) + 3 {
            let v = pool[pool.len() - 1 - draw(pool.len().min(4))];
            let w = pool[draw(pool.len())];
            let new = match draw(9) {
                0 => net.conv(v, 1 + draw(7), 3, 1),
                1 => net.conv(v, 1 + draw(7), 1, 1),
                2 => net.norm(v),
                3 | 4 => net.relu(v),
                5 => net.concat(&[v, w]),
                6 => {
                    let width = net.graph.shape(v).unwrap().channels();
                    let first = draw(width);
                    net.graph.channels(v, first, 1 + draw(width - first), "part").unwrap()
                }
                7 => net.graph.max_pool2d(v, sliding(3, 1, 1, false), "pool").unwrap(),
                _ => {
                    let width = net.graph.shape(v).unwrap().channels();
                    let y = net.conv(w, width, 1, 1);
                    net.add(y, v)
                }
            };
            pool.push(new);
        }
        let last = *pool.last().unwrap();
        net.check(&[last]);
        net.check(&[pool[draw(pool.len())], last, pool[draw(pool.len())]]);
    }
}

#[test]
fn any_grouping_of_the_batch_gives_the_same_bits() {
    let (mut net, x) = Net::image(3, 64, 64);
    let y = net.conv(x, 64, 3, 1);
    let z = net.conv(y, 64, 1, 1);
    let y = net.add(z, y);
    let y = net.graph.max_pool2d(y, sliding(4, 4, 0, false), "pool").unwrap();
    let middle = net.conv(y, 16, 3, 1);
    let y = net.mean(middle, 1);
    let y = net.flatten(y);
    let y = net.linear(y, 10);
    let batch = 19;
    let inputs = net.inputs(batch);
    for precision in [Precision::Direct, Precision::Winograd] {
        let plan = net.compile_for(precision, &[y, middle], &PackedWeights::new());
        let together = plan.run(batch, &[&inputs[0]]).unwrap();
        assert!(plan.memory(batch).arena < batch * plan.memory(1).arena);
        let image = 3 * 64 * 64;
        for i in 0..batch {
            let alone = plan.run(1, &[&inputs[0][i * image..(i + 1) * image]]).unwrap();
            for (alone, together) in alone.iter().zip(&together) {
                let len = alone.len();
                assert_eq!(alone[..], together[i * len..][..len], "{precision:?}");
            }
        }
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let (mut net, x) = Net::image(8, 40, 40);
    let y = net.norm(x);
    let y = net.relu(y);
    let a = net.conv(y, 16, 3, 1);
    let b = net.graph.max_pool2d(y, sliding(3, 1, 1, false), "").unwrap();
    let y = net.concat(&[a, b]);
    let y = net.mean(y, 5);
    let flat = net.flatten(y);
    let y = net.linear(flat, 30);
    let y = net.graph.softmax(y, false, "").unwrap();
    let inputs = net.inputs(5);
    for precision in [Precision::Direct, Precision::Winograd] {
        let plan = net.compile_for(precision, &[y, flat], &PackedWeights::new());
        same_for_any_thread_count(|| plan.run(5, &[&inputs[0]]).unwrap());
    }
}

#[test]
fn two_threads_run_one_plan_and_results_outlive_the_next_call() {
    let (mut net, x) = Net::image(3, 20, 20);
    let y = net.conv(x, 8, 3, 1);
    let y = net.conv(y, 8, 3, 1);
    let plan = net.compile(&[y], &PackedWeights::new());
    let image = 3 * 400;
    let inputs: Vec<Vec<f32>> = (0..4).map(|i| values(image, i)).collect();
    let expected: Vec<_> = inputs.iter().map(|x| plan.run(1, &[x]).unwrap()).collect();
    std::thread::scope(|scope| {
        for (x, expected) in inputs.iter().zip(&expected) {
            let plan = &plan;
            scope.spawn(move || {
                for _ in 0..30 {
                    let first = plan.run(1, &[x]).unwrap();
                    let second = plan.run(2, &[&x.repeat(2)]).unwrap();
                    assert_eq!(&first, expected);
                    assert_eq!(second[0], expected[0].repeat(2));
                }
            });
        }
    });
}

#[test]
fn plans_share_packed_layers_while_they_live() {
    let (mut net, x) = Net::image(3, 8, 8);
    let y = net.conv(x, 4, 3, 1);
    let y = net.norm(y);
    let z = net.conv(y, 4, 3, 1);
    let packed = PackedWeights::new();
    let first = net.compile(&[z], &packed);
    assert_eq!(packed.len(), 2);
    let second = net.compile(&[z], &packed);
    assert_eq!((packed.len(), packed.bytes()), (2, first.memory(1).weights));
    // The first layer without its norm is another one.
    let third = net.compile(&[y, z], &packed);
    assert_eq!(packed.len(), 2);
    drop((first, second, third));
    assert!(packed.is_empty() && packed.bytes() == 0);
    // Without identity, nothing is shared.
    let weight = net.random(4 * 3, 0.0);
    let flat = net.graph.adaptive_avg_pool2d(x, (1, 1), "").unwrap();
    let flat = net.flatten(flat);
    let y = net.graph.linear(flat, weight, (4, 3), None, vec![], "").unwrap();
    let _plan = net.compile(&[y], &packed);
    assert!(packed.is_empty());
}

#[test]
fn bad_arguments_are_named() {
    let (mut net, x) = Net::image(3, 8, 8);
    let weight = net.random(3 * 3 * 3 * 4, 0.0);
    let args =
        ConvArgs { stride: (1, 1), padding: Padding::default(), dilation: (1, 1), groups: 1 };
    let message = |error: crate::Result<Value>| error.unwrap_err().to_string();
    let g = &mut net.graph;
    let shape = (3, 3, 3, 4);
    for (result, start) in [
        (g.conv2d(x, weight, (3, 3, 5, 4), None, args, vec![], ""), "input: expected 5 channels"),
        (
            g.conv2d(x, weight, (3, 3, 3, 5), None, args, vec![], ""),
            "weight: expected 135 elements",
        ),
        (g.conv2d(x, weight, shape, Some(weight), args, vec![], ""), "bias: expected 4 elements"),
        (g.conv2d(9, weight, shape, None, args, vec![], ""), "input: expected one of the 1 values"),
        (
            g.linear(x, weight, (4, 27), None, vec![], ""),
            "input: expected shape (N, 27), got (N, 3, 8, 8)",
        ),
        (g.channels(x, 2, 2, ""), "first: expected a range within 3 channels"),
        (g.channels(x, usize::MAX, 2, ""), "first: expected"),
        (g.concat(&[], ""), "tensors: expected at least one"),
        (g.max_pool2d(x, sliding(9, 1, 0, false), ""), "input: expected at least one window"),
        (g.adaptive_avg_pool2d(x, (1 << 30, 1 << 30), ""), "output_size: expected"),
        (g.input(Shape::Image { channels: 1 << 40, height: 1 << 20, width: 8 }), "input: expected"),
    ] {
        let message = message(result);
        assert!(message.starts_with(start), "{message}");
    }
    let y = g.max_pool2d(x, sliding(2, 2, 0, false), "").unwrap();
    let sum = message(g.add(x, y, ""));
    assert_eq!(sum, "b: expected shape (N, 3, 8, 8), got (N, 3, 4, 4)");
    assert!(message(g.concat(&[x, y], "")).starts_with("tensors: expected the size of the first"));
    let error = net.graph.compile(&[x], &[], OPTIONS, &PackedWeights::new()).unwrap_err();
    assert!(error.to_string().starts_with("constants: expected"), "{error}");
    let error = net.compile(&[x], &PackedWeights::new()).run(2, &[&[0.0; 3]]).unwrap_err();
    assert!(error.to_string().starts_with("inputs: expected arrays of [384] elements"), "{error}");
}

#[test]
fn a_batch_that_no_memory_can_hold_is_refused() {
    // No input elements, so that a huge batch can be asked for.
    let mut net = Net::default();
    let x = net.graph.input(Shape::Vector(0)).unwrap();
    let y = net.linear(x, 1000);
    let z = net.linear(y, 10);
    for (output, batch) in [(y, 1 << 50), (z, 1 << 60), (z, 1 << 50)] {
        let error = net.compile(&[output], &PackedWeights::new()).run(batch, &[&[]]).unwrap_err();
        assert!(error.to_string().starts_with("input: expected a result that"), "{error}");
    }
}
